package dovecot

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"dovepost/auth"
	"dovepost/auth/guard"
	"dovepost/auth/sasl"
)

func field(name, value string) auth.Field {
	return auth.Field{Name: name, Value: value, HasValue: true}
}
func boolean(name string) auth.Field { return auth.Field{Name: name} }

// fakeDB is a passdb and userdb whose users the dialogues know.
type fakeDB struct{}

var errDown = errors.New("the database is away")

func (fakeDB) LookupPass(ctx context.Context, r *auth.Request) (*auth.Credentials, error) {
	row := &auth.Credentials{User: r.User, Password: "{PLAIN}secret"}
	local, domain, _ := strings.Cut(r.User, "@")
	switch local {
	case "alice", "bob", "rich", "long", "escape":
	case "mta":
		if !r.MTA {
			return nil, auth.ErrUnknownUser
		}
	case "temp":
		return nil, errDown
	case "hang":
		<-ctx.Done()
		return nil, ctx.Err()
	case "panic":
		panic("a bug in the database")
	case "locked":
		return nil, &auth.Refusal{Err: auth.ErrUserDisabled, Reason: "ask\tthe\r\nmaster"}
	case "expired":
		return nil, auth.ErrPassExpired
	case "nologin":
		row.Fields = auth.Fields{boolean("nologin"), field("reason", "closed for today")}
	case "maybe":
		row.Fields = auth.Fields{field("proxy_maybe", "y"), field("host", "127.0.0.1"), field("port", "1143"), field("destuser", r.User)}
	case "named":
		row.Fields = auth.Fields{field("proxy", "y"), field("host", "localhost"), field("master", "m")}
	case "open":
		row.Password, row.NoPassword, row.Fields = "", true, auth.Fields{boolean("proxy"), field("host", "192.0.2.8")}
	case "nowhere":
		row.Fields = auth.Fields{boolean("proxy"), field("host", "nowhere.invalid")}
	case "secrets":
		row.Fields = auth.Fields{field("pass", "x"), field("allow_nets", "127.0.0.0/8"), field("resp", "x"), field("code", "x"), field("delay_until", "1"),
			field("userdb_x", "y"), boolean("nodelay"), field("user_alt", "b"), field("forward_a", "mine"), field("original_user", "whoever")}
	case "guest":
		row.Fields = auth.Fields{field("anonymous", "y")}
	case "proxied":
		row.Fields = auth.Fields{boolean("proxy"), field("host", "192.0.2.7"), field("pass", "other"), field("allow_nets", "127.0.0.0/8")}
	case "renamed":
		row.User = "Alice@" + domain
	case "prefetch":
		row.Userdb = auth.Fields{field("home", "/m/prefetch"), field("uid", "5001"), field("gid", "5001"), field("quota_rule", "*:storage=5M")}
	case "partial":
		row.Userdb = auth.Fields{field("quota_rule", "*:storage=9M"), field("home", "/elsewhere")}
	case "huge":
		row.Fields = auth.Fields{field("forward_x", strings.Repeat("x", maxLine))}
	default:
		return nil, auth.ErrUnknownUser
	}
	return row, nil
}

func (fakeDB) LookupUser(ctx context.Context, r *auth.Request) (*auth.User, error) {
	u := &auth.User{Name: r.User, Home: "/m/" + r.User, Mail: "maildir:~/Maildir", UID: "5000", GID: "5000"}
	local, domain, _ := strings.Cut(r.User, "@")
	switch local {
	case "alice", "partial", "nologin":
	case "bob":
		u.Fields = auth.Fields{field("quota_rule", "*:bytes=4242000")}
	case "temp":
		return nil, errDown
	case "hang":
		<-ctx.Done()
		return nil, ctx.Err()
	case "panic":
		panic("a bug in the database")
	case "escape":
		u.Home = "/m/../etc"
	case "long":
		u.Fields = auth.Fields{field("x", strings.Repeat("x", maxReply))}
	case "rich":
		u.Mail = "maildir:~/Maildir:INDEX=/i:LAYOUT=fs"
		u.Fields = auth.Fields{field("quota_rule", "*:storage=1G:messages=10"), field("quota_rule2", "Trash:storage=+10%"),
			field("mail_plugins+", " acl"), field("plugin/x", "y"), boolean("flag"), field("odd", "a\tb")}
	case "renamed":
		u.Name = "Alice@" + domain
	default:
		return nil, auth.ErrUnknownUser
	}
	return u, nil
}

func (fakeDB) Users(ctx context.Context, mask string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if !yield("alice@example.com", nil) || !yield("tab\tbed", nil) {
			return
		}
		if mask == "down*" {
			yield("", errDown)
		}
	}
}

// rig is one instance with all kinds of sockets.
type rig struct {
	instance *Instance
	verifier auth.Verifier
	tokens   *Tokens
	lookup   guard.Lookup
	ahead    auth.Userdb // of the logins; may be nil
	delay    *guard.Delay
	gate     *guard.Gate
	log      *slog.Logger
	admit    func(context.Context) // waits until a new connection may be served; may be nil
}

