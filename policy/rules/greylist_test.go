package rules

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"dovepost/policy"
)

// fakeGreylist is a store in memory, with the clock of the test.
type fakeGreylist struct {
	mu       sync.Mutex
	now      int64
	triplets map[string]struct {
		since, expires int64
		passed         bool
	}
	networks   map[string]struct{ passes, expires int64 }
	recipients map[string]bool
	asked      int
	kept       int
	err        map[string]error // by method
}

func newFakeGreylist() *fakeGreylist {
	f := &fakeGreylist{now: 1e9, recipients: map[string]bool{}, err: map[string]error{}}
	f.triplets = map[string]struct {
		since, expires int64
		passed         bool
	}{}
	f.networks = map[string]struct{ passes, expires int64 }{}
	return f
}

func (f *fakeGreylist) Facts(_ context.Context, q GreylistQuestion) (facts GreylistFacts, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	facts.Now = f.now
	t, n := f.triplets[q.Key], f.networks[q.Network]
	facts.Triplet.Since, facts.Triplet.Expires, facts.Triplet.Passed = t.since, t.expires, t.passed
	facts.Network.Passes, facts.Network.Expires = n.passes, n.expires
	for address, on := range f.recipients {
		for _, form := range q.Recipients {
			if strings.EqualFold(address, form) {
				facts.Listed = append(facts.Listed, GreylistRecipient{address, on})
				break
			}
		}
	}
	return facts, f.err["facts"]
}

func (f *fakeGreylist) Begin(_ context.Context, t GreylistTriplet, window time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	row := f.triplets[t.Key]
	if row.expires <= f.now {
		row.since, row.expires, row.passed = f.now, f.now+int64(window/time.Second), false
	}
	f.triplets[t.Key] = row
	return f.err["begin"]
}

func (f *fakeGreylist) Pass(_ context.Context, t GreylistTriplet, lifetime time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	row := f.triplets[t.Key]
	if !row.passed {
		n := f.networks[t.Network]
		n.passes, n.expires = n.passes+1, f.now+int64(lifetime/time.Second)
		f.networks[t.Network] = n
	}
	row.passed, row.expires = true, f.now+int64(lifetime/time.Second)
	f.triplets[t.Key] = row
	return f.err["pass"]
}

func (f *fakeGreylist) KeepTriplet(_ context.Context, key string, lifetime time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kept++
	row := f.triplets[key]
	row.expires = f.now + int64(lifetime/time.Second)
	f.triplets[key] = row
	return f.err["keep"]
}

func (f *fakeGreylist) KeepNetwork(_ context.Context, network string, lifetime time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kept++
	n := f.networks[network]
	n.expires = f.now + int64(lifetime/time.Second)
	f.networks[network] = n
	return f.err["keep"]
}

// greylist returns a rule with a clock that is the store's.
func greylist(f *fakeGreylist) *Greylist {
	return &Greylist{Store: f, AutoAllow: DefaultGreylistAutoAllow, NullSender: true, Delimiter: "+",
		Now: func() time.Time { f.mu.Lock(); defer f.mu.Unlock(); return time.Unix(f.now, 0) }}
}

func (f *fakeGreylist) pass(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now += int64(d / time.Second)
}

const later = "DEFER_IF_PERMIT 4.2.0 Greylisted, try again in 300 seconds"

