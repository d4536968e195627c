package dovecot

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"dovepost/auth"
)

// Instance is what all handlers of one daemon share: its number, and the logins
// that wait for their REQUEST.
type Instance struct {
	spid     uint32
	lastCUID atomic.Uint32

	mu     sync.Mutex             // guards logins
	logins map[uint32]*clientConn // login connections by CPID
}

// NewInstance returns an instance that is named by the process id, as Dovecot's own.
func NewInstance() *Instance {
	// 1 to 2^31-1: login processes abort at 0.
	return &Instance{spid: max(1, uint32(os.Getpid())&(1<<31-1)), logins: make(map[uint32]*clientConn)}
}

// oldGone is how long a login process that comes back waits for the end of its
// previous connection to be noticed.
const oldGone = time.Second

// enter makes c's logins available for pick-up under the process id pid, which
// has to be unique among live login connections.
func (in *Instance) enter(pid uint32, c *clientConn) error {
	deadline := time.After(oldGone)
	for {
		in.mu.Lock()
		old := in.logins[pid]
		if old == nil {
			in.logins[pid] = c
			in.mu.Unlock()
			return nil
		}
		in.mu.Unlock()
		select {
		case <-old.gone:
		case <-deadline:
			return fmt.Errorf("the pid %d of another live connection", pid)
		}
	}
}

func (in *Instance) leave(pid uint32, c *clientConn) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.logins[pid] == c {
		delete(in.logins, pid)
	}
}

// login is a successful authentication that waits for its pick-up.
type login struct {
	req *auth.Request
	row *auth.Credentials
}

// request returns what the userdb is asked with.
func (l login) request() *auth.Request {
	r := *l.req
	r.User, r.Row = l.row.User, l.row
	return &r
}

// pickUp hands over, once, the login that the process pid has authenticated as id.
func (in *Instance) pickUp(pid, id uint32, cookie string) (login, error) {
	in.mu.Lock()
	c := in.logins[pid]
	in.mu.Unlock()
	if c == nil {
		return login{}, fmt.Errorf("no login process %d", pid)
	}
	if subtle.ConstantTimeCompare([]byte(cookie), []byte(c.cookie)) != 1 {
		return login{}, fmt.Errorf("invalid cookie for login process %d", pid)
	}
	l, ok := c.claim(id)
	if !ok {
		return login{}, fmt.Errorf("login process %d has no finished request %d", pid, id)
	}
	return l, nil
}

// newCookie returns the secret that protects the pick-up: 16 octets in hexadecimal.
func newCookie() string {
	var b [16]byte
	rand.Read(b[:]) // never fails: it ends the process instead
	return hex.EncodeToString(b[:])
}
