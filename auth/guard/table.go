package guard

import (
	"container/list"
	"hash/maphash"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// id is the keyed hash of a name or of a network. The key is new in each process,
// so nobody can choose names that collide.
type id uint64

var seed = maphash.MakeSeed()

func idOf[T comparable](v T) id { return id(maphash.Comparable(seed, v)) }

// network is whom an attempt is put down to: an IPv4 address, or the /48 of an
// IPv6 address, as in anvil. shard is a wider net around it.
type network struct{ id, shard id }

func networkOf(ip netip.Addr) network {
	ip = ip.Unmap().WithZone("")
	bits, wide := 48, 32
	if ip.Is4() {
		bits, wide = 32, 16
	}
	narrow, _ := ip.Prefix(bits)
	around, _ := ip.Prefix(wide)
	return network{idOf(narrow), idOf(around)}
}

// table holds what is remembered of something, by id. It is bounded: where a shard
// is full the record goes that was used least recently. Networks are put into
// shards by the wider net around them, so that whoever has many addresses in one
// net pushes out few others.
type table[V any] struct {
	shards [tableShards]shard[V]
	most   int // records of a shard
}

const tableShards = 64

type shard[V any] struct {
	mu      sync.Mutex // guards what follows, and the records
	entries map[id]*list.Element
	order   list.List // of entry[V], the latest first
}

type entry[V any] struct {
	key id
	v   V
}

func newTable[V any](most int) *table[V] {
	t := &table[V]{most: max(1, most/tableShards)}
	for i := range t.shards {
		t.shards[i].entries = make(map[id]*list.Element)
	}
	return t
}

// with calls f with the record of key in the shard at, alone. It makes the record
// if create says so; else f is not called where there is none.
func (t *table[V]) with(at, key id, create bool, f func(*V)) {
	s := &t.shards[at%tableShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[key]
	switch {
	case e != nil:
		s.order.MoveToFront(e)
	case !create:
		return
	default:
		if s.order.Len() >= t.most {
			oldest := s.order.Back()
			delete(s.entries, s.order.Remove(oldest).(*entry[V]).key)
		}
		e = s.order.PushFront(&entry[V]{key: key})
		s.entries[key] = e
	}
	f(&e.Value.(*entry[V]).v)
}

func (t *table[V]) len() (n int) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		n += s.order.Len()
		s.mu.Unlock()
	}
	return n
}

// recent is a set of what was seen within a time, with a bound.
type recent struct{ marks []mark }

type mark struct {
	id id
	at time.Time
}

// add puts v into the set. It reports whether there was room.
func (s *recent) add(v id, now time.Time, window time.Duration, most int) bool {
	s.prune(now, window)
	if i := slices.IndexFunc(s.marks, func(m mark) bool { return m.id == v }); i >= 0 {
		s.marks[i].at = now
		return true
	}
	if len(s.marks) >= most {
		return false
	}
	s.marks = append(s.marks, mark{v, now})
	return true
}

// count is how many there are, except one.
func (s *recent) count(now time.Time, window time.Duration, except id) (n int) {
	s.prune(now, window)
	for _, m := range s.marks {
		if m.id != except {
			n++
		}
	}
	return n
}

func (s *recent) prune(now time.Time, window time.Duration) {
	s.marks = slices.DeleteFunc(s.marks, func(m mark) bool { return now.Sub(m.at) >= window })
}
