package postconf

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what was found to the golden files")

const ourEndpoint = "socketmap:unix:dovepost/lookup"

// sections splits a golden file: a comment, then "-- name --" before each part.
func sections(t *testing.T, path string) map[string]string {
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	name := "comment"
	for line := range strings.Lines(string(data)) {
		if inner, ok := strings.CutPrefix(line, "-- "); ok {
			name = strings.TrimSuffix(inner, " --\n")
			continue
		}
		all[name] += line
	}
	return all
}

func describe(p *Plan) string {
	var b strings.Builder
	for _, m := range p.Maps {
		fmt.Fprintf(&b, "%s = %s %s", m.Name, m.Kind, strings.Join(m.Files, " "))
		if m.Parameter != m.Name {
			fmt.Fprintf(&b, " (%s)", strings.TrimPrefix(m.Service+" "+m.Parameter, " "))
		}
		b.WriteString("\n")
	}
	for _, name := range slices.Sorted(maps.Keys(p.Asked)) {
		fmt.Fprintf(&b, "unknown: %s in %s\n", name, p.Asked[name])
	}
	return b.String()
}

// Golden files say what is found in a configuration, and the commands. Beyond that:
// once switched the same maps are found, there is nothing more to switch, and the way
// back leads to where it began.
func TestPlan(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d golden files, %v", len(files), err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			in := sections(t, path)
			c, err := Parse("/etc/postfix", in["main.cf"], in["master.cf"])
			if err != nil {
				t.Fatal(err)
			}
			p, err := c.Find(ourEndpoint)
			if err != nil {
				t.Fatal(err)
			}
			got := []string{describe(p), lines(p.Switch()), lines(p.Back())}
			if *update {
				text := in["comment"]
				for i, name := range []string{"main.cf", "master.cf", "maps", "switch", "back"} {
					text += "-- " + name + " --\n" + append([]string{in["main.cf"], in["master.cf"]}, got...)[i]
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			for i, name := range []string{"maps", "switch", "back"} {
				if got[i] != in[name] {
					t.Errorf("%s: got\n%swant\n%s", name, got[i], in[name])
				}
			}
			if !strings.Contains(in["main.cf"], "${"+knob+"?") {
				roundTrip(t, c, p)
			}
		})
	}
}

func lines(all []string) string { return strings.Join(append(all, ""), "\n") }

// roundTrip applies the commands to c, and checks what is found then.
func roundTrip(t *testing.T, c *Config, before *Plan) {
	t.Helper()
	native := state(c)
	back := before.Back()
	apply(t, c, before.Switch())
	after, err := c.Find(ourEndpoint)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := describe(after), describe(before); got != want {
		t.Errorf("once switched: got\n%swant\n%s", got, want)
	}
	for _, line := range after.Switch() {
		if !strings.HasPrefix(line, "#") {
			t.Errorf("once switched there is still %s", line)
		}
	}
	switched := state(c)
	apply(t, c, back)
	if got := state(c); got != native {
		t.Errorf("the way back: got\n%swant\n%s", got, native)
	}
	apply(t, c, before.Switch())
	if got := state(c); got != switched {
		t.Errorf("switched again: got\n%swant\n%s", got, switched)
	}
	again, err := c.Find(ourEndpoint)
	if err != nil {
		t.Fatal(err)
	}
	apply(t, c, again.Back())
	if got := state(c); got != native {
		t.Errorf("the way back, found later: got\n%swant\n%s", got, native)
	}
}

// state describes all settings, without the blanks and commas between words.
func state(c *Config) string {
	var all []string
	add := func(place, value string) {
		words := tokenize(value, listSeparators)
		text := place + " ="
		for _, w := range words {
			text += " " + w.text
		}
		all = append(all, text+"\n")
	}
	for name, value := range c.main {
		add(name, value)
	}
	for _, s := range c.Services {
		for _, o := range s.Overrides {
			add(where(s.Name, o.Name), o.Value)
		}
	}
	slices.Sort(all)
	return strings.Join(all, "")
}

