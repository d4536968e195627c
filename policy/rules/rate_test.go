package rules

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"dovepost/policy"
	"dovepost/policy/ledger"
)

func TestParseRateLimitsHandles(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"several limits", "100 messages/1h, 500 messages/1d, 1000 recipients/1d, 500M bytes/1d", "100 messages/1h, 500 messages/1d, 1000 recipients/1d, 524288000 bytes/1d"},
		{"one of each, bare windows", "1 message/h,1 recipient/w,1 byte/s", "1 messages/1h, 1 recipients/1w, 1 bytes/1s"},
		{"blanks", "  20K   recipients / 1d ,500 M bytes/ 7d", "20000 recipients/1d, 524288000 bytes/1w"},
		{"capitals", "5 Messages/1H", "5 messages/1h"},
		{"minutes", "5 messages/60m, 7 messages/90m", "5 messages/1h, 7 messages/90m"},
		{"none at all", "0 messages/1d", "0 messages/1d"},
		{"unlimited", " Unlimited ", "unlimited"},
		{"inherit", "inherit", "inherit"},
		{"inherit and more", "300 messages/1h, inherit", "inherit, 300 messages/1h"},
	} {
		l, err := ParseRateLimits(tt.in)
		if got := l.String(); err != nil || got != tt.want {
			t.Errorf("it handles %s: %q, %v; want %q", tt.name, got, err, tt.want)
		}
	}
	for _, in := range []string{
		"", ",", "100", "100 messages", "100/1h", "messages/1h", "100 messages/", "100 messages/1x", "100 messages/0s", "100 messages/32d",
		"-1 messages/1h", "1e3 messages/1h", "1.5K messages/1h", "1KK messages/1h", "9223372036854775808 bytes/1d", "9999999999G bytes/1d",
		"100 mails/1h", "100 messages/1h unlimited", "unlimited, 1 message/1h", "100 messages/60m, 5 messages/1h", "inherit, inherit",
		"1 message/1h/1h", strings.Repeat("1 message/1h,", 40), "K messages/1h", "100 messages/99999999999999d",
	} {
		if l, err := ParseRateLimits(in); !errors.Is(err, ErrRateLimits) {
			t.Errorf("%q: %v, %v; want an error", in, l, err)
		}
	}
}

// What is read is within bounds, and is the same when it is written and read again.
func FuzzRateLimits(f *testing.F) {
	f.Add("100 messages/1h, 500 messages/1d, 1000 recipients/1d, 500M bytes/1d")
	f.Add("inherit, 20K recipients/1w")
	f.Add("unlimited")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := ParseRateLimits(text)
		if err != nil {
			return
		}
		if len(l.Limits) > maxRateLimits {
			t.Fatalf("%d limits", len(l.Limits))
		}
		for _, limit := range l.Limits {
			if limit.Most < 0 || limit.Window < ledger.MinWindow || limit.Window > ledger.MaxWindow || limit.Window%time.Second != 0 || limit.What < 0 || limit.What > 2 {
				t.Fatalf("%+v", limit)
			}
		}
		again, err := ParseRateLimits(l.String())
		if err != nil || again.String() != l.String() || fmt.Sprint(again) != fmt.Sprint(l) {
			t.Fatalf("%q: %v, %v; want %v", text, again, err, l)
		}
	})
}

// table is a RateLookup.
func table(rows map[string]string) RateLookup {
	return func(_ context.Context, name string) (string, bool, error) {
		text, found := rows[name]
		if text == "ERROR" {
			return "", false, errors.New("broken")
		}
		return text, found, nil
	}
}