func TestGreylistPutsStrangersOffOnce(t *testing.T) {
	f := newFakeGreylist()
	g := greylist(f)
	g.Header = "mail.example.com"
	r := request("192.0.2.1", "a@b.example", "x@example.com", "")
	r.Instance = "i1"
	for _, tt := range []struct {
		name  string
		after time.Duration
		want  string
	}{
		{"the first try", 0, later},
		{"a second one at once", 0, later},
		{"one that is too early", 299 * time.Second, "DEFER_IF_PERMIT 4.2.0 Greylisted, try again in 1 seconds"},
		{"one in time", time.Second, "PREPEND X-Greylist: delayed 300 seconds by dovepost at mail.example.com; " + time.Unix(1e9+300, 0).Format(time.RFC1123Z)},
		{"the next message", time.Minute, "DUNNO"},
		{"one a month later", 30 * 24 * time.Hour, "DUNNO"},
		{"one a month after that", 30 * 24 * time.Hour, "DUNNO"},
		{"one after the lifetime", 36 * 24 * time.Hour, later},
		{"a retry after the window", 49 * time.Hour, later},
		{"and one in it", 47 * time.Hour, "DUNNO"}, // the header is for another instance
	} {
		f.pass(tt.after)
		if tt.name == "and one in it" {
			g.Header = ""
		}
		if got, err := g.Decide(t.Context(), r); err != nil || got.String() != tt.want {
			t.Errorf("it handles %s: %v, %v; want %s", tt.name, got, err, tt.want)
		}
	}
}

