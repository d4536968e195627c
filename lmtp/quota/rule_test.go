package quota

import (
	"math"
	"strings"
	"testing"
)

func TestRules(t *testing.T) {
	const k, m, g = 1 << 10, 1 << 20, 1 << 30
	tests := []struct {
		name    string
		rules   []string
		mailbox string
		want    Limits
		ignored bool
	}{
		{"it handles gigabytes", []string{"*:storage=1G"}, "INBOX", Limits{Bytes: g}, false},
		{"it handles bytes", []string{"*:bytes=1073741824"}, "INBOX", Limits{Bytes: g}, false},
		{"it handles bytes with a unit", []string{"*:bytes=1024M"}, "INBOX", Limits{Bytes: g}, false},
		{"it handles storage without a unit as KiB", []string{"*:storage=20480"}, "INBOX", Limits{Bytes: 20 * m}, false},
		{"it handles the name of the old dirsize backend", []string{"dirsize:storage=20480"}, "INBOX", Limits{Bytes: 20 * m}, false},
		{"it handles storage in b, k and T", []string{"*:storage=5b", "*:messages=2k", "?:bytes=1T"}, "INBOX", Limits{Bytes: 1 << 40, Messages: 2 * k}, false},
		{"it handles units in words", []string{"*:storage=1MB"}, "INBOX", Limits{Bytes: m}, false},
		{"it handles two limits", []string{"*:storage=1M:messages=100"}, "INBOX", Limits{m, 100}, false},
		{"it handles a rule that says nothing", []string{"*:storage=1M", "*:"}, "INBOX", Limits{Bytes: m}, false},
		{"it handles no limit", []string{"*:bytes=0M"}, "INBOX", Limits{}, false},
		{"it handles no rule", nil, "INBOX", Limits{}, false},
		{"it lets a later rule win", []string{"*:storage=1M", "*:storage=2M"}, "INBOX", Limits{Bytes: 2 * m}, false},
		{"it adds for a mailbox", []string{"*:storage=1M", "Trash:storage=+1M"}, "Trash", Limits{Bytes: 2 * m}, false},
		{"it adds without a plus sign as well", []string{"*:storage=1M", "Trash:storage=1M"}, "Trash", Limits{Bytes: 2 * m}, false},
		{"it takes away", []string{"*:storage=1M", "Trash:storage=-512K"}, "Trash", Limits{Bytes: m / 2}, false},
		{"it takes all away as no limit", []string{"*:storage=1M", "Trash:storage=-1M"}, "Trash", Limits{}, false},
		{"it adds a part", []string{"*:storage=1M:messages=10", "Trash:storage=+50%:messages=-10%"}, "Trash", Limits{m + m/2, 9}, false},
		{"it adds a part as dovecot.conf writes it", []string{"*:storage=1M", "Trash:storage=+10%%"}, "Trash", Limits{Bytes: m + m/10}, false},
		{"it leaves other mailboxes alone", []string{"*:storage=1M", "Trash:storage=+1M"}, "INBOX", Limits{Bytes: m}, false},
		{"it ignores a mailbox", []string{"*:storage=1M", "Spam:ignore"}, "Spam", Limits{}, true},
		{"it matches with wildcards", []string{"*:storage=1M", "Arch*/20?6:ignore"}, "Archive/2026", Limits{}, true},
		{"it takes the first mailbox rule that matches", []string{"*:storage=1M", "T*:storage=+1M", "Trash:ignore"}, "Trash", Limits{Bytes: 2 * m}, false},
		{"it knows INBOX in any case", []string{"*:storage=1M", "inbox:storage=+1M"}, "INBOX", Limits{Bytes: 2 * m}, false},
		{"it has no mailbox limits for the unlimited", []string{"*:storage=0", "Trash:storage=+1M"}, "Trash", Limits{}, false},
		{"it handles limits as maildirsize writes them", []string{"*:backend=1000S,10C"}, "INBOX", Limits{1000, 10}, false},
		{"it does not overflow", []string{"*:bytes=9223372036854775807", "Trash:bytes=+9223372036854775807"}, "Trash", Limits{Bytes: math.MaxInt64}, false},
	}
	for _, tt := range tests {
		r, err := ParseRules(tt.rules)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		got, ignored := r.forBox(tt.mailbox, r.limits)
		if got != tt.want || ignored != tt.ignored {
			t.Errorf("%s: limits %+v, ignored %v; want %+v, %v", tt.name, got, ignored, tt.want, tt.ignored)
		}
	}
}

func TestRulesRefused(t *testing.T) {
	for _, rule := range []string{
		"", "*", "1G", "*:storage", "*:storage=", "*:storage=x", "*:storage=1X", "*:size=1G", "*:storage=-1", "*:storage=+1G",
		"*:storage=10%", "*:storage=99999999999999999999", "*:storage=9223372036854775807", "*:storage=1G:", "Trash:storage=-100%",
		"Trash:storage=1-1", "*:backend=x", "*:storage=0x10",
	} {
		if r, err := ParseRules([]string{rule}); err == nil {
			t.Errorf("ParseRules(%q) = %+v; want an error", rule, r)
		}
	}
}

func TestGrace(t *testing.T) {
	for in, want := range map[string]Grace{
		"": {Percent: 10}, "10%": {Percent: 10}, "10%%": {Percent: 10}, "0": {}, "10M": {Bytes: 10 << 20}, "50": {Bytes: 50},
	} {
		if got, err := ParseGrace(in); err != nil || got != want {
			t.Errorf("ParseGrace(%q) = %+v, %v; want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{"x", "-1%", "-5", "%", "10%x", "99999999999%"} {
		if got, err := ParseGrace(in); err == nil {
			t.Errorf("ParseGrace(%q) = %+v; want an error", in, got)
		}
	}
}

func TestBackend(t *testing.T) {
	for in, want := range map[string]Backend{"maildir:User quota": Maildir, "count": Count, "": None, "none": None, "count:U:ns=": Count} {
		if got, err := ParseBackend(in); err != nil || got != want {
			t.Errorf("ParseBackend(%q) = %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"dict:User quota::file:%h/q", "dirsize", "fs", "imapc"} {
		if _, err := ParseBackend(in); err == nil {
			t.Errorf("ParseBackend(%q) is no error", in)
		}
	}
}

// What is accepted is within bounds, for every mailbox, and does not depend on what
// ignored mailboxes are called.
func FuzzRules(f *testing.F) {
	f.Add("*:storage=1G", "Trash:storage=+10%%", "Trash")
	f.Add("*:bytes=10:messages=5", "Sp*:ignore", "Spam")
	f.Add("?:storage=-1", "x:storage=+9223372036854775807", "x")
	f.Fuzz(func(t *testing.T, one, two, mailbox string) {
		r, err := ParseRules([]string{one, two})
		if err != nil {
			return
		}
		l, ignored := r.forBox(mailbox, r.limits)
		if l.Bytes < 0 || l.Messages < 0 || r.limits.Bytes < 0 || r.limits.Messages < 0 {
			t.Fatalf("%q %q: negative limits %+v %+v", one, two, r.limits, l)
		}
		if ignored && !r.ignores(mailbox) {
			t.Fatalf("%q %q: %q ignored and not", one, two, mailbox)
		}
		if !match(strings.Repeat("*", len(mailbox)%3+1), mailbox) || !match(mailbox, mailbox) {
			t.Fatalf("%q does not match itself", mailbox)
		}
	})
}
