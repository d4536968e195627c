package main

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dovepost/auth"
	"dovepost/auth/scheme"
)

const (
	maxRehashes   = 64 // passwords that wait to be hashed; with more the next login will do
	rehashTimeout = 10 * time.Second
)

// rehasher stores the password of a login anew when its hash is not of the scheme and
// cost that the settings want. It does so behind the back of the one who logs in, one
// hash at a time, and by comparing and swapping: a password that has been changed
// meanwhile stays.
type rehasher struct {
	authd   *authd
	like    string // a hash as it should be
	queue   chan rehash
	dropped atomic.Uint64

	mu      sync.Mutex // guards pending
	pending map[string]bool

	stop chan struct{}
	done chan struct{}
}

// rehash is one password to be stored anew.
type rehash struct {
	request  auth.Request
	stored   string // as the row has it
	password []byte
}

// newRehasher starts the storing; nil if the settings do not want it.
func (a *authd) newRehasher() *rehasher {
	if a.rehashScheme == "" {
		return nil
	}
	h := &rehasher{authd: a, queue: make(chan rehash, maxRehashes), pending: map[string]bool{}, stop: make(chan struct{}), done: make(chan struct{})}
	h.like, _ = a.newHash([]byte("like"), "like@example.com") // checkExtras has seen that it can be made
	go h.run()
	return h
}

func (a *authd) newHash(password []byte, user string) (string, error) {
	return scheme.HashWith(a.rehashScheme, password, scheme.Options{User: user, Rounds: a.rehashRounds})
}

// add takes a login with a right password. Those of master users, with app passwords,
// without a password, and with a row that may be old, change nothing; nor does a password
// of which the old scheme has not seen the end: the user may have the rest of it on
// another device, where it would be wrong from then on.
func (h *rehasher) add(r *auth.Request, row *auth.Credentials, password []byte) {
	if row.NoPassword || row.AppPassword != "" || row.Stale || row.Stored == "" || r.MasterUser != "" || r.LoginUser != "" ||
		r.Authzid != "" && r.Authzid != r.User || shape(row.Password) == shape(h.like) ||
		!scheme.Whole(row.Password, password) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pending[row.User] {
		return
	}
	job := rehash{request: *r, stored: row.Stored, password: bytes.Clone(password)}
	job.request.User, job.request.Password, job.request.Row = row.User, "", nil
	select {
	case h.queue <- job:
		h.pending[row.User] = true
	default:
		h.dropped.Add(1)
	}
}

func (h *rehasher) run() {
	defer close(h.done)
	for {
		select {
		case <-h.stop:
			return
		case job := <-h.queue:
			h.store(job)
			clear(job.password)
			h.mu.Lock()
			delete(h.pending, job.request.User)
			h.mu.Unlock()
		}
	}
}

// store hashes and swaps. Neither the password nor a hash is ever in the log.
func (h *rehasher) store(job rehash) {
	log := h.authd.env.Log.With("user", job.request.User, "scheme", h.authd.rehashScheme)
	hash, err := h.authd.newHash(job.password, job.request.User)
	if err != nil {
		log.Warn("the password is not stored anew", "err", err)
		return
	}
	if ok, err := scheme.Verify(hash, job.password, job.request.User); err != nil || !ok {
		log.Error("the new hash is not one of the password", "err", err)
		return
	}
	_, bare, _ := strings.Cut(hash, "}")
	ctx, cancel := context.WithTimeout(context.Background(), rehashTimeout)
	defer cancel()
	changed, err := h.authd.state.Load().rehash.Exec(ctx, &job.request,
		map[string]string{"old_password": job.stored, "new_password": hash, "new_hash": bare})
	switch {
	case err != nil:
		log.Warn("the password is not stored anew", "err", without(err, hash, bare, job.stored, string(job.password)))
	case changed == 0:
		log.Info("the password is not stored anew: the row has changed")
	default:
		log.Info("password stored anew", "rows", changed)
	}
}

// without is the text of an error of the server, which may quote a value that it does
// not take (a duplicate, one of the wrong type), without the secrets.
func without(err error, secrets ...string) string {
	text := err.Error()
	for _, secret := range secrets {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "...")
		}
	}
	return text
}

// close ends the storing. What waits will be done at the next login.
func (h *rehasher) close() {
	if h == nil {
		return
	}
	close(h.stop)
	<-h.done
}

// verifier returns v with h told of every right password. A nil rehasher is not told.
func (h *rehasher) verifier(v auth.Verifier) auth.Verifier {
	if h == nil {
		return v
	}
	return rehashing{v, h}
}

type rehashing struct {
	auth.Verifier
	to *rehasher
}

func (v rehashing) VerifyPlain(ctx context.Context, r *auth.Request, password []byte) (*auth.Credentials, error) {
	row, err := v.Verifier.VerifyPlain(ctx, r, password)
	if err == nil {
		v.to.add(r, row, password)
	}
	return row, err
}

// shape is what a stored value says of scheme and cost: "$6$rounds=9000", "$2y$12",
// "$argon2id$v=19$m=65536,t=3,p=1", "SCRAM-SHA-256 4096". Formats of crypt(3) are the
// same under any name.
func shape(stored string) string {
	name, value, _ := strings.Cut(strings.TrimPrefix(stored, "{"), "}")
	name = strings.ToUpper(name)
	name, _, _ = strings.Cut(name, ".")
	switch name {
	case "PLAIN", "CLEAR", "CLEARTEXT", "PLAIN-TRUNC":
		return name // whatever the password looks like
	}
	if strings.HasPrefix(name, "SCRAM-") {
		rounds, _, _ := strings.Cut(value, ",")
		return name + " " + rounds
	}
	parts := strings.Split(value, "$") // the first is empty
	if len(parts) < 3 || parts[0] != "" {
		return name
	}
	if name == "PBKDF2" {
		if len(parts) < 5 {
			return name
		}
		return name + " " + parts[3]
	}
	id := parts[1]
	made := "$" + id
	for i, part := range parts[2:] {
		cost := strings.Contains(part, "=") || i == 0 && (strings.HasPrefix(id, "2") || id == "y" || id == "gy")
		if !cost || i > 1 {
			break
		}
		made += "$" + part
	}
	return made
}