func TestGreylistLeavesAlone(t *testing.T) {
	allow, err := ReadClients(strings.NewReader("198.51.100.0/24 # partners\n.google.com, mail.partner.example\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(*policy.Request)
		want   bool // deferred
	}{
		{"a stranger", func(*policy.Request) {}, true},
		{"a login", func(r *policy.Request) { r.SASLUsername = "u" }, false},
		{"this machine", func(r *policy.Request) { r.ClientAddress = netip.MustParseAddr("127.0.0.9") }, false},
		{"this machine in IPv6", func(r *policy.Request) { r.ClientAddress = netip.MustParseAddr("::1") }, false},
		{"this machine, mapped", func(r *policy.Request) { r.ClientAddress = netip.MustParseAddr("::ffff:127.0.0.1") }, false},
		{"no address", func(r *policy.Request) { r.ClientAddress = netip.Addr{} }, false},
		{"an allowed network", func(r *policy.Request) { r.ClientAddress = netip.MustParseAddr("198.51.100.7") }, false},
		{"an allowed name", func(r *policy.Request) { r.ClientName = "Mail.Partner.example" }, false},
		{"an allowed domain", func(r *policy.Request) { r.ClientName = "mail-1.f.google.com" }, false},
		{"a name that ends alike", func(r *policy.Request) { r.ClientName = "notgoogle.com" }, true},
		{"a name nobody confirms", func(r *policy.Request) { r.ReverseClientName = "mail.google.com"; r.ClientName = "unknown" }, true},
		{"MAIL", func(r *policy.Request) { r.State = "MAIL" }, false},
		{"DATA", func(r *policy.Request) { r.State = "DATA" }, false},
		{"the null sender at RCPT", func(r *policy.Request) { r.Sender = "" }, false},
		{"the null sender at DATA", func(r *policy.Request) { r.Sender, r.State = "", "DATA" }, true},
		{"the null sender at the end of the message", func(r *policy.Request) { r.Sender, r.State = "", "END-OF-MESSAGE" }, true},
		{"several recipients at DATA", func(r *policy.Request) { r.Sender, r.State, r.Recipient = "", "DATA", "" }, false},
		{"a recipient who opted out", func(r *policy.Request) { r.Recipient = "Off@example.com" }, false},
		{"an extension of his", func(r *policy.Request) { r.Recipient = "off+x@example.com" }, false},
		{"an extension that opted in", func(r *policy.Request) { r.Recipient = "off+on@example.com" }, true},
		{"a domain that opted out", func(r *policy.Request) { r.Recipient = "x@Off.example" }, false},
		{"a recipient in it who opted in", func(r *policy.Request) { r.Recipient = "on@off.example" }, true},
		{"a domain with @", func(r *policy.Request) { r.Recipient = "x@at.example" }, false},
		{"a domain below it", func(r *policy.Request) { r.Recipient = "x@sub.off.example" }, true},
	} {
		f := newFakeGreylist()
		f.recipients = map[string]bool{"off@example.com": false, "off+on@example.com": true, "OFF.example": false, "on@off.example": true, "@at.example": false}
		g := greylist(f)
		g.Allow = []*Clients{nil, allow}
		r := request("192.0.2.1", "a@b.example", "x@example.com", "")
		tt.change(r)
		for range 2 { // the second time perhaps from memory
			got, err := g.Decide(t.Context(), r)
			if err != nil || (got.String() == later) != tt.want {
				t.Errorf("it leaves alone %s: %v, %v", tt.name, got, err)
			}
		}
	}
}

func TestGreylistOptIn(t *testing.T) {
	f := newFakeGreylist()
	f.recipients = map[string]bool{"on@example.com": true, "on.example": true, "off@on.example": false}
	g := greylist(f)
	g.OptIn = true
	for recipient, want := range map[string]string{"x@example.com": "DUNNO", "on@example.com": later, "x@on.example": later, "off@on.example": "DUNNO"} {
		if got, err := g.Decide(t.Context(), request("192.0.2.1", "a@b", recipient, "")); err != nil || got.String() != want {
			t.Errorf("%s: %v, %v; want %s", recipient, got, err, want)
		}
	}
}

func TestGreylistAllowsANetworkThatTriesAgain(t *testing.T) {
	f := newFakeGreylist()
	g := greylist(f)
	for i := range DefaultGreylistAutoAllow {
		r := request("192.0.2.1", string(rune('a'+i))+"@b.example", "x@example.com", "")
		if got, _ := g.Decide(t.Context(), r); got.String() != later {
			t.Fatalf("triplet %d: %v", i, got)
		}
		f.pass(10 * time.Minute)
		if got, _ := g.Decide(t.Context(), r); !got.IsDunno() {
			t.Fatalf("triplet %d after the delay: %v", i, got)
		}
	}
	asked := f.asked
	for i, tt := range []struct {
		client string
		after  time.Duration
		want   string
		asked  int
	}{
		{"192.0.2.77", 0, "DUNNO", 1},
		{"192.0.2.78", 0, "DUNNO", 0}, // remembered
		{"192.0.3.1", 0, later, 1},
		{"192.0.2.77", 30 * 24 * time.Hour, "DUNNO", 1},
		{"192.0.2.77", 30 * 24 * time.Hour, "DUNNO", 1}, // was kept
		{"192.0.2.77", 36 * 24 * time.Hour, later, 1},
	} {
		f.pass(tt.after)
		got, err := g.Decide(t.Context(), request(tt.client, "new@b.example", "y@example.com", ""))
		if err != nil || got.String() != tt.want || f.asked-asked != tt.asked {
			t.Errorf("question %d: %v, %v, asked %d times; want %s, %d", i, got, err, f.asked-asked, tt.want, tt.asked)
		}
		asked = f.asked
	}
	if f.kept != 2 {
		t.Errorf("kept %d times, want 2", f.kept)
	}
}

// Whatever fails, mail goes on: most of all when the first try could not be noted.
func TestGreylistFailsOpen(t *testing.T) {
	broken := errors.New("broken")
	for _, method := range []string{"facts", "begin", "pass", "keep"} {
		f := newFakeGreylist()
		g := greylist(f)
		r := request("192.0.2.1", "a@b.example", "x@example.com", "")
		step := func(want string, err error) {
			t.Helper()
			if got, failed := g.Decide(t.Context(), r); got.String() != want || !errors.Is(failed, err) {
				t.Errorf("%s: %v, %v; want %s, %v", method, got, failed, want, err)
			}
		}
		if method == "facts" || method == "begin" {
			f.err[method] = broken
			step("DUNNO", broken)
			continue
		}
		step(later, nil)
		f.pass(time.Hour)
		if method == "pass" {
			f.err[method] = broken
			step("DUNNO", broken)
			continue
		}
		step("DUNNO", nil)
		f.pass(30 * 24 * time.Hour)
		f.err[method] = broken
		step("DUNNO", broken)
	}
}

func TestGreylistFromManySides(t *testing.T) {
	f := newFakeGreylist()
	g := greylist(f)
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for i := range 200 {
				r := request("192.0.2.1", "a@b.example", string(rune('a'+i%20))+"@example.com", "")
				if got, err := g.Decide(t.Context(), r); err != nil || got.IsDunno() {
					t.Errorf("%v, %v", got, err)
				}
			}
		})
	}
	all.Wait()
	if len(f.triplets) != 20 {
		t.Errorf("%d triplets, want 20", len(f.triplets))
	}
}

