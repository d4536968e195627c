package policy

import (
	"context"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParseActionHandles(t *testing.T) {
	for _, tt := range []struct {
		name, text, want string
		fails            bool
	}{
		{"no opinion", "DUNNO", "DUNNO", false},
		{"small letters", "reject go away", "REJECT go away", false},
		{"a word alone", "REJECT", "REJECT", false},
		{"blanks around", "  HOLD   suspect \t", "HOLD suspect", false},
		{"a tab", "HOLD\tsuspect", "HOLD suspect", false},
		{"a code with a status", "452 4.2.2 Mailbox full", "452 4.2.2 Mailbox full", false},
		{"a code without a status", "550 no", "550 no", false},
		{"a code with a number behind", "550 2.5 MB is too much", "", true},
		{"a code with another class of status", "452 5.2.2 Mailbox full", "", true},
		{"8-bit text", "REJECT Postfach voll: größer", "REJECT Postfach voll: größer", false},
		{"wrong UTF-8", "REJECT a\xffb", "REJECT a?b", false},
		{"a line break", "REJECT a\nb\r\nc", "REJECT a b  c", false},
		{"a redirect", "REDIRECT a@example.com", "REDIRECT a@example.com", false},
		{"a redirect to nobody", "REDIRECT", "", true},
		{"a redirect to two", "REDIRECT a@example.com b@example.com", "", true},
		{"a filter", "FILTER smtp:[127.0.0.1]:10025", "FILTER smtp:[127.0.0.1]:10025", false},
		{"a filter without a transport", "FILTER :x", "", true},
		{"a header", "PREPEND X-Policy: seen", "PREPEND X-Policy: seen", false},
		{"a header without a colon", "PREPEND X-Policy", "", true},
		{"OK with text", "OK because", "", true},
		{"a word that Postfix does not know", "PERHAPS", "", true},
		{"another code", "250 fine", "", true},
		{"a long number", "4500", "", true},
		{"nothing", "", "", true},
		{"blanks", " \t ", "", true},
	} {
		got, err := ParseAction(tt.text)
		if (err != nil) != tt.fails || errors.Is(err, ErrAction) != tt.fails {
			t.Errorf("%s: ParseAction(%q): %v", tt.name, tt.text, err)
		}
		if err == nil && got.String() != tt.want {
			t.Errorf("%s: ParseAction(%q) = %q, want %q", tt.name, tt.text, got, tt.want)
		}
	}
}

func TestStringIsAlwaysAnAction(t *testing.T) {
	for _, tt := range []struct {
		action Action
		want   string
	}{
		{Action{}, "DUNNO"},
		{Action{Text: "text alone"}, "DUNNO"},
		{Action{Word: "dunno"}, "DUNNO"},
		{Action{Word: "NONSENSE"}, "DUNNO"},
		{Action{Word: "REJECT\n"}, "DUNNO"},
		{Action{Word: "REDIRECT"}, "DUNNO"},
		{Action{Word: "reject", Text: "a\n\naction=OK"}, "REJECT a  action=OK"},
		{Action{Word: "REJECT", Text: strings.Repeat("ä", 300)}, "REJECT " + strings.Repeat("ä", 200)},
	} {
		if got := tt.action.String(); got != tt.want {
			t.Errorf("%#v = %q, want %q", tt.action, got, tt.want)
		}
	}
}

func TestKindHandles(t *testing.T) {
	for action, want := range map[Action]string{
		{}:                                    "dunno",
		{Word: "NONSENSE"}:                    "dunno",
		{Word: "452", Text: "4.2.2 full"}:     "4xx",
		{Word: "550"}:                         "5xx",
		{Word: "reject", Text: "no"}:          "reject",
		{Word: "HOLD", Rule: "anything else"}: "hold",
	} {
		if got := action.Kind(); got != want {
			t.Errorf("%v: %s, want %s", action, got, want)
		}
	}
}

// FuzzAction: whatever a rule returns, Postfix gets one line that begins with a
// word of access(5), and reading it back gives the same line.
func FuzzAction(f *testing.F) {
	f.Add("REJECT", "no\nspam")
	f.Add("", "")
	f.Add("452", "4.2.2 full")
	f.Add("PREPEND", "X: \xff")
	f.Add("DUNNO", "x")
	f.Fuzz(func(t *testing.T, word, text string) {
		got := Action{Word: word, Text: text}.String()
		if got == "" || strings.ContainsAny(got, "\n\r\x00") || !utf8.ValidString(got) {
			t.Fatalf("%q", got)
		}
		again, err := ParseAction(got)
		if err != nil || again.String() != got {
			t.Errorf("%q read again is %q, %v", got, again, err)
		}
	})
}

func fixed(a Action, err error) Decider {
	return Func(func(context.Context, *Request) (Action, error) { return a, err })
}

func TestChainHandles(t *testing.T) {
	broken := errors.New("broken")
	reject, hold := Action{Word: "REJECT"}, Action{Word: "HOLD"}
	remark := Action{Word: "PREPEND", Text: "X-Policy: seen"}
	archive := Action{Word: "BCC", Text: "archive@example.com"}
	for _, tt := range []struct {
		name  string
		chain Chain
		want  Action
		err   error
	}{
		{"no rules", nil, Dunno, nil},
		{"no opinion", Chain{{Name: "a"}}, Dunno, nil},
		{"the first opinion", Chain{{Name: "a"}, {Name: "b", Decider: fixed(reject, nil)}, {Name: "c", Decider: fixed(hold, nil)}}, reject, nil},
		{"a remark before an opinion", Chain{{Name: "a", Decider: fixed(remark, nil)}, {Name: "b", Decider: fixed(hold, nil)}}, hold, nil},
		{"a copy to an archive before an opinion", Chain{{Name: "a", Decider: fixed(archive, nil)}, {Name: "b", Decider: fixed(reject, nil)}}, reject, nil},
		{"another recipient before an opinion", Chain{{Name: "a", Decider: fixed(Action{Word: "REDIRECT", Text: "a@b"}, nil)}, {Name: "b", Decider: fixed(reject, nil)}}, reject, nil},
		{"a filter before an opinion", Chain{{Name: "a", Decider: fixed(Action{Word: "FILTER", Text: "smtp:x"}, nil)}, {Name: "b", Decider: fixed(reject, nil)}}, reject, nil},
		{"a copy after a word for the log", Chain{{Name: "a", Decider: fixed(Action{Word: "WARN"}, nil)}, {Name: "b", Decider: fixed(archive, nil)}}, archive, nil},
		{"a remark alone", Chain{{Name: "a", Decider: fixed(remark, nil)}, {Name: "b"}}, remark, nil},
		{"two remarks, of which the first stays", Chain{{Name: "a", Decider: fixed(remark, nil)}, {Name: "b", Decider: fixed(Action{Word: "WARN"}, nil)}}, remark, nil},
		{"OK as an opinion", Chain{{Name: "a", Decider: fixed(Action{Word: "OK"}, nil)}, {Name: "b", Decider: fixed(hold, nil)}}, Action{Word: "OK"}, nil},
		{"a failure, which has no opinion", Chain{{Name: "a", Decider: fixed(reject, broken)}}, Dunno, broken},
		{"a failure before an opinion", Chain{{Name: "a", Decider: fixed(Dunno, broken)}, {Name: "b", Decider: fixed(hold, nil)}}, hold, broken},
		{"a failure with its own action", Chain{{Name: "a", Decider: fixed(Dunno, broken), OnError: hold}}, hold, broken},
	} {
		for i := range tt.chain {
			if tt.chain[i].Decider == nil {
				tt.chain[i].Decider = fixed(Dunno, nil)
			}
		}
		got, err := tt.chain.Decide(context.Background(), &Request{})
		if rule := got.Rule; (rule != "") == got.IsDunno() {
			t.Errorf("%s: %v of rule %q", tt.name, got, rule)
		}
		got.Rule = ""
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%s: %v, %v; want %v, %v", tt.name, got, err, tt.want, tt.err)
		}
	}
}

func TestChainStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	chain := Chain{{Name: "a", Decider: fixed(Action{Word: "REJECT"}, nil)}}
	if got, err := chain.Decide(ctx, &Request{}); got != Dunno || !errors.Is(err, context.Canceled) {
		t.Errorf("%v, %v; want DUNNO and why", got, err)
	}
}
