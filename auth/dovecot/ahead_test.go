package dovecot

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"

	"dovepost/auth"
)

// noting notes who is asked about.
type noting struct {
	fakeDB
	asked []string
}

func (n *noting) LookupUser(ctx context.Context, r *auth.Request) (*auth.User, error) {
	n.asked = append(n.asked, r.User+" "+r.Service+" "+r.Row.User)
	return n.fakeDB.LookupUser(ctx, r)
}

// A user is asked about before a master does, if one is about to, and in the same words.
func TestAhead(t *testing.T) {
	for _, tt := range []struct {
		name, kind, user, password string
		want                       []string
	}{
		{"a login", "login", "alice", "secret", []string{"alice@example.com imap alice@example.com"}},
		{"a login under another name", "login", "renamed", "secret", []string{"Alice@example.com imap Alice@example.com"}},
		{"a part of the userdb in the passdb's row", "login", "partial", "secret", []string{"partial@example.com imap partial@example.com"}},
		{"all of it there", "login", "prefetch", "secret", nil},
		{"a wrong password", "login", "alice", "wrong", nil},
		{"an unknown user", "login", "nobody", "secret", nil},
		{"a user who may not log in", "login", "nologin", "secret", nil},
		{"a login that goes on elsewhere", "login", "proxied", "secret", nil},
		{"a client that hands nothing over", "client", "alice", "secret", nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			g, db := newRig(t), &noting{}
			g.ahead = db
			s := g.session(t, tt.kind, 2, 100)
			s.send("AUTH\t1\tPLAIN\tservice=imap\tsecured\tresp=%s", plainResponse("", tt.user+"@example.com", tt.password))
			s.read()
			s.hangUp() // all steps have ended
			if !slices.Equal(db.asked, tt.want) {
				t.Errorf("it handles %s: asked %q, want %q", tt.name, db.asked, tt.want)
			}
		})
	}
}

// What comes of asking ahead is nothing to the login: the master asks, and hears.
func TestAheadInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		g.ahead = away{}
		s := g.session(t, "login", 2, 100)
		s.send("AUTH\t1\tPLAIN\tservice=imap\tsecured\tresp=%s", aliceResponse)
		s.expect("OK\t1\tuser=alice@example.com")
		m := g.session(t, "master", 1, 0)
		m.send("REQUEST\t7\t100\t1\t%s", s.cookie)
		m.expect("USER\t7\talice@example.com\tuid=5000\tgid=5000\thome=/m/alice@example.com\tmail=maildir:~/Maildir\tauth_mech=PLAIN")
		m.hangUp()
		s.hangUp()
	})
}

// away is a userdb that does not answer.
type away struct{ fakeDB }

func (away) LookupUser(ctx context.Context, r *auth.Request) (*auth.User, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
