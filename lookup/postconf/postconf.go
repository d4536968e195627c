// Package postconf reads main.cf and master.cf of Postfix, and finds the tables that
// are looked up in MySQL.
//
// It knows which parameters hold tables, which keys Postfix tries in each (as kinds
// of lookup/ladder), and how a value has to be written so that a socketmap takes the
// place of the tables. It changes no file: a Plan has the postconf(1) commands.
//
// A value that is switched has both ways in it, and a parameter of its own that decides:
//
//	virtual_alias_maps = ${dovepost?{socketmap:unix:dovepost/lookup:virtual_alias_maps}:{proxy:mysql:/etc/postfix/a.cf, proxy:mysql:/etc/postfix/b.cf}}
//	dovepost = yes
//
// So the tables stay where an administrator looks for them, lookupd finds them there
// whether Postfix asks it or not, and an empty dovepost is the way back for all at once.
//
// Sources: postconf(5), master(5), and Postfix 3.7 itself.
package postconf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"dovepost/lookup/bounded"
)

// Bounds of what is read.
const (
	maxFile   = 4 << 20 // octets of a file
	maxDepth  = 100     // macros in macros
	maxMacros = 10_000  // in one value, with those in its macros
	maxValue  = 1 << 20 // octets of an expanded value
)

// Config is what main.cf and master.cf say.
type Config struct {
	Dir string
	// Hostname is what gethostname(2) says, for sites without myhostname.
	Hostname string
	// Services are those of master.cf, in its order.
	Services []Service

	main map[string]string // values as they stand, continuation lines joined
}

// Service is one line of master.cf.
type Service struct {
	Name      string // as postconf -P has it: submission/inet
	Command   string // smtpd
	Overrides []Setting
}

// Setting is one parameter with its value as it stands.
type Setting struct{ Name, Value string }

// Read reads main.cf and, if it is there, master.cf of a directory. Errors name file
// and line.
func Read(dir string) (*Config, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	main, err := bounded.ReadFile(filepath.Join(dir, "main.cf"), maxFile)
	if err != nil {
		return nil, err
	}
	master, err := bounded.ReadFile(filepath.Join(dir, "master.cf"), maxFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	c, err := Parse(dir, string(main), string(master))
	if err != nil {
		return nil, err
	}
	c.Hostname, _ = os.Hostname()
	return c, nil
}

// Parse is Read for texts that were read already.
func Parse(dir, main, master string) (*Config, error) {
	c := &Config{Dir: dir, Hostname: "localhost", main: map[string]string{}}
	lines, err := logicalLines(main)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, "main.cf"), err)
	}
	for _, l := range lines {
		s, err := parseSetting(l.text)
		if err != nil {
			return nil, fmt.Errorf("%s: line %d: %w", filepath.Join(dir, "main.cf"), l.number, err)
		}
		c.main[s.Name] = s.Value
	}
	if err := c.parseMaster(master); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, "master.cf"), err)
	}
	return c, nil
}

// line is a logical line and where it begins, from 1.
type line struct {
	text   string
	number int
}

// logicalLines joins lines that begin with white space to the one before, also over
// comments and empty lines, which are left out.
func logicalLines(text string) ([]line, error) {
	type open struct {
		strings.Builder
		number int
	}
	var all []*open
	n := 0
	for physical := range strings.SplitSeq(text, "\n") {
		n++
		trimmed := strings.TrimLeft(physical, spaces)
		switch {
		case trimmed == "" || trimmed[0] == '#':
			continue
		case strings.IndexByte(physical, 0) >= 0:
			return nil, fmt.Errorf("line %d: NUL character", n)
		case len(trimmed) == len(physical):
			all = append(all, &open{number: n})
		case len(all) == 0:
			return nil, fmt.Errorf("line %d: begins with white space but continues nothing", n)
		}
		all[len(all)-1].WriteString(physical)
	}
	lines := make([]line, len(all))
	for i, o := range all {
		lines[i] = line{o.String(), o.number}
	}
	return lines, nil
}

// spaces is what isspace(3) knows.
const spaces = " \t\r\n\v\f"

// parseSetting reads "name = value".
func parseSetting(text string) (Setting, error) {
	name, value, ok := strings.Cut(text, "=")
	name = strings.Trim(name, spaces)
	switch {
	case !ok || strings.ContainsAny(name, spaces):
		return Setting{}, errors.New("missing '=' after attribute name")
	case name == "":
		return Setting{}, errors.New("missing attribute name")
	}
	return Setting{name, strings.Trim(value, spaces)}, nil
}

