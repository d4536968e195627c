package quota

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"dovepost/lmtp"
	"dovepost/lmtp/maildir"
)

func TestParseWarning(t *testing.T) {
	for _, s := range []string{
		"", "storage=95%%", "storage=95%% ", "95% x", "storage= x", "storage=+5% x", "storage=-5% x", "storage=x x", "size=5 x", " storage=5 x", "+-storage=5 x", "ignore x",
	} {
		if w, err := ParseWarning(s); err == nil {
			t.Errorf("ParseWarning(%q) = %+v; want an error", s, w)
		}
	}
}

func TestCrossed(t *testing.T) {
	all := Limits{Bytes: 1000, Messages: 10}
	tests := []struct {
		name, warning string
		before, now   usage
		all           Limits
		want          bool
	}{
		{"a crossing", "storage=95%% x", usage{900, 1}, usage{960, 2}, all, true},
		{"a limit that is reached", "storage=95% x", usage{900, 1}, usage{950, 2}, all, true},
		{"a limit that was reached before", "storage=95%% x", usage{950, 1}, usage{990, 2}, all, false},
		{"less than the limit", "storage=95%% x", usage{900, 1}, usage{949, 2}, all, false},
		{"the sign of above", "+storage=95%% x", usage{900, 1}, usage{950, 2}, all, true},
		{"the sign of below", "-storage=95%% x", usage{900, 1}, usage{950, 2}, all, false},
		{"a size", "storage=1K x", usage{1000, 1}, usage{1024, 2}, all, true},
		{"octets", "bytes=1024 x", usage{1000, 1}, usage{1023, 2}, all, false},
		{"messages", "messages=80%% x", usage{0, 7}, usage{0, 8}, all, true},
		{"one of two", "storage=99%%:messages=80%% x", usage{0, 7}, usage{0, 8}, all, true},
		{"more than all", "storage=105%% x", usage{900, 1}, usage{1050, 2}, all, true},
		{"a part of no limit", "storage=95%% x", usage{900, 1}, usage{960, 2}, Limits{}, false},
		{"a size without a limit", "storage=1K x", usage{900, 1}, usage{1960, 2}, Limits{}, true},
		{"the first message", "messages=1 x", usage{}, usage{5, 1}, Limits{}, true},
	}
	for _, tt := range tests {
		w, err := ParseWarning(tt.warning)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if got := w.crossed(tt.before, tt.now, tt.all); got != tt.want {
			t.Errorf("it handles %s: %v; want %v", tt.name, got, tt.want)
		}
	}
}

// Growing step by step crosses a warning at most once, and exactly once if it ends above.
func FuzzWarning(f *testing.F) {
	f.Add("storage=95%% quota-warning 95 %u", int64(1000), []byte{100, 200, 255, 255, 255})
	f.Add("-storage=100%% x", int64(100), []byte{100})
	f.Add("bytes=5:messages=3 exec:/x", int64(0), []byte{1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, s string, limit int64, steps []byte) {
		w, err := ParseWarning(s)
		if err != nil || limit < 0 {
			return
		}
		if w.Command == "" || !strings.Contains(s, w.Command) {
			t.Fatalf("%q: command %q", s, w.Command)
		}
		n := 0
		var used usage
		for _, step := range steps {
			now := used
			now.add(usage{int64(step), 1}, 1)
			if w.crossed(used, now, Limits{Bytes: limit}) {
				n++
			}
			used = now
		}
		two := w.limit.Bytes+w.percent.Bytes != 0 && w.limit.Messages+w.percent.Messages != 0
		if n > 2 || n > 1 && !two || n > 0 && w.below {
			t.Fatalf("%q is crossed %d times", s, n)
		}
	})
}

// Of many deliveries at once one crosses the limit, and the first rule that it crosses is told.
func TestWarnsOnce(t *testing.T) {
	for _, backend := range []Backend{Maildir, Count} {
		var mu sync.Mutex
		var told []string
		root := &Root{Backend: backend, Warn: func(c Crossed) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, c.Warning.Command)
			if c.Mailbox.User != "alice@example.com" || c.Limit != 100_000 || c.Used < 50_000 {
				t.Errorf("%+v", c)
			}
		}}
		for _, s := range []string{"storage=90%% ninety", "storage=50%% half", "storage=49999b less"} {
			w, err := ParseWarning(s)
			if err != nil {
				t.Fatal(err)
			}
			root.Warnings = append(root.Warnings, w)
		}
		s := newSite(t, root, "*:bytes=100000", "Spam:ignore")
		if err := s.deliver("Spam", 70_000); err != nil {
			t.Fatal(err)
		}
		if err := s.deliver("", 49_990); err != nil {
			t.Fatal(err)
		}
		if len(told) != 0 {
			t.Errorf("told %q before", told)
		}
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				if err := s.deliver("", 1000); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(told) != 1 || told[0] != "half" {
			t.Errorf("backend %d: told %q; want half", backend, told)
		}
	}
}

