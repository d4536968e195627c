package daemon

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func TestReadSettings(t *testing.T) {
	tests := []struct {
		name, in string
		want     []setting
		err      string
	}{
		{"an empty file", "", nil, ""},
		{"comments and blank lines", "# a\n\n  # b\na = 1\n", []setting{{"a", "1", 4}}, ""},
		{"continuation lines", "a = 1\n  2\n\t3\nb=4", []setting{{"a", "1 2 3", 1}, {"b", "4", 4}}, ""},
		{"a comment between continuation lines", "a = 1\n# no\n  2\n", []setting{{"a", "1 2", 1}}, ""},
		{"a value with equal signs", "map = x=exact:/f", []setting{{"map", "x=exact:/f", 1}}, ""},
		{"an empty value", "a =\n", []setting{{"a", "", 1}}, ""},
		{"CR LF", "a = 1\r\nb = 2\r\n", []setting{{"a", "1", 1}, {"b", "2", 2}}, ""},
		{"a line without =", "a = 1\nb\n", nil, "line 2: want name = value"},
		{"a name with a blank", "a b = 1\n", nil, "line 1: want name = value"},
		{"no name", "= 1\n", nil, "line 1: want name = value"},
		{"a continuation of nothing", " a = 1\n", nil, "line 1: begins with white space"},
		{"NUL", "a = \x00\n", nil, "line 1: NUL"},
		{"a line that is too long", "a = 1\nb = " + strings.Repeat("x", maxSettingLine), nil, "line 2: "},
		{"continuations that are too long", "b = 1" + strings.Repeat("\n "+strings.Repeat("x", 60000), 2), nil, "line 3: longer"},
	}
	for _, tt := range tests {
		t.Run("it handles "+tt.name, func(t *testing.T) {
			got, err := readSettings(strings.NewReader(tt.in))
			if tt.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), tt.err) {
					t.Fatalf("error %v, want %q...", err, tt.err)
				}
				return
			}
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("got %v, %v; want %v", got, err, tt.want)
			}
		})
	}
}

func FuzzReadSettings(f *testing.F) {
	f.Add("a = 1\n  2\n# c\nb=3\n")
	f.Add(" x")
	f.Fuzz(func(t *testing.T, in string) {
		got, err := readSettings(strings.NewReader(in))
		if err != nil {
			return
		}
		// What was read, written one setting a line, reads back as the same.
		var b strings.Builder
		for _, s := range got {
			b.WriteString(s.name + " = " + s.value + "\n")
		}
		again, err := readSettings(strings.NewReader(b.String()))
		if err != nil {
			t.Fatalf("%q: %v", b.String(), err)
		}
		same := slices.EqualFunc(got, again, func(a, b setting) bool { return a.name == b.name && a.value == b.value })
		if !same {
			t.Errorf("%v reads back as %v", got, again)
		}
	})
}

func TestApplyFile(t *testing.T) {
	type flags struct {
		delimiter string
		maps      []string
		wait      time.Duration
		yes       bool
	}
	set := func(args ...string) (*pflag.FlagSet, *flags) {
		var v flags
		fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
		fs.SetNormalizeFunc(normalize)
		fs.String("config", "", "")
		fs.StringVar(&v.delimiter, "recipient_delimiter", "", "")
		fs.StringArrayVar(&v.maps, "map", nil, "")
		DurationVar(fs, &v.wait, "auth_failure_delay", time.Second, "")
		BoolVar(fs, &v.yes, "auth_verbose", false, "")
		if err := fs.Parse(args); err != nil {
			t.Fatal(err)
		}
		return fs, &v
	}
	file := filepath.Join(t.TempDir(), "x.cf")
	apply := func(text string, args ...string) (*flags, error) {
		os.WriteFile(file, []byte(text), 0o600)
		fs, v := set(args...)
		return v, applyFile(fs, file, quiet)
	}

	v, err := apply("recipient-delimiter = +\nmap = a=exact:/a\nmap = b=exact:/b\nauth_failure_delay = 3s\nauth_verbose = yes\n")
	if err != nil || v.delimiter != "+" || !slices.Equal(v.maps, []string{"a=exact:/a", "b=exact:/b"}) || v.wait != 3*time.Second || !v.yes {
		t.Errorf("got %+v, %v", v, err)
	}
	v, err = apply("recipient_delimiter = +\nmap = a=exact:/a\n", "--recipient-delimiter=-", "--map=c=exact:/c")
	if err != nil || v.delimiter != "-" || !slices.Equal(v.maps, []string{"c=exact:/c"}) {
		t.Errorf("the command line must win: got %+v, %v", v, err)
	}
	for text, want := range map[string]string{
		"a = 1\nno_such = 2\n":         `line 1: unknown setting "a"`,
		"\nconfig = /other\n":          `line 2: unknown setting "config"`,
		"auth_failure_delay = often\n": `line 1: `,
		"auth_verbose = perhaps\n":     `line 1: `,
	} {
		if _, err := apply(text); err == nil || !strings.Contains(err.Error(), file+": "+want) {
			t.Errorf("%q: error %v, want %q", text, err, want)
		}
	}
}

func TestParseListen(t *testing.T) {
	tests := []struct {
		in   string
		want Listen
		err  string
	}{
		{"socketmap:unix:/run/x", Listen{Kind: "socketmap", Network: "unix", Address: "/run/x", Mode: 0o600}, ""},
		{"login:unix:/run/x,mode=0660,owner=postfix,group=12", Listen{"login", "unix", "/run/x", 0o660, "postfix", "12"}, ""},
		{"tcp_table=relay:inet:127.0.0.1:27", Listen{Kind: "tcp_table=relay", Network: "tcp", Address: "127.0.0.1:27", Mode: 0o600}, ""},
		{"lmtp:inet:[::1]:24", Listen{Kind: "lmtp", Network: "tcp", Address: "[::1]:24", Mode: 0o600}, ""},
		{"lmtp", Listen{}, "a part is missing"},
		{"lmtp:unix:", Listen{}, "a part is missing"},
		{":unix:/x", Listen{}, "a part is missing"},
		{"lmtp:unix:x", Listen{}, "not absolute"},
		{"lmtp:unix:/" + strings.Repeat("x", 106), Listen{Kind: "lmtp", Network: "unix", Address: "/" + strings.Repeat("x", 106), Mode: 0o600}, ""},
		{"lmtp:unix:/" + strings.Repeat("x", 107), Listen{}, "the path has 108 octets"},
		{"lmtp:unix:/x,mode=9", Listen{}, "not octal"},
		{"lmtp:unix:/x,mode=1777", Listen{}, "not octal"},
		{"lmtp:unix:/x,color=red", Listen{}, "unknown option"},
		{"lmtp:unix:/x,mode", Listen{}, "has no value"},
		{"lmtp:inet:24", Listen{}, "host or port"},
		{"lmtp:inet::24", Listen{}, "host or port"},
		{"lmtp:udp:1:2", Listen{}, "unknown address family"},
	}
	for _, tt := range tests {
		got, err := ParseListen(tt.in)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("ParseListen(%q) = %v, want error %q", tt.in, err, tt.err)
			}
			continue
		}
		if err != nil || got != tt.want {
			t.Errorf("ParseListen(%q) = %+v, %v; want %+v", tt.in, got, err, tt.want)
		}
	}
}