func TestTripletsAreTheSameFor(t *testing.T) {
	const client, sender, recipient = "192.0.2.1", "a@b.example", "x@example.com"
	g := greylist(newFakeGreylist())
	key := func(client, sender, recipient string) string {
		k, _ := g.triplet(request(client, sender, recipient, ""))
		return k.Key
	}
	for _, tt := range []struct {
		name, client, sender, recipient string
		same                            bool
	}{
		{"a neighbour", "192.0.2.254", sender, recipient, true},
		{"a mapped address", "::ffff:192.0.2.9", sender, recipient, true},
		{"another network", "192.0.3.1", sender, recipient, false},
		{"capitals", client, "A@B.Example", "X@EXAMPLE.com", true},
		{"an extension of the recipient", client, sender, "x+tag@example.com", true},
		{"an extension of the sender", client, "a+tag@b.example", recipient, true},
		{"another sender", client, "b@b.example", recipient, false},
		{"a sender in another domain", client, "a@c.example", recipient, false},
		{"another recipient", client, sender, "y@example.com", false},
		{"a border that is moved", client, "a@b.examplex", "@example.com", false},
	} {
		if got := key(tt.client, tt.sender, tt.recipient); (got == key(client, sender, recipient)) != tt.same || len(got) != 32 {
			t.Errorf("it handles %s: %s", tt.name, got)
		}
	}
	if key("2001:db8:1:2:3::4", sender, recipient) != key("2001:db8:1:2:ffff::", sender, recipient) {
		t.Error("hosts of one IPv6 network are told apart")
	}
	if key("2001:db8:1:2::1", sender, recipient) == key("2001:db8:1:3::1", sender, recipient) {
		t.Error("two IPv6 networks are one")
	}
}

func TestNormalSenderHandles(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"a person", "Jane.Doe@Example.com", "jane.doe@example.com"},
		{"the null sender", "", ""},
		{"a name without a domain", "Root7", "root#"},
		{"a number", "list-bounces-4711@lists.example", "list-bounces-#@lists.example"},
		{"a number in a word", "john1985@example.com", "john#@example.com"},
		{"numbers of the domain stay", "a@mx1.example", "a@mx1.example"},
		{"BATV", "prvs=2617a3b4c5=user@example.com", "user@example.com"},
		{"BATV in capitals", "PRVS=2617A3B4C5=User@example.com", "user@example.com"},
		{"BATV, the old form", "prvs=user/2617a3b4c5@example.com", "user@example.com"},
		{"BATV of another kind", "btv1==123abcdef==user@example.com", "user@example.com"},
		{"BATV of a third kind", "msprvs1=17482abcd=bounces-1234@example.com", "bounces-#@example.com"},
		{"SRS", "SRS0=HHHH=TT=source.example=user@forward.example", "srs0=source.example=user@forward.example"},
		{"SRS with a plus", "SRS0+a+/b=TT=source.example=user@forward.example", "srs0=source.example=user@forward.example"},
		{"SRS twice", "SRS1=HHHH=first.example==GGGG=TT=source.example=user@second.example", "srs1=first.example==source.example=user@second.example"},
		{"SRS cut short", "SRS0=HHHH@forward.example", "srs0=hhhh@forward.example"},
		{"VERP", "list-return-123-user=example.com@lists.example", "list-return-#-user=example.com@lists.example"},
		{"VERP with a plus", "bounces+4711-abcd-user=example.com@em.example", "bounces@em.example"},
		{"a UUID", "0100018c2f0a5b3e-6d2c11aa-7f00-4b6e-beef-000000@ses.example", "#-#-#-#-#-#@ses.example"},
		{"an extension without a name", "+x1@example.com", "+x#@example.com"},
		{"quotes", `"a 1"@example.com`, `"a #"@example.com`},
	} {
		if got := normalSender(tt.in); got != tt.want {
			t.Errorf("it handles %s: %q; want %q", tt.name, got, tt.want)
		}
	}
}

