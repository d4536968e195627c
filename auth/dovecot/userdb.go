package dovecot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"sync"
	"syscall"
	"time"

	"dovepost/auth"
)

// maxAskers bounds the connections of a Userdb.
const maxAskers = 8

// Userdb asks an auth-userdb socket, of authd or of Dovecot. It is an auth.Userdb
// and, by PASS, an auth.Passdb without passwords. It keeps a few connections, makes
// new ones when the server has been restarted, and is safe for concurrent use.
type Userdb struct {
	Network, Address string        // "unix" and a path, or "tcp" and host:port
	Timeout          time.Duration // of one lookup; 0 is 30 s

	once  sync.Once
	slots chan struct{}
	mu    sync.Mutex // guards idle
	idle  []*asker
}

// LookupUser asks for r.User, or for r.Login where there is none. Errors:
// auth.ErrUnknownUser when the server said NOTFOUND; any other is temporary.
func (u *Userdb) LookupUser(ctx context.Context, r *auth.Request) (*auth.User, error) {
	fields, err := u.lookup(ctx, "USER", r)
	if err != nil {
		return nil, err
	}
	if len(fields) == 0 || fields[0] == "" {
		return nil, errors.New("the auth server names no user")
	}
	return parseUser(fields[0], parseFields(fields[1:])), nil
}

// parseUser makes a user of a USER answer. Dovecot 2.4's mail location comes in parts.
func parseUser(name string, fields auth.Fields) *auth.User {
	u := &auth.User{Name: name}
	driver, _ := fields.Get("mail_driver")
	path, hasPath := fields.Get("mail_path")
	if driver != "" && hasPath {
		u.Mail = driver + ":" + path
	}
	setFields(u, fields)
	return u
}

// setFields gives u the fields of a userdb row, each its place.
func setFields(u *auth.User, fields auth.Fields) {
	for _, f := range fields {
		switch f.Name {
		case "home":
			u.Home = f.Value
		case "mail":
			u.Mail = f.Value
		case "uid":
			u.UID = f.Value
		case "gid":
			u.GID = f.Value
		default:
			u.Fields = append(u.Fields, f)
		}
	}
}

// LookupPass asks with PASS: the row has no password. Errors as for LookupUser.
func (u *Userdb) LookupPass(ctx context.Context, r *auth.Request) (*auth.Credentials, error) {
	fields, err := u.lookup(ctx, "PASS", r)
	if err != nil {
		return nil, err
	}
	return parseCredentials(fields)
}

func (u *Userdb) lookup(ctx context.Context, word string, r *auth.Request) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, orDefault(u.Timeout))
	defer cancel()
	name := r.User
	if name == "" {
		name = r.Login
	}
	if err := u.acquire(ctx); err != nil {
		return nil, err
	}
	defer u.release()
	for {
		a, reused, err := u.get(ctx)
		if err != nil {
			return nil, err
		}
		fields, err := a.lookup(ctx, word, name, r)
		switch {
		case err == nil, errors.Is(err, auth.ErrUnknownUser), errors.As(err, new(failedLookup)):
			if ctx.Err() != nil {
				a.Close() // its deadline may still be changing
			} else {
				u.put(a)
			}
			return fields, err
		case !reused || ctx.Err() != nil || !isGone(err):
			a.Close()
			return nil, err
		}
		// The server has closed the connection since the last question: ask anew.
		a.Close()
	}
}

// failedLookup is the reason of a FAIL.
type failedLookup string

func (f failedLookup) Error() string { return "the auth server says: " + string(f) }

func (a *asker) lookup(ctx context.Context, word, name string, r *auth.Request) ([]string, error) {
	defer a.until(ctx)()
	id, err := a.ask(word, appendParams(appendEscaped([]byte{'\t'}, name), r, a.modern))
	if err != nil {
		return nil, err
	}
	got, fields, err := a.answer(id)
	switch {
	case err != nil:
		return nil, err
	case got == word:
		return fields, nil
	case got == "NOTFOUND":
		return nil, auth.ErrUnknownUser
	case got == "FAIL":
		reason, _ := parseFields(fields).Get("reason")
		return nil, failedLookup(reason)
	}
	return nil, fmt.Errorf("unexpected answer %.20q", got)
}

// Users yields the names that match mask. A non-nil error ends the sequence.
func (u *Userdb) Users(ctx context.Context, mask string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if err := u.list(ctx, mask, yield); err != nil && !errors.Is(err, errEnough) {
			yield("", err)
		}
	}
}

// errEnough: whoever listens to a list wants no more.
var errEnough = errors.New("enough")

// list uses a connection of its own: it may last, and be given up half way.
func (u *Userdb) list(ctx context.Context, mask string, yield func(string, error) bool) error {
	dialCtx, cancel := context.WithTimeout(ctx, orDefault(u.Timeout))
	defer cancel()
	a, err := u.dial(dialCtx)
	if err != nil {
		return err
	}
	defer a.Close()
	defer a.until(ctx)()
	if mask == "" {
		mask = "*"
	}
	id, err := a.ask("LIST", appendParams(appendPair(nil, "user", mask), &auth.Request{}, a.modern))
	if err != nil {
		return err
	}
	for {
		if ctx.Err() == nil {
			a.SetReadDeadline(time.Now().Add(orDefault(u.Timeout)))
		}
		word, fields, err := a.answer(id)
		switch {
		case err != nil:
			return err
		case word == "LIST" && len(fields) > 0:
			if !yield(fields[0], nil) {
				return errEnough
			}
		case word == "DONE" && (len(fields) == 0 || fields[0] == ""):
			return nil
		case word == "DONE":
			return errors.New("the auth server could not list all users")
		default:
			return fmt.Errorf("unexpected answer %.20q", word)
		}
	}
}

func (u *Userdb) dial(ctx context.Context) (*asker, error) {
	return dial(ctx, u.Network, u.Address, "VERSION\t1\t1\n", "SPID", func(fields []string) error {
		if fields[0] == "MECH" {
			return errors.New("this is an auth-client socket, an auth-userdb socket is wanted")
		}
		return nil
	})
}

// acquire waits for one of maxAskers places.
func (u *Userdb) acquire(ctx context.Context) error {
	u.once.Do(func() { u.slots = make(chan struct{}, maxAskers) })
	select {
	case u.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (u *Userdb) release() { <-u.slots }

// get returns a connection, an old one if there is one.
func (u *Userdb) get(ctx context.Context) (a *asker, reused bool, err error) {
	u.mu.Lock()
	if n := len(u.idle); n > 0 {
		a, u.idle = u.idle[n-1], u.idle[:n-1]
	}
	u.mu.Unlock()
	if a != nil {
		return a, true, nil
	}
	a, err = u.dial(ctx)
	return a, false, err
}

func (u *Userdb) put(a *asker) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.idle = append(u.idle, a) // at most maxAskers are out
}

// Close closes the connections that are not in use.
func (u *Userdb) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, a := range u.idle {
		a.Close()
	}
	u.idle = nil
	return nil
}

// isGone reports whether the other side has ended the connection.
func isGone(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed)
}
