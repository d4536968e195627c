package rules

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dovepost/policy"
)

// tableOf starts an AccessTable whose rows and error the test changes.
func tableOf(t *testing.T, log *slog.Logger) (*AccessTable, *atomic.Pointer[[]AccessRow], *atomic.Pointer[error]) {
	t.Helper()
	rows, failed := new(atomic.Pointer[[]AccessRow]), new(atomic.Pointer[error])
	a := &AccessTable{Delimiter: "+", Interval: time.Hour, Timeout: time.Second, Log: log, Rows: func(context.Context) ([]AccessRow, error) {
		if err := failed.Load(); err != nil && *err != nil {
			return nil, *err
		}
		if all := rows.Load(); all != nil {
			return *all, nil
		}
		return nil, nil
	}}
	return a, rows, failed
}

func TestAnAccessTableIsLikeTheFile(t *testing.T) {
	var said bytes.Buffer
	a, rows, _ := tableOf(t, slog.New(slog.NewTextHandler(&said, nil)))
	var all []AccessRow
	for line := range strings.Lines(strings.ReplaceAll(list, "\n                                ", " ")) {
		if words := strings.Fields(line); len(words) > 2 && words[0] != "#" {
			all = append(all, AccessRow{words[0], words[1], strings.Join(words[2:], " ")})
		}
	}
	all = append(all, AccessRow{"helo", "x", "REJECT"}, AccessRow{"sender", "", "REJECT"}, AccessRow{"sender", "y@", "NONSENSE"})
	rows.Store(&all)
	a.Start()
	defer a.Close()
	for _, tt := range []struct{ client, sender, recipient, login, want string }{
		{"192.0.2.66", "a@b.c", "x@example.com", "", "OK"},
		{"192.0.2.1", "a@b.c", "x@example.com", "", "REJECT bad network"},
		{"198.51.100.1", "Boss+x@example.org", "x@example.com", "", "DUNNO"},
		{"198.51.100.1", "a@c.b.example.net", "x@example.com", "", "450 4.7.1 bad subdomain"},
		{"198.51.100.1", "", "x@example.com", "", "WARN a bounce"},
		{"198.51.100.1", "a@b.c", "", "root", "REJECT no root"},
	} {
		got, err := AccessLists{a}.Decide(t.Context(), request(tt.client, tt.sender, tt.recipient, tt.login))
		if err != nil || got.String() != tt.want {
			t.Errorf("%+v: %v, %v", tt, got, err)
		}
	}
	if !strings.Contains(said.String(), "rows=3") || !strings.Contains(said.String(), "unknown field") {
		t.Errorf("the log says %s", said.String())
	}
}

func TestAnAccessTableThatIsAway(t *testing.T) {
	var said bytes.Buffer
	a, rows, failed := tableOf(t, slog.New(slog.NewTextHandler(&said, nil)))
	away := errors.New("away")
	failed.Store(&away)
	a.Start()
	defer a.Close()
	r := request("192.0.2.1", "a@b.c", "x@example.com", "")
	if got, err := (AccessLists{a}).Decide(t.Context(), r); !got.IsDunno() || !errors.Is(err, away) {
		t.Errorf("never read: %v, %v", got, err)
	}
	a.read(t.Context())
	if n := strings.Count(said.String(), "cannot be read"); n != 1 {
		t.Errorf("the log says %d times that it cannot be read", n)
	}
	var none error
	failed.Store(&none)
	rows.Store(&[]AccessRow{{"client", "192.0.2.0/24", "REJECT"}})
	a.read(t.Context())
	failed.Store(&away)
	a.read(t.Context())
	if got, err := (AccessLists{a}).Decide(t.Context(), r); got.String() != "REJECT" || err != nil {
		t.Errorf("read before: %v, %v", got, err)
	}
	many := make([]AccessRow, maxAccessRows+1)
	failed.Store(&none)
	rows.Store(&many)
	a.read(t.Context())
	if got, err := (AccessLists{a}).Decide(t.Context(), r); got.String() != "REJECT" || err != nil {
		t.Errorf("with too many rows: %v, %v", got, err)
	}
}

