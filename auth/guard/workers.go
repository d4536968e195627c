package guard

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"dovepost/auth"
)

const (
	maxQueued          = 16 << 10
	maxQueuedPerSource = 2 * maxPerNetwork

	// hashMemory is what hashes may take together where nobody says, in octets.
	hashMemory = 256 << 20

	// knownTurns: of so many free workers one goes to those who are not known, even
	// where others wait.
	knownTurns = 4
)

var errBusy = errors.New("guard: too many passwords wait for a worker")

// Workers bounds how many hashes are computed at a time and what memory they
// take, and shares the workers out: sources take turns, however much each asks
// for, and attempts of users who are known where they come from go first. One set
// serves all that compute hashes for logins.
type Workers struct {
	slots  int   // at a time
	memory int64 // octets at a time; one hash that needs more runs alone
	knows  func(*auth.Request) bool

	mu      sync.Mutex // guards what follows
	running int
	used    int64
	queued  int
	sources map[sourceKey]*source
	turns   [2]list.List // of *source with jobs, by class; the next one in front
	grants  int
}

type sourceKey struct {
	network id // 0: no address
	known   bool
}

type source struct {
	key  sourceKey
	jobs list.List // of *job
}

// job is one hash that wants to be computed.
type job struct {
	sourceKey
	memory int64
	ready  chan struct{} // closed when it may run
	place  *list.Element // in its source; nil when it has left
}

// NewWorkers returns workers for slots hashes at a time, 0: as many as there are
// processors, that take memory octets together, 0: 256 MiB. known says whether a user
// has logged in from where he is now; nil: nobody has.
func NewWorkers(slots int, memory int64, known func(*auth.Request) bool) *Workers {
	if slots <= 0 {
		slots = runtime.GOMAXPROCS(0)
	}
	return &Workers{slots: slots, memory: cmp.Or(memory, hashMemory), knows: known, sources: make(map[sourceKey]*source)}
}

// Do has f computed, which takes memory octets, when it is the turn of r's network.
// An error, which is temporary, says that no worker was free in time, or that too many
// wait.
func (w *Workers) Do(ctx context.Context, r *auth.Request, memory int64, f func()) error {
	var key sourceKey
	if r.RemoteIP.IsValid() {
		key.network = networkOf(r.RemoteIP).id
	}
	key.known = w.knows != nil && w.knows(r)
	return w.do(ctx, key, memory, f)
}

// do is Do for a source.
func (w *Workers) do(ctx context.Context, key sourceKey, memory int64, f func()) error {
	j := &job{sourceKey: key, memory: memory, ready: make(chan struct{})}
	if err := w.enqueue(j); err != nil {
		return err
	}
	select {
	case <-j.ready:
	case <-ctx.Done():
		if w.withdraw(j) {
			return fmt.Errorf("no free worker for a password hash: %w", context.Cause(ctx))
		}
	}
	defer w.release(j)
	f()
	return nil
}

func (w *Workers) enqueue(j *job) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.sources[j.sourceKey]
	if w.queued >= maxQueued || s != nil && j.network != 0 && s.jobs.Len() >= maxQueuedPerSource {
		return errBusy
	}
	if s == nil {
		s = &source{key: j.sourceKey}
		w.sources[j.sourceKey] = s
		w.class(j.known).PushBack(s)
	}
	j.place = s.jobs.PushBack(j)
	w.queued++
	w.dispatch()
	return nil
}

// withdraw takes j out of its queue. false: it may run already.
func (w *Workers) withdraw(j *job) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if j.place == nil {
		return false
	}
	s := w.sources[j.sourceKey]
	s.jobs.Remove(j.place)
	w.queued--
	if s.jobs.Len() == 0 {
		turns := w.class(j.known)
		for e := turns.Front(); e != nil; e = e.Next() {
			if e.Value == s {
				turns.Remove(e)
				break
			}
		}
		delete(w.sources, j.sourceKey)
	}
	w.dispatch() // what was behind it may fit
	return true
}

func (w *Workers) release(j *job) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running--
	w.used -= j.memory
	w.dispatch()
}

// dispatch lets run what may; w.mu is held. A hash that needs more memory than is
// free holds up those behind it, or it would wait for ever.
func (w *Workers) dispatch() {
	for w.running < w.slots && w.queued > 0 {
		turns := w.next()
		s := turns.Front().Value.(*source)
		j := s.jobs.Front().Value.(*job)
		if w.running > 0 && w.used+j.memory > w.memory {
			return
		}
		s.jobs.Remove(j.place)
		j.place = nil
		if s.jobs.Len() > 0 {
			turns.MoveToBack(turns.Front())
		} else {
			turns.Remove(turns.Front())
			delete(w.sources, s.key)
		}
		w.queued--
		w.grants++
		w.running++
		w.used += j.memory
		close(j.ready)
	}
}

// next is the class that has the next turn; some job is queued.
func (w *Workers) next() *list.List {
	known, others := w.class(true), w.class(false)
	if known.Len() == 0 || others.Len() > 0 && w.grants%knownTurns == knownTurns-1 {
		return others
	}
	return known
}

func (w *Workers) class(known bool) *list.List {
	if known {
		return &w.turns[1]
	}
	return &w.turns[0]
}