// parseMaster reads master.cf: eight fields, the last of which is the command with
// its arguments. Options other than -o are of no interest here.
func (c *Config) parseMaster(text string) error {
	lines, err := logicalLines(text)
	if err != nil {
		return err
	}
	for _, l := range lines {
		fields := tokenize(l.text, spaces)
		if len(fields) < 8 {
			return fmt.Errorf("line %d: %d fields are not a service", l.number, len(fields))
		}
		s := Service{Name: fields[0].text + "/" + fields[1].text, Command: filepath.Base(fields[7].text)}
		// What follows the first argument that is no option is the program's own: pipe(8) has
		// "argv=/usr/sbin/sendmail -oi" there.
		for args := fields[8:]; len(args) > 0 && args[0].text != "--" && args[0].text[0] == '-'; args = args[1:] {
			value, ok := strings.CutPrefix(args[0].text, "-o")
			if !ok {
				continue
			}
			if value == "" {
				if args = args[1:]; len(args) == 0 {
					return fmt.Errorf("line %d: -o without a parameter", l.number)
				}
				value = args[0].text
			}
			if inner, ok := strings.CutPrefix(value, "{"); ok {
				value = strings.TrimSuffix(inner, "}")
			}
			o, err := parseSetting(value)
			if err != nil {
				return fmt.Errorf("line %d: -o %s: %w", l.number, value, err)
			}
			// The last one counts, as it does among services.
			s.Overrides = slices.DeleteFunc(s.Overrides, func(b Setting) bool { return b.Name == o.Name })
			s.Overrides = append(s.Overrides, o)
		}
		c.Services = slices.DeleteFunc(c.Services, func(b Service) bool { return b.Name == s.Name })
		c.Services = append(c.Services, s)
	}
	return nil
}

// token is a part of a value and where it stands in it.
type token struct {
	text       string
	start, end int
}

// listSeparators are what Postfix splits lists at.
const listSeparators = ", \t\r\n"

// tokenize splits a value at separators that are not in braces.
func tokenize(value, separators string) (tokens []token) {
	start, depth := -1, 0
	for i := 0; i <= len(value); i++ {
		if i < len(value) {
			switch c := value[i]; {
			case c == '{':
				depth++
			case c == '}' && depth > 0:
				depth--
			case depth == 0 && strings.IndexByte(separators, c) >= 0:
				if start >= 0 {
					tokens = append(tokens, token{value[start:i], start, i})
					start = -1
				}
				continue
			}
			if start < 0 {
				start = i
			}
		} else if start >= 0 {
			tokens = append(tokens, token{value[start:], start, i})
		}
	}
	return tokens
}

// LocalDomains returns the domains in mydestination and myorigin, whose addresses are
// looked up as bare user names, too. What is in tables is not among them.
func (c *Config) LocalDomains() ([]string, error) {
	var domains []string
	for _, name := range []string{"myorigin", "mydestination"} {
		value, err := c.Value(name)
		if err != nil {
			return nil, err
		}
		if domains, err = c.patterns(domains, value, 0); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return domains, nil
}

// localInTables reports whether mydestination is in tables, too. Which addresses Postfix looks up
// as bare user names is known to nobody else then, and it must go through the keys itself.
func (s scope) localInTables() (bool, error) {
	value, err := s.value("mydestination")
	return slices.ContainsFunc(tokenize(value, listSeparators), func(t token) bool {
		return namesTable(strings.TrimPrefix(t.text, "!"))
	}), err
}

// namesTable reports whether an element of a list of domains is type:table, and neither a file nor [address].
func namesTable(text string) bool {
	return strings.Contains(text, ":") && !strings.ContainsAny(text[:1], "[/")
}

// patterns appends the literal patterns of a list and of the files in it.
func (c *Config) patterns(to []string, list string, depth int) ([]string, error) {
	if depth > 8 {
		return nil, errors.New("files in files too deep")
	}
	for _, t := range tokenize(list, listSeparators) {
		switch {
		case strings.HasPrefix(t.text, "/"):
			text, err := bounded.ReadFile(t.text, maxFile)
			if err != nil {
				return nil, err
			}
			lines, err := logicalLines(string(text))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", t.text, err)
			}
			for _, l := range lines {
				if to, err = c.patterns(to, l.text, depth+1); err != nil {
					return nil, err
				}
			}
		case strings.HasPrefix(t.text, "!"), namesTable(t.text):
		default:
			to = append(to, t.text)
		}
	}
	return to, nil
}
