package dovecot

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dovepost/auth"
)

func TestUserdbAsksOurServer(t *testing.T) {
	l := newRig(t).listen(t, "userdb", 0o600)
	u := &Userdb{Network: "unix", Address: l.path}
	defer u.Close()
	ctx := t.Context()

	got, err := u.LookupUser(ctx, &auth.Request{Login: "Rich@Example.com", Service: "lmtp", RemoteIP: netip.MustParseAddr("192.0.2.1")})
	if err != nil {
		t.Fatal(err)
	}
	want := &auth.User{Name: "rich@example.com", Home: "/m/rich@example.com", Mail: "maildir:~/Maildir:INDEX=/i:LAYOUT=fs", UID: "5000", GID: "5000",
		Fields: auth.Fields{field("quota_rule", "*:storage=1G:messages=10"), field("quota_rule2", "Trash:storage=+10%"),
			field("mail_plugins+", " acl"), field("plugin/x", "y"), boolean("flag"), field("odd", "a\tb")}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("LookupUser = %+v, want %+v", got, want)
	}
	if _, err := u.LookupUser(ctx, &auth.Request{User: "nobody@example.com", Service: "lmtp"}); !errors.Is(err, auth.ErrUnknownUser) {
		t.Errorf("unknown user: %v, want ErrUnknownUser", err)
	}
	for _, name := range []string{"temp@example.com", "escape@example.com", "long@example.com"} {
		if _, err := u.LookupUser(ctx, &auth.Request{User: name, Service: "lmtp"}); err == nil || auth.Refused(err) {
			t.Errorf("%s: %v, want a temporary error", name, err)
		}
	}
	row, err := u.LookupPass(ctx, &auth.Request{User: "proxied@example.com", Service: "doveadm", RemoteIP: netip.MustParseAddr("127.0.0.1")})
	if err != nil || row.User != "proxied@example.com" || row.Password != "" {
		t.Errorf("LookupPass = %+v, %v", row, err)
	}
	var names []string
	for name, err := range u.Users(ctx, "*") {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	if want := []string{"alice@example.com", "tab\tbed"}; !slices.Equal(names, want) {
		t.Errorf("Users = %q, want %q", names, want)
	}
	for range u.Users(ctx, "*") {
		break // half way
	}
	var last error
	for _, err := range u.Users(ctx, "down*") {
		last = err
	}
	if last == nil {
		t.Error("a list that failed half way has no error")
	}
}

func TestUserdbComesBackAfterARestart(t *testing.T) {
	g := newRig(t)
	path := t.TempDir() + "/userdb"
	serve := func() (stop func()) {
		ln, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		var served sync.WaitGroup
		served.Go(func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				served.Go(func() { defer c.Close(); g.handler("userdb").ServeConn(ctx, c) })
			}
		})
		return func() { ln.Close(); cancel(); served.Wait() }
	}
	u := &Userdb{Network: "unix", Address: path}
	defer u.Close()
	ask := func() error {
		_, err := u.LookupUser(t.Context(), &auth.Request{User: "alice@example.com", Service: "lmtp"})
		return err
	}
	stop := serve()
	var all sync.WaitGroup
	for range 3 * maxAskers {
		all.Go(func() {
			if err := ask(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	stop()
	if err := ask(); err == nil || auth.Refused(err) {
		t.Errorf("without a server: %v, want a temporary error", err)
	}
	stop = serve()
	defer stop()
	for range maxAskers {
		if err := ask(); err != nil {
			t.Errorf("after the restart: %v", err)
		}
	}
}

func TestUserdbGivesUp(t *testing.T) {
	l := newRig(t).listen(t, "userdb", 0o600)
	u := &Userdb{Network: "unix", Address: l.path, Timeout: 50 * time.Millisecond}
	defer u.Close()
	if _, err := u.LookupUser(t.Context(), &auth.Request{User: "hang@example.com", Service: "lmtp"}); err == nil || auth.Refused(err) {
		t.Errorf("hanging lookup: %v, want a temporary error", err)
	}
	u.Timeout = time.Minute
	if _, err := u.LookupUser(t.Context(), &auth.Request{User: "alice@example.com", Service: "lmtp"}); err != nil {
		t.Errorf("the next lookup: %v", err)
	}
	client := newRig(t).listen(t, "client", 0o600)
	wrong := &Userdb{Network: "unix", Address: client.path}
	if _, err := wrong.LookupUser(t.Context(), &auth.Request{User: "alice@example.com"}); err == nil || !strings.Contains(err.Error(), "auth-client socket") {
		t.Errorf("wrong socket: %v", err)
	}
}

func TestAuthPlain(t *testing.T) {
	l := newRig(t).listen(t, "client", 0o600)
	c := &Client{Network: "unix", Address: l.path, Timeout: time.Minute}
	for _, tt := range []struct {
		name, user, password, service string
		want                          error
		reason                        string
	}{
		{"the right password", "Alice@Example.com", "secret", "imap", nil, ""},
		{"a wrong one", "alice@example.com", "wrong", "imap", auth.ErrPasswordMismatch, ""},
		{"an unknown user", "nobody@example.com", "secret", "imap", auth.ErrPasswordMismatch, ""},
		{"a locked user", "locked@example.com", "secret", "imap", auth.ErrUserDisabled, "ask the  master"},
		{"an expired password", "expired@example.com", "secret", "imap", auth.ErrPassExpired, ""},
	} {
		row, err := c.AuthPlain(t.Context(), &auth.Request{Login: tt.user, Service: tt.service, Secured: true}, []byte(tt.password))
		if !errors.Is(err, tt.want) {
			t.Errorf("it handles %s: %v, want %v", tt.name, err, tt.want)
		}
		var refusal *auth.Refusal
		if errors.As(err, &refusal) && refusal.Reason != tt.reason {
			t.Errorf("it handles %s: reason %q, want %q", tt.name, refusal.Reason, tt.reason)
		}
		if err == nil && row.User != "alice@example.com" {
			t.Errorf("it handles %s: user %q", tt.name, row.User)
		}
	}
	for _, service := range []string{"imap", "smtp"} {
		_, err := c.AuthPlain(t.Context(), &auth.Request{Login: "temp@example.com", Service: service}, []byte("secret"))
		if err == nil || auth.Refused(err) {
			t.Errorf("%s while the database is away: %v, want a temporary error", service, err)
		}
	}
}