// shellWords splits a command as a shell does.
func shellWords(command string) (words []string) {
	var word strings.Builder
	quote, open := byte(0), false
	for i := 0; i < len(command); i++ {
		switch c := command[i]; {
		case (c == '\'' || c == '"') && quote == 0:
			quote, open = c, true
			continue
		case c == quote:
			quote = 0
			continue
		case c == ' ' && quote == 0:
			if open {
				words = append(words, word.String())
			}
			word.Reset()
			open = false
			continue
		case c == '\\' && quote == 0:
			i++
		}
		word.WriteByte(command[i])
		open = true
	}
	return append(words, word.String())
}

// apply does what postconf(1) does with the commands.
func apply(t *testing.T, c *Config, commands []string) {
	t.Helper()
	for _, command := range commands {
		if strings.HasPrefix(command, "#") {
			continue
		}
		words := shellWords(command)
		for _, arg := range words[2:] {
			name, value, _ := strings.Cut(arg, "=")
			name, value = strings.TrimSpace(name), strings.TrimSpace(value)
			switch words[1] {
			case "-e":
				c.main[name] = value
			case "-X":
				delete(c.main, arg)
			case "-P":
				if strings.ContainsAny(value, spaces) {
					t.Errorf("%s: postconf takes no blanks there", command)
				}
				i := strings.LastIndexByte(name, '/')
				setOverride(t, c, name[:i], name[i+1:], value)
			default:
				t.Errorf("unknown command %s", command)
			}
		}
	}
}

func setOverride(t *testing.T, c *Config, service, name, value string) {
	for i := range c.Services {
		for j := range c.Services[i].Overrides {
			if o := &c.Services[i].Overrides[j]; c.Services[i].Name == service && o.Name == name {
				o.Value = value
				return
			}
		}
	}
	t.Errorf("there is no %s/%s", service, name)
}

func TestExpand(t *testing.T) {
	c, err := Parse("/etc/postfix", `
a = A
empty =
nested = <$a>
file = ${config_directory}/x
one = $two
two = $one
compatibility_level = 3.6
mydomain = example.com
`, "")
	if err != nil {
		t.Fatal(err)
	}
	c.Hostname = "mail"
	for _, tt := range []struct{ in, want, err string }{
		{"", "", ""},
		{"plain", "plain", ""},
		{"$a-${a}-$(a)", "A-A-A", ""},
		{"$$a $$", "$a $", ""},
		{"$nested", "<A>", ""},
		{"$nothing$empty.", ".", ""},
		{"$file", "/etc/postfix/x", ""},
		{"${a?yes}${empty?no}${nothing?no}", "yes", ""},
		{"${a:no}${empty:yes}", "yes", ""},
		{"${a?$nested}", "<A>", ""},
		{"${a?{x y}:{z}} ${empty?{x}:{z}}", "x y z", ""},
		{"[${a?{ z }}] [${empty:{ z }}]", "[ z ] [ z ]", ""},
		{"${{ 1 } == {1}?{same}:{other}} ${{ 1 } == { 1 }?{same}:{other}}", "other same", ""},
		{"${{1} == {1}} ${{1} == {2}}.", "true .", ""},
		{"${a ? {x} : {y}}", "x", ""},
		{"${{$a} == {A}?{same}:{other}}", "same", ""},
		{"${{$a} != {A}?{same}:{other}}", "other", ""},
		{"${{10} > {9}?{number}}", "number", ""},
		{"${{a10} < {a9}?{text}}", "text", ""},
		{"${{$compatibility_level} <level {2}?{old}:{new}}", "new", ""},
		{"${{$compatibility_level} >=level {3.6}?{3.6}}", "3.6", ""},
		{"${{3.10} >level {3.9}?{newer}}", "newer", ""},
		{"$myhostname $mydestination", "mail.example.com mail.example.com, localhost.example.com, localhost", ""},
		{"$one", "", "macros in macros"},
		{"$", "", "empty macro name"},
		{"$ a", "", "empty macro name"},
		{"${a", "", "unbalanced"},
		{"${}", "", "bad macro"},
		{"${a!}", "", "bad macro"},
		{"${a?{x} y}", "", "bad macro"},
		{"${{a} ~ {b}?x}", "", "bad operator"},
		{"${{a} ==}", "", "bad macro"},
	} {
		got, err := scope{Config: c}.expand(tt.in)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("expand(%q) = %q, %v; want an error with %q", tt.in, got, err, tt.err)
			}
		} else if got != tt.want || err != nil {
			t.Errorf("expand(%q) = %q, %v; want %q", tt.in, got, err, tt.want)
		}
	}
}