func limitsOf(t *testing.T, text string) RateLimits {
	t.Helper()
	l, err := ParseRateLimits(text)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLimitsAreInherited(t *testing.T) {
	var log bytes.Buffer
	r := &Rate{
		Log:     slog.New(slog.NewTextHandler(&log, nil)),
		Default: limitsOf(t, "100 messages/1h, 1000 recipients/1d"), DefaultTotal: limitsOf(t, "5K messages/1d"),
		Logins: table(map[string]string{
			"own@example.com": "5 messages/1h", "free@example.com": "unlimited", "more@example.com": "inherit, 7 messages/1m",
			"wrong@example.com": "5 messages per hour", "empty@example.com": " ", "bare": "1 message/1d",
			"@example.com": "50 messages/1h", "@example.net": "inherit, 10 messages/1h", "x@example.net": "inherit", "broken@example.com": "ERROR",
		}),
		Totals: table(map[string]string{"@example.com": "unlimited", "@example.net": "inherit, 1G bytes/1d", "@broken.example": "ERROR"}),
	}
	for _, tt := range []struct{ name, login, want, total string }{
		{"an entry of its own", "own@example.com", "5 messages/1h", "unlimited"},
		{"capitals", "Own@Example.COM", "5 messages/1h", "unlimited"},
		{"unlimited", "free@example.com", "unlimited", "unlimited"},
		{"the domain's", "any@example.com", "50 messages/1h", "unlimited"},
		{"inherit from the domain", "more@example.com", "7 messages/1m, 50 messages/1h", "unlimited"},
		{"nonsense", "wrong@example.com", "50 messages/1h", "unlimited"},
		{"an empty entry", "empty@example.com", "50 messages/1h", "unlimited"},
		{"a domain that inherits", "any@example.net", "10 messages/1h, 1000 recipients/1d", "1073741824 bytes/1d, 5000 messages/1d"},
		{"inherit twice", "x@example.net", "10 messages/1h, 1000 recipients/1d", "1073741824 bytes/1d, 5000 messages/1d"},
		{"the default", "any@example.org", "100 messages/1h, 1000 recipients/1d", "5000 messages/1d"},
		{"a subdomain", "any@sub.example.com", "100 messages/1h, 1000 recipients/1d", "5000 messages/1d"},
		{"no domain", "bare", "1 messages/1d", ""},
		{"no domain and no entry", "root", "100 messages/1h, 1000 recipients/1d", ""},
	} {
		login := strings.ToLower(tt.login)
		limits, err := r.limits(t.Context(), login, domainOf(login))
		if got := (RateLimits{Limits: limits}).String(); err != nil || got != tt.want {
			t.Errorf("it handles %s: %s, %v; want %s", tt.name, got, err, tt.want)
		}
		if tt.total == "" {
			continue
		}
		limits, err = r.totals(t.Context(), domainOf(login))
		if got := (RateLimits{Limits: limits}).String(); err != nil || got != tt.total {
			t.Errorf("it handles %s: total %s, %v; want %s", tt.name, got, err, tt.total)
		}
	}
	if !strings.Contains(log.String(), "wrong@example.com") {
		t.Errorf("nothing is said of limits that make no sense: %s", log.String())
	}
	r.Ledger = ledger.New(nil)
	r.Action = DefaultRateAction
	for _, login := range []string{"broken@example.com", "x@broken.example"} {
		if got, err := r.Decide(t.Context(), sent(login, "1", 1, 1)); err == nil || !got.IsDunno() {
			t.Errorf("%s: %v, %v; want the error", login, got, err)
		}
	}
}

// sent is a message at its end.
func sent(login, instance string, recipients int, size int64) *policy.Request {
	return &policy.Request{
		State: "END-OF-MESSAGE", Instance: instance, QueueID: "Q" + instance, ClientAddress: netip.MustParseAddr("192.0.2.1"),
		SASLUsername: login, RecipientCount: recipients, Size: size,
	}
}

func TestRateDecides(t *testing.T) {
	now := time.Date(2026, 10, 25, 0, 30, 0, 0, time.UTC)
	var log bytes.Buffer
	l := ledger.New(nil)
	l.Now = func() time.Time { return now }
	r := &Rate{
		Ledger: l, Now: l.Now, Log: slog.New(slog.NewTextHandler(&log, nil)), Action: DefaultRateAction,
		Default: limitsOf(t, "10 messages/1h, 30 recipients/1d, 1M bytes/1d"), DefaultTotal: limitsOf(t, "15 messages/1h"),
	}
	n := 0
	next := func() string { n++; return fmt.Sprint(n) }
	want := func(text string, q *policy.Request) {
		t.Helper()
		if got, err := r.Decide(t.Context(), q); err != nil || got.String() != text {
			t.Errorf("%s of %s: %v, %v; want %s", q.State, q.SASLUsername, got, err, text)
		}
	}
	for range 10 {
		want("DUNNO", sent("joe@example.com", next(), 1, 100))
	}
	const hour = "DEFER sending limit of this account reached, try again in 61 minutes"
	last := sent("Joe@Example.com", next(), 1, 100)
	want(hour, last)
	want(hour, last) // again
	for _, state := range []string{"CONNECT", "EHLO", "HELO", "MAIL", "RCPT", "VRFY", "ETRN"} {
		q := sent("joe@example.com", next(), 0, 0)
		q.State = state
		want("DUNNO", q)
	}
	data := sent("joe@example.com", next(), 1, 0)
	data.State = "DATA"
	want(hour, data)
	want("DUNNO", sent("", next(), 1, 100))
	want("DUNNO", sent("joe", next(), 1, 100))

	for range 5 {
		want("DUNNO", sent("jim@example.com", next(), 1, 100))
	}
	want("DEFER sending limit of this domain reached, try again in 61 minutes", sent("jim@example.com", next(), 1, 100))
	want("DUNNO", sent("jim@example.net", next(), 20, 100))
	want("DEFER sending limit of this account reached, try again in 25 hours", sent("jim@example.net", next(), 11, 100))
	want("DUNNO", sent("jim@example.net", next(), 10, 100))
	want("DEFER sending limit of this account reached, this message is too much by itself", sent("jil@example.net", next(), 31, 100))
	want("DEFER sending limit of this account reached, this message is too much by itself", sent("jil@example.net", next(), 1, 1<<20+1))
	want("DUNNO", sent("jil@example.net", next(), 0, 1<<20))

	now = now.Add(61 * time.Minute)
	want("DUNNO", sent("joe@example.com", next(), 1, 100))
	if got := strings.Count(log.String(), "login=joe@example.com"); got != 1 {
		t.Errorf("%d lines about joe, want one:\n%s", got, log.String())
	}
	if !strings.Contains(log.String(), `limit="10 messages/1h" used=10 until=2026-10-25T01:31:00Z`) {
		t.Errorf("the log does not say which limit:\n%s", log.String())
	}
}

func TestWhatAnActionLetsPassIsCounted(t *testing.T) {
	for action, counted := range map[string]int64{"REJECT": 3, "HOLD": 3, "452 4.3.1 later": 3, "DISCARD": 3, "WARN": 8, "BCC a@example.com": 8} {
		r := &Rate{Ledger: ledger.New(nil), Default: limitsOf(t, "3 messages/1h")}
		var err error
		if r.Action, err = policy.ParseAction(action); err != nil {
			t.Fatal(err)
		}
		for i := range 8 {
			got, err := r.Decide(t.Context(), sent("joe", fmt.Sprint(i), 1, 1))
			if want := i >= 3; err != nil || got.IsDunno() == want {
				t.Errorf("%s, message %d: %v, %v", action, i, got, err)
			}
		}
		if got := r.Ledger.Sum(t.Context(), "joe", time.Hour)[0]; got != counted {
			t.Errorf("%s: %d counted, want %d", action, got, counted)
		}
	}
}

func TestOneMessageCountsOnce(t *testing.T) {
	r := &Rate{Ledger: ledger.New(nil), Default: limitsOf(t, "1000 messages/1h"), Action: DefaultRateAction}
	var wait sync.WaitGroup
	for i := range 400 {
		wait.Go(func() {
			if got, err := r.Decide(t.Context(), sent("joe", fmt.Sprint(i%100), 1, 1)); err != nil || !got.IsDunno() {
				t.Error(got, err)
			}
		})
	}
	wait.Wait()
	if got := r.Ledger.Sum(t.Context(), "joe", time.Hour)[0]; got != 100 {
		t.Errorf("%d counted, want 100", got)
	}
	other := sent("joe", "1", 1, 1)
	other.ClientAddress = netip.MustParseAddr("192.0.2.2") // the same number on another mail server
	r.Decide(t.Context(), other)
	if got := r.Ledger.Sum(t.Context(), "joe", time.Hour)[0]; got != 101 {
		t.Errorf("%d counted, want 101", got)
	}
	for i := range 3 * maxInstances {
		r.Decide(t.Context(), sent("jim", fmt.Sprint(i), 1, 1))
	}
	if n := r.answered.answers.len(); n > 2*maxInstances {
		t.Errorf("%d remembered", n)
	}
}

func TestAccountKeysAreShortAndDiffer(t *testing.T) {
	long := strings.Repeat("x", 100<<10)
	seen := map[string]string{}
	for _, login := range []string{
		"", "joe@example.com", "joe@example.com ", " joe@example.com", "joe@example.com\n", "joe\x00", "joe", "\xff", "\xfe", "@example.com", "#", "#joe",
		long, long + "y", long[:190], long[:191], "jö@example.com", "j\u0308o@example.com", "a=b", "'; DROP TABLE users; --", "\U0001f984",
	} {
		key := AccountKey(login)
		if len(key) > 190 || key == "" || strings.ContainsAny(key, "\x00\n") || key[0] == '@' || strings.TrimSpace(key) != key {
			t.Errorf("%.40q: key %q", login, key)
		}
		if other, again := seen[key]; again {
			t.Errorf("%.40q and %.40q have the key %q", login, other, key)
		}
		seen[key] = login
		if login != "" && login[0] == '@' && DomainKey(login) == key {
			t.Errorf("the login %q has the key of a domain", login)
		}
	}
	if domain := "@" + long; DomainKey(domain) == AccountKey(domain) {
		t.Error("a login has the key of a long domain")
	}
}

// rateRows is a RateRows that the test changes.
type rateRows struct {
	mu      sync.Mutex
	version string
	rows    []RateRow
	err     error
	reads   int
}

func (s *rateRows) set(f func(s *rateRows)) { s.mu.Lock(); defer s.mu.Unlock(); f(s) }
func (s *rateRows) Version(context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.version, s.err
}

func (s *rateRows) Rows(context.Context) ([]RateRow, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	return s.rows, s.err
}

func TestTheTableOfLimitsIsReadWhenItChanges(t *testing.T) {
	source := &rateRows{version: "1", rows: []RateRow{{"Joe@example.com", "1 message/1h", ""}, {"@example.com", "", "5 messages/1h"}}, err: errors.New("away")}
	table := &RateTable{Source: source}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, _, err := table.Logins(ctx, "joe@example.com"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("before it was read: %v", err)
	}
	if err := table.refresh(t.Context()); err == nil {
		t.Error("the error is gone")
	}
	if _, _, err := table.Logins(t.Context(), "joe@example.com"); !errors.Is(err, errRateRows) {
		t.Errorf("after a first try that failed: %v", err)
	}
	source.set(func(s *rateRows) { s.err = nil })
	check := func(name, limits, total string) {
		t.Helper()
		if err := table.refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		got, found, err := table.Logins(t.Context(), name)
		if got != limits || found != (limits != "") || err != nil {
			t.Errorf("limits of %s: %q, %v, %v; want %q", name, got, found, err, limits)
		}
		got, found, err = table.Totals(t.Context(), name)
		if got != total || found != (total != "") || err != nil {
			t.Errorf("total of %s: %q, %v, %v; want %q", name, got, found, err, total)
		}
	}
	check("joe@example.com", "1 message/1h", "")
	check("@example.com", "", "5 messages/1h")
	source.set(func(s *rateRows) { s.rows = nil })
	check("joe@example.com", "1 message/1h", "") // nothing says that it has changed
	source.set(func(s *rateRows) { s.version = "2" })
	check("joe@example.com", "", "")
	if source.reads != 2 {
		t.Errorf("read %d times, want 2", source.reads)
	}
	table.Every = time.Millisecond
	table.Start()
	source.set(func(s *rateRows) { s.version, s.rows = "3", []RateRow{{"joe", "unlimited", ""}} })
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if text, _, _ := table.Logins(t.Context(), "joe"); text == "unlimited" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a change is not seen")
		}
	}
	table.Close()
}