// fakeMap is a map that notes what it was asked.
type fakeMap struct {
	rows  map[string]string
	asked []string
	err   error
}

func (f *fakeMap) First(_ context.Context, keys []string) (string, error) {
	f.asked = append(f.asked, strings.Join(keys, " "))
	for _, key := range keys {
		if action := f.rows[key]; action != "" {
			return action, f.err
		}
	}
	return "", f.err
}

func TestAccessMapsAskInOrder(t *testing.T) {
	for _, tt := range []struct {
		name      string
		r         *policy.Request
		wantAsked string // of all tables
	}{
		{"a stranger", request("192.0.2.1", "A+x@Sub.Example.com", "b@example.com", ""),
			"192.0.2.1 192.0.2.0/24 192.0.0.0/16 192.0.0.0/8 *|a+x@sub.example.com a@sub.example.com sub.example.com .example.com .com a+x@ a@ *|b@example.com example.com .com b@ *"},
		{"the null sender in IPv6", request("2001:db8::1", "", "", ""), "2001:db8::1 2001:db8::/64 2001:db8::/48 2001:db8::/32 *|<>"},
		{"no address and a login", request("", "a", "", "u@example.com"), "*|a a@ *|u@example.com @example.com .com u@ *"},
		{"a login that is none", request("", "a", "", "root"), "*|a a@ *|root root@ *"},
		{"CONNECT", &policy.Request{State: "CONNECT"}, "*"},
		{"many labels", request("", "a@1.2.3.4.5.6.7.8.9.10.11.12.13", "", ""),
			"*|a@1.2.3.4.5.6.7.8.9.10.11.12.13 1.2.3.4.5.6.7.8.9.10.11.12.13 .2.3.4.5.6.7.8.9.10.11.12.13 .3.4.5.6.7.8.9.10.11.12.13 .4.5.6.7.8.9.10.11.12.13 .5.6.7.8.9.10.11.12.13 .6.7.8.9.10.11.12.13 .7.8.9.10.11.12.13 .8.9.10.11.12.13 .9.10.11.12.13 .10.11.12.13 .11.12.13 a@ *"},
	} {
		f := &fakeMap{}
		m := &AccessMaps{Client: f, Sender: f, Recipient: f, Login: f, Delimiter: "+"}
		if _, found, err := m.Find(t.Context(), tt.r); found || err != nil {
			t.Errorf("it handles %s: %v, %v", tt.name, found, err)
		}
		if got := strings.Join(f.asked, "|"); got != tt.wantAsked {
			t.Errorf("it handles %s:\n%s; want\n%s", tt.name, got, tt.wantAsked)
		}
	}
}

func TestAccessMapsDecide(t *testing.T) {
	broken := errors.New("broken")
	r := request("192.0.2.1", "a@b.example", "x@example.com", "")
	clients, senders := &fakeMap{rows: map[string]string{"192.0.2.0/24": "dunno"}}, &fakeMap{rows: map[string]string{"b.example": "REJECT no", "*": "HOLD"}}
	for _, tt := range []struct {
		name string
		list AccessList
		want string
		err  error
	}{
		{"an exemption before a refusal", &AccessMaps{Client: clients, Sender: senders}, "DUNNO", nil},
		{"a refusal", &AccessMaps{Sender: senders}, "REJECT no", nil},
		{"a word that is none", &AccessMaps{Sender: &fakeMap{rows: map[string]string{"*": "NO"}}}, "DUNNO", policy.ErrAction},
		{"a table that fails", &AccessMaps{Client: &fakeMap{err: broken}, Sender: senders}, "DUNNO", broken},
	} {
		last := &AccessMaps{Recipient: &fakeMap{rows: map[string]string{"*": "DISCARD"}}} // never asked
		got, err := AccessLists{tt.list, last}.Decide(t.Context(), r)
		if got.String() != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("it handles %s: %v, %v; want %s, %v", tt.name, got, err, tt.want, tt.err)
		}
	}
	if got, err := (AccessLists{&AccessMaps{}, &AccessMaps{Sender: senders}}).Decide(t.Context(), r); got.String() != "REJECT no" || err != nil {
		t.Errorf("a list that says nothing before one that does: %v, %v", got, err)
	}
}