// Macros that double with each step end in an error, not in the end of memory or time.
func TestExpandBound(t *testing.T) {
	for _, leaf := range []string{"", "x"} {
		var main strings.Builder
		fmt.Fprintf(&main, "m0 = %s\n", leaf)
		for i := range 64 {
			fmt.Fprintf(&main, "m%d = $m%d$m%d\n", i+1, i, i)
		}
		c, err := Parse("/", main.String(), "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Value("m64"); err == nil || !strings.Contains(err.Error(), "macros") {
			t.Errorf("it ends with %v", err)
		}
	}
}

func TestParse(t *testing.T) {
	for _, tt := range []struct{ name, main, master, err string }{
		{"nothing", "", "", ""},
		{"comments and empty lines", "# a\n\n  # b\na = 1\n", "# x\n", ""},
		{"a line without =", "a = 1\nb\n", "", "main.cf: line 2: missing '='"},
		{"a name with a blank", "a b = 1\n", "", "missing '='"},
		{"no name", "= 1\n", "", "missing attribute name"},
		{"a continuation of nothing", " a = 1\n", "", "continues nothing"},
		{"a NUL", "a = \x00\n", "", "NUL"},
		{"a short service", "", "smtp inet n - y\n", "master.cf: line 1: 5 fields"},
		{"-o without a parameter", "", "smtp inet n - y - - smtpd -o\n", "-o without a parameter"},
		{"the arguments of a program", "", "x unix - n n - - pipe user=x argv=/usr/sbin/sendmail -oi -f ${sender} -o\n", ""},
		{"-o without a value", "", "\nsmtp inet n - y - - smtpd\n -o x\n", "line 2: -o x: missing '='"},
	} {
		_, err := Parse("/etc/postfix", tt.main, tt.master)
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("it handles %s: %v; want %q", tt.name, err, tt.err)
		}
	}
	c, err := Parse("/etc/postfix", "a = 1\n# x\n\n\t 2,\n\n  3\na_b =  x = y  \na = 4\n   5", "s unix - - n - - /usr/lib/smtp -v -oa=1 -o {b = 2 3} -o a=4 -o c=${x?{y z}} flags=x -o d=5\n")
	if err != nil {
		t.Fatal(err)
	}
	if c.main["a"] != "4   5" || c.main["a_b"] != "x = y" {
		t.Errorf("main.cf is %q", c.main)
	}
	want := []Setting{{"b", "2 3"}, {"a", "4"}, {"c", "${x?{y z}}"}}
	if s := c.Services[0]; s.Name != "s/unix" || s.Command != "smtp" || !slices.Equal(s.Overrides, want) {
		t.Errorf("the service is %q", s)
	}
}

