package guard

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"dovepost/auth"
)

// Verified remembers which passwords have been found to be right, so that a mail
// client that logs in every minute does not cost a slow hash every minute.
//
// An entry belongs to one user and one stored hash and holds a keyed digest of the
// password. So it ends by itself when the hash in the database changes; that the row
// is still there, and what it demands, is looked up for every login. Wrong passwords
// are not remembered: they cost what they cost without Verified. The key is random,
// in memory only, and new in every process. A nil Verified remembers nothing.
type Verified struct {
	ttl  time.Duration
	half int // entries of one generation
	key  [32]byte

	hits, misses atomic.Uint64

	mu         sync.Mutex // guards what follows
	young, old map[digest]proof
}

type digest [sha256.Size]byte

// proof is what is known of one user's stored hash.
type proof struct {
	password digest
	until    time.Time
}

// proofSize is what an entry costs in octets, its place in the table included.
const proofSize = 200

// NewVerified makes a cache of at most size octets, which forgets a password ttl
// after it was last compared with the hash itself. It is nil where one of them is 0.
func NewVerified(ttl time.Duration, size int64) *Verified {
	half := int(size / proofSize / 2)
	if ttl <= 0 || half < 1 {
		return nil
	}
	v := &Verified{ttl: ttl, half: half, young: map[digest]proof{}}
	rand.Read(v.key[:]) // never fails: it ends the process instead
	return v
}

// digests returns what stands for the user's stored hash, and for a password of it.
func (v *Verified) digests(user, stored string, password []byte) (row, word digest) {
	h := hmac.New(sha256.New, v.key[:])
	h.Write(binary.AppendUvarint(nil, uint64(len(user))))
	h.Write([]byte(user))
	h.Write([]byte(stored))
	h.Sum(row[:0])
	h.Reset()
	h.Write(row[:]) // of a fixed length
	h.Write(password)
	h.Sum(word[:0])
	return row, word
}

// Knows reports whether password has been found to be the one of the user's stored hash.
func (v *Verified) Knows(user, stored string, password []byte) bool {
	if v == nil {
		return false
	}
	row, word := v.digests(user, stored, password)
	v.mu.Lock()
	p, ok := v.young[row]
	if !ok {
		if p, ok = v.old[row]; ok {
			v.add(row, p)
		}
	}
	v.mu.Unlock()
	ok = subtle.ConstantTimeCompare(p.password[:], word[:]) == 1 && ok && time.Now().Before(p.until)
	if ok {
		v.hits.Add(1)
	} else {
		v.misses.Add(1)
	}
	return ok
}

// Keep remembers that password has just been found to be the one of the user's stored hash.
func (v *Verified) Keep(user, stored string, password []byte) {
	if v == nil {
		return
	}
	row, word := v.digests(user, stored, password)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.add(row, proof{word, time.Now().Add(v.ttl)})
}

// add adds an entry. When there is no room, the half that was not used since the last
// time is forgotten. v.mu is held.
func (v *Verified) add(row digest, p proof) {
	if _, there := v.young[row]; !there && len(v.young) >= v.half {
		v.young, v.old = make(map[digest]proof, v.half/4), v.young
	}
	v.young[row] = p
}

// Forget forgets all passwords.
func (v *Verified) Forget() {
	if v == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.young)
	v.old = nil
}

// Stats returns figures in the form that the metrics of caches have.
func (v *Verified) Stats() (hits, stale, misses, entries, bytes uint64) {
	if v == nil {
		return 0, 0, 0, 0, 0
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	entries = uint64(len(v.young) + len(v.old))
	return v.hits.Load(), 0, v.misses.Load(), entries, entries * proofSize
}

// proveAnew repeats a refusal that a cached row led to with the database's present
// word. Asked is the name under which the row was found. While the database does not
// answer the refusal stays, and r.Stale says that it is none.
func (t *trial) proveAnew(ctx context.Context, asked string, old *auth.Credentials, refusal error) (*auth.Credentials, error) {
	if old.Stale {
		t.r.Stale = true
		return nil, refusal
	}
	t.r.User, t.r.NoCache = asked, true
	defer func() { t.r.NoCache = false }()
	row, err := t.v.find(ctx, t.r)
	if auth.Refused(err) {
		return nil, t.v.refused(t.r, err, err.Error())
	}
	if err != nil {
		return nil, err
	}
	return t.prove(ctx, row)
}

// present finds the row as the database has it now, for mechanisms that compare by
// themselves. While it does not answer the last known row serves, and r.Stale says so.
func (v *Verifier) present(ctx context.Context, r *auth.Request) (*auth.Credentials, error) {
	asked := r.User
	row, err := v.find(ctx, r)
	if err != nil || !row.Cached {
		return row, err
	}
	if !row.Stale {
		final := r.User
		r.User, r.NoCache = asked, true
		now, err := v.find(ctx, r)
		r.NoCache = false
		if err == nil || auth.Refused(err) {
			return now, err
		}
		r.User = final
	}
	r.Stale = true
	return row, nil
}
