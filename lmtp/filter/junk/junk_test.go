package junk

import (
	"context"
	"strings"
	"testing"

	"dovepost/lmtp"
)

func TestFilter(t *testing.T) {
	tests := []struct {
		name, marks, msg string
		want             bool
	}{
		{"the usual mark", "X-Spam-Flag: YES", "Return-Path: <>\nX-Spam-Flag: YES\n\n", true},
		{"any case", "x-spam-flag:yes", "X-SPAM-FLAG: Yes\n\n", true},
		{"no mark", "X-Spam-Flag: YES", "Subject: x\n\nX-Spam-Flag: YES\n", false},
		{"a mark that denies", "X-Spam-Flag: YES", "X-Spam-Flag: NO\n\n", false},
		{"a word that begins so", "X-Spam-Flag: YES", "X-Spam-Flag: yesterday\n\n", false},
		{"what follows the word", "X-Spam-Status: Yes", "X-Spam-Status: Yes, score=9.1 required=5\n tests=A\n\n", true},
		{"the next of several", "X-Spam-Status: Yes, X-Spam: Yes", "X-Spam: Yes\n\n", true},
		{"a second field of the name", "X-Spam: Yes", "X-Spam: no\nX-Spam: yes\n\n", true},
		{"a folded mark", "X-Spam: Yes", "X-Spam:\n yes\n\n", true},
		{"any value", "X-Spam:", "X-Spam: whatever\n\n", true},
		{"a level", "X-Spam-Level: *****", "X-Spam-Level: *******\n\n", true},
		{"a lower level", "X-Spam-Level: *****", "X-Spam-Level: ***\n\n", false},
	}
	for _, tt := range tests {
		marks, err := ParseMarks(tt.marks)
		if err != nil {
			t.Fatal(err)
		}
		f := &Filter{Marks: marks, Into: lmtp.Filing{Mailbox: "Junk", Flags: []string{`$Junk`}}}
		v, err := f.Filter(context.Background(), nil, nil, lmtp.Text(tt.msg))
		if got := v.Handled && len(v.File) == 1 && v.File[0].Mailbox == "Junk"; err != nil || got != tt.want || v.Handled != tt.want {
			t.Errorf("it handles %s: %+v, %v; want junk: %v", tt.name, v, err, tt.want)
		}
	}
	for _, marks := range []string{"", "X-Spam", "X Spam: YES", ": YES", "X-Spam: Yes,", "X-Spämm: Yes"} {
		if got, err := ParseMarks(marks); err == nil {
			t.Errorf("ParseMarks(%q) = %q; want an error", marks, got)
		}
	}
}

// A field is a mark whatever its case is, and a field of another name is none.
func FuzzMark(f *testing.F) {
	f.Add("X-Spam-Flag: YES", "X-Spam-Flag", "YES")
	f.Add("X-Spam-Status: Yes", "x-spam-status", "yes, score=1")
	f.Add("X-Spam:", "X-Spam", "")
	f.Fuzz(func(t *testing.T, setting, name, value string) {
		marks, err := ParseMarks(setting)
		if err != nil {
			return
		}
		for _, m := range marks {
			if !m.In(m.Name, m.Value) || !m.In(strings.ToLower(m.Name), m.Value+" x") {
				t.Fatalf("%+v is no mark of its own", m)
			}
			if m.In(name, value) && (!strings.EqualFold(name, m.Name) || len(value) < len(m.Value)) {
				t.Fatalf("%+v is in %q: %q", m, name, value)
			}
			if m.In(m.Name+"x", value) {
				t.Fatalf("%+v is in another field", m)
			}
		}
	})
}