func TestLocalDomains(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "domains")
	if err := os.WriteFile(file, []byte("# here\none.example two.example\n\n[192.0.2.1]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	main := "mydomain = example.com\nmyorigin = $mydomain\nmydestination = localhost, !not.example, " + file + " mysql:/x hash:/y\n"
	if err := os.WriteFile(filepath.Join(dir, "main.cf"), []byte(main), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.LocalDomains()
	if want := []string{"example.com", "localhost", "one.example", "two.example", "[192.0.2.1]"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("LocalDomains = %q, %v; want %q", got, err, want)
	}
	if _, err := Read(filepath.Join(dir, "none")); err == nil {
		t.Error("a directory without main.cf is no error")
	}
	if err := os.WriteFile(file, bytes.Repeat([]byte("x"), maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.LocalDomains(); err == nil {
		t.Error("a file that is too large is no error")
	}
}

func TestFindErrors(t *testing.T) {
	for _, tt := range []struct{ name, main, err string }{
		{"a value that cannot be expanded", "virtual_alias_maps = ${x\n", "unbalanced"},
		{"a macro in itself", "virtual_alias_maps = $virtual_alias_maps mysql:/x\n", "macros in macros"},
	} {
		c, err := Parse("/etc/postfix", tt.main, "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Find(ourEndpoint); err == nil || !strings.Contains(err.Error(), tt.err) {
			t.Errorf("it handles %s: %v; want %q", tt.name, err, tt.err)
		}
	}
}

// A map that Postfix asks for, and nothing says of which tables, is told.
func TestAsked(t *testing.T) {
	for _, tt := range []struct{ name, main, want string }{
		{"a map", "relocated_maps = " + ourEndpoint + ":x", "map[x:relocated_maps]"},
		{"the map of another daemon", "relocated_maps = socketmap:unix:other:x", "map[]"},
		{"a choice", "dovepost = yes\nrelocated_maps = " + choice(ourEndpoint+":x", "mysql:/x.cf"), "map[]"},
		{"a choice without tables", "dovepost = yes\nrelocated_maps = " + choice(ourEndpoint+":x", "hash:/x"), "map[x:relocated_maps]"},
		{"one that is not in use", "relocated_maps = " + choice(ourEndpoint+":x", "hash:/x"), "map[]"},
		{"one that is cut short", "dovepost = yes\nrelocated_maps = ${dovepost?{" + ourEndpoint + ":x}}", "map[]"},
	} {
		c, err := Parse("/etc/postfix", tt.main+"\n", "")
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.Find(ourEndpoint)
		if err != nil || fmt.Sprint(p.Asked) != tt.want {
			t.Errorf("it handles %s: %v, %v; want %s", tt.name, p, err, tt.want)
		}
	}
}

// Whatever the files say: nothing hangs or grows without bound, and what is found
// holds against switching and going back.
func FuzzFind(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(data), "-- main.cf --\n")
		main, rest, _ := strings.Cut(rest, "-- master.cf --\n")
		master, _, _ := strings.Cut(rest, "-- maps --\n")
		f.Add(main, master)
	}
	f.Add("virtual_alias_maps = ${{a} == {b}?mysql:/x:{mysql:/y}} $(relay_domains)\nrelay_domains=!$a", "s unix - - - - - lmtp -o {a=mysql:/x}")
	f.Fuzz(func(t *testing.T, main, master string) {
		c, err := Parse("/etc/postfix", main, master)
		if err != nil {
			return
		}
		p, err := c.Find(ourEndpoint)
		if err != nil {
			return
		}
		names := map[string]bool{}
		for _, m := range p.Maps {
			if names[m.Name] || len(m.Files) == 0 || nameLen(m.Name) != len(m.Name) {
				t.Errorf("bad map %+v", m)
			}
			names[m.Name] = true
		}
		for _, line := range append(p.Switch(), p.Back()...) {
			if strings.ContainsAny(line, "\n\x00") {
				t.Errorf("a command of several lines: %q", line)
			}
		}
		if strings.Contains(main+master, "dovepost") || strings.ContainsAny(main+master, "\r\v\f") {
			return // for what was not switched before, and without rare kinds of blanks
		}
		roundTrip(t, c, p)
	})
}