func newRig(t testing.TB) *rig {
	names, err := guard.NewNames("", "", guard.DefaultUsernameChars, guard.DefaultUsernameFormat)
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	tokens, err := NewTokens([]byte(strings.Repeat("s", TokenSecretSize)))
	if err != nil {
		t.Fatal(err)
	}
	delay := guard.NewDelay(0)
	return &rig{instance: NewInstance(), log: quiet, delay: delay, gate: guard.NewGate(guard.Policy{Off: true}, names, delay), tokens: tokens,
		verifier: masters{&guard.Verifier{Passdb: fakeDB{}, Names: names, DefaultScheme: "PLAIN", Log: quiet}},
		lookup:   guard.Lookup{Names: names, Passdb: fakeDB{}, Userdb: fakeDB{}}}
}

type handler interface {
	ServeConn(context.Context, net.Conn) error
}

func (g *rig) handler(kind string) handler {
	mechs, err := sasl.New("plain login", sasl.Options{})
	if err != nil {
		panic(err)
	}
	mechs = append(mechs, twoStep{})
	switch kind {
	case "token-login":
		kind, mechs = "login", []auth.Mechanism{g.tokens.Mechanism()}
	case "binding":
		kind, mechs = "client", append(mechs[:1], bound{})
	case "bearing":
		kind, mechs = "login", []auth.Mechanism{bearing{}}
	}
	mechs = g.gate.Mechanisms(mechs)
	switch kind {
	case "login", "client":
		return &ClientHandler{Instance: g.instance, Login: kind == "login", Mechanisms: mechs, Verifier: g.verifier, Ahead: g.ahead, Log: g.log}
	case "master", "userdb":
		return &MasterHandler{Instance: g.instance, UserdbOnly: kind == "userdb", Passdb: g.lookup, Userdb: g.lookup, Log: g.log, Tokens: g.tokens,
			Flush: func(users []string) int { return 7 + len(users) },
			Status: func(reset bool) CacheStatus {
				return CacheStatus{Hits: map[bool]uint64{true: 0, false: 9}[reset], Misses: 2, PosEntries: 3, NegEntries: 4, PosSize: 5, NegSize: 6}
			}}
	}
	return nil
}

// masters lets root log in as somebody else, who follows in the authzid.
type masters struct{ auth.Verifier }

func (m masters) VerifyPlain(ctx context.Context, r *auth.Request, password []byte) (*auth.Credentials, error) {
	if r.Login != "Root" {
		return m.Verifier.VerifyPlain(ctx, r, password)
	}
	row, err := fakeDB{}.LookupPass(ctx, &auth.Request{User: r.Authzid})
	if err == nil {
		r.User, r.MasterUser = row.User, "root"
	}
	return row, err
}

// bound is a mechanism that wants the data of tls-unique.
type bound struct{}

func (bound) Name() string    { return "X-BOUND" }
func (bound) Flags() []string { return []string{"mutual-auth", "channel-binding"} }
func (bound) Start(r *auth.Request, v auth.Verifier) auth.Exchange {
	return exchangeFunc(func(ctx context.Context, response []byte) ([]byte, *auth.Credentials, error) {
		if r.Binding.Type == "" {
			r.Login, r.Binding.Type = "alice@example.com", "tls-unique"
			return []byte("bind"), nil, nil
		}
		if string(r.Binding.Data) != "tls-data" {
			return nil, nil, auth.ErrPasswordMismatch
		}
		row, err := v.VerifyPlain(ctx, r, []byte("secret"))
		return nil, row, err
	})
}

// bearing is a mechanism with tokens, of which all are good.
type bearing struct{}

func (bearing) Name() string    { return "X-TOKEN" }
func (bearing) Flags() []string { return []string{"private"} }
func (bearing) Start(r *auth.Request, v auth.Verifier) auth.Exchange {
	return exchangeFunc(func(ctx context.Context, response []byte) ([]byte, *auth.Credentials, error) {
		r.Login = string(response)
		row, err := v.LookupCredentials(ctx, r, "")
		r.Token = "tok.en"
		return nil, row, err
	})
}

// twoStep is a mechanism with a last message of the server, such as SCRAM.
type twoStep struct{}

func (twoStep) Name() string    { return "X-TWO" }
func (twoStep) Flags() []string { return []string{"mutual-auth", "private"} }
func (twoStep) Start(r *auth.Request, v auth.Verifier) auth.Exchange {
	return exchangeFunc(func(ctx context.Context, response []byte) ([]byte, *auth.Credentials, error) {
		if response == nil {
			return []byte("who?"), nil, nil
		}
		r.Login = string(response)
		row, err := v.VerifyPlain(ctx, r, []byte("secret"))
		return []byte("v=proof"), row, err
	})
}

type exchangeFunc func(context.Context, []byte) ([]byte, *auth.Credentials, error)

func (f exchangeFunc) Next(ctx context.Context, response []byte) ([]byte, *auth.Credentials, error) {
	return f(ctx, response)
}

// listener accepts on a unix socket and serves with h, until the test ends.
type listener struct {
	path    string
	ctx     context.Context
	hardEnd context.CancelFunc
	served  sync.WaitGroup
}

func (g *rig) listen(t testing.TB, kind string, mode os.FileMode) *listener {
	t.Helper()
	l := &listener{path: filepath.Join(t.TempDir(), kind)}
	l.ctx, l.hardEnd = context.WithCancel(context.Background())
	ln, err := net.Listen("unix", l.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(l.path, mode); err != nil {
		t.Fatal(err)
	}
	h := g.handler(kind)
	l.served.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			if g.admit != nil {
				g.admit(l.ctx)
			}
			l.served.Go(func() {
				defer c.Close()
				h.ServeConn(l.ctx, c)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		l.hardEnd()
		l.served.Wait()
	})
	return l
}