func TestMaxMail(t *testing.T) {
	for _, backend := range []Backend{None, Maildir, Count} {
		s := newSite(t, &Root{Backend: backend, MaxMail: 1000}, "*:bytes=5000", "Spam:ignore")
		for box, size := range map[string]int{"": 1001, "Spam": 1001} {
			var st *lmtp.Status
			if err := s.deliver(box, size); !errors.As(err, &st) || st.Error() != "552 5.2.3 Message size exceeds administrative limit" {
				t.Errorf("backend %d: %v", backend, err)
			}
		}
		if err := s.deliver("", 1000); err != nil {
			t.Errorf("backend %d: %v", backend, err)
		}
		if err := s.d.HasRoom(t.Context(), &s.mb, 5000); !errors.As(err, new(*lmtp.Status)) {
			t.Errorf("backend %d: room for 5000: %v", backend, err)
		}
	}
}

// What is asked at RCPT refuses only what the delivery would refuse.
func TestHasRoom(t *testing.T) {
	for _, backend := range []Backend{None, Maildir, Count} {
		s := newSite(t, &Root{Backend: backend, Grace: Grace{Percent: 10}}, "*:bytes=10000")
		for _, step := range []struct {
			size int64
			want bool
		}{{0, true}, {10000, true}, {11000, true}, {1 << 40, backend == None}, {-1, true}, {1<<63 - 1, backend == None}} {
			if err := s.d.HasRoom(t.Context(), &s.mb, step.size); (err == nil) != step.want || err != nil && !errors.Is(err, lmtp.ErrOverQuota) {
				t.Errorf("backend %d: room for %d: %v", backend, step.size, err)
			}
		}
		if err := s.deliver("", 10500); err != nil {
			t.Fatal(err)
		}
		if err := s.d.HasRoom(t.Context(), &s.mb, 0); (err == nil) != (backend == None) {
			t.Errorf("backend %d: over quota: %v", backend, err)
		}
		s.mb.Quota = []string{"nonsense"}
		var st *lmtp.Status
		if err := s.d.HasRoom(t.Context(), &s.mb, 0); backend != None && (!errors.As(err, &st) || !st.Temporary()) {
			t.Errorf("backend %d: a rule that is none: %v", backend, err)
		}
		if len(s.d.Quota.(*Root).accounts) > 0 {
			t.Errorf("backend %d: accounts are left", backend)
		}
	}
}

// Copies for several mailboxes are bounded together, each by the rule for its mailbox, and counted
// together.
func TestCopies(t *testing.T) {
	for _, backend := range []Backend{Maildir, Count} {
		s := newSite(t, &Root{Backend: backend}, "*:bytes=1000", "Trash:bytes=+500", "Spam:ignore")
		try := func(size int, want bool, boxes ...string) {
			t.Helper()
			s.d.Filter = files(boxes)
			if err := s.deliver("", size); (err == nil) != want || err != nil && !errors.Is(err, lmtp.ErrOverQuota) {
				t.Errorf("backend %d: %d octets to %q: %v", backend, size, boxes, err)
			}
		}
		try(400, false, "A", "B", "C")
		try(5000, true, "Spam")
		try(400, true, "A", "B", "Spam")
		try(300, false, "A", "Trash")
		try(200, true, "A", "Trash") // 1200 are there then
		try(1, false, "A")
		try(300, true, "Trash")
		if backend == Maildir {
			if got, want := s.file().used, (usage{1500, 5}); got != want {
				t.Errorf("maildirsize tells %+v; want %+v", got, want)
			}
		}
	}
}

// files is a filter that puts mail into mailboxes.
type files []string

func (f files) Filter(_ context.Context, _ *lmtp.Envelope, _ *lmtp.Mailbox, _ lmtp.Message) (v lmtp.Verdict, err error) {
	v.Handled = true
	for _, box := range f {
		v.File = append(v.File, lmtp.Filing{Mailbox: box, Create: true})
	}
	return v, nil
}

// A message that does not fit because of another that is under way waits, and is stored when the
// other is not.
func TestWaits(t *testing.T) {
	for _, fails := range []bool{true, false} {
		s := newSite(t, &Root{Backend: Maildir}, "*:bytes=1000")
		first := make(chan error, 1)
		hold := make(chan struct{})
		begun := make(chan struct{})
		d := &maildir.Deliverer{Autocreate: true, Quota: s.d.Quota, Log: s.d.Log, Filter: redirects{}, Sender: gate{begun, hold, fails}}
		go func() {
			first <- d.Deliver(t.Context(), &lmtp.Envelope{}, []*lmtp.Mailbox{&s.mb}, lmtp.Text(strings.Repeat("x", 900)))[0]
		}()
		<-begun
		second := make(chan error, 1)
		go func() { second <- s.deliver("", 500) }()
		select {
		case err := <-second:
			t.Errorf("did not wait: %v", err)
		default:
		}
		close(hold)
		if err := <-first; (err != nil) != fails {
			t.Errorf("the first: %v", err)
		}
		if err := <-second; fails && err != nil || !fails && !errors.Is(err, lmtp.ErrOverQuota) {
			t.Errorf("the first fails %v, the second: %v", fails, err)
		}
	}
}

// redirects keeps a copy as well.
type redirects struct{}

func (redirects) Filter(context.Context, *lmtp.Envelope, *lmtp.Mailbox, lmtp.Message) (lmtp.Verdict, error) {
	return lmtp.Verdict{Redirect: []string{"b@c"}}, nil
}

// gate is a Sender that waits.
type gate struct {
	begun, hold chan struct{}
	fails       bool
}

func (g gate) Send(context.Context, string, string, lmtp.Message) error {
	close(g.begun)
	<-g.hold
	if g.fails {
		return errors.New("away")
	}
	return nil
}