// FuzzGreylist: whatever the attributes are, the key has 32 digits and does not depend on
// letters' case, digits' values or the length of what is before them; the rule answers, and
// the second answer is the first one.
func FuzzGreylist(f *testing.F) {
	f.Add("a@b.example", "x@example.com", "mail.example")
	f.Add("SRS0=HHH=TT=c@d", "x+y@example.com", "unknown")
	f.Add("prvs=1=a\n=\x00@\xff", "@", ".")
	f.Fuzz(func(t *testing.T, sender, recipient, name string) {
		store := newFakeGreylist()
		g := greylist(store)
		g.Allow = []*Clients{{names: map[string]bool{".allowed.example": true}}}
		r := request("192.0.2.1", sender, recipient, "")
		r.ClientName = name
		first, err := g.Decide(t.Context(), r)
		again, _ := g.Decide(t.Context(), r)
		if err != nil || first != again {
			t.Fatalf("%v, %v, then %v", first, err, again)
		}
		for key := range maps.Keys(store.triplets) {
			if len(key) != 32 {
				t.Errorf("key %q", key)
			}
		}
		digits := strings.Map(func(r rune) rune {
			if '0' <= r && r <= '9' {
				return '0' + (r-'0'+3)%10
			}
			return r
		}, sender)
		if strings.ToValidUTF8(sender, "") == sender && normalLocal(strings.ToLower(sender)) != normalLocal(strings.ToLower(digits)) &&
			!strings.ContainsAny(sender, "=/") && !strings.HasPrefix(strings.ToLower(sender), "srs") {
			t.Errorf("%q is %q, and %q is %q", sender, normalLocal(sender), digits, normalLocal(digits))
		}
	})
}

func TestReadClientsRefuses(t *testing.T) {
	for _, in := range []string{"192.0.2.1/24", "192.0.2.256", "1.2.3", "localhost", "a_b!.example", ".com/", "*.example.com", "."} {
		if _, err := ReadClients(strings.NewReader("# first\n" + in + "\n")); err == nil || !strings.HasPrefix(err.Error(), "line 2: ") {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestParseNetworksReadsMynetworks(t *testing.T) {
	c, err := ParseNetworks("127.0.0.0/8 [::ffff:127.0.0.0]/104, [::1]/128\n 192.0.2.0/24,[2001:db8::]/32")
	if err != nil {
		t.Fatal(err)
	}
	for client, want := range map[string]bool{"127.1.2.3": true, "::1": true, "192.0.2.200": true, "2001:db8:ff::1": true, "::2": false, "198.51.100.1": false, "::ffff:192.0.2.1": true} {
		if got := c.has(netip.MustParseAddr(client), "unknown"); got != want {
			t.Errorf("%s: %v, want %v", client, got, want)
		}
	}
	for _, in := range []string{"hash:/etc/postfix/networks", "!192.0.2.1", "/etc/postfix/networks", "example.com", "192.0.2.1/24"} {
		if _, err := ParseNetworks(in); err == nil {
			t.Errorf("%q is taken", in)
		}
	}
}
