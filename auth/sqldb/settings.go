package sqldb

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"dovepost/lookup/bounded"
)

const (
	maxFile  = 1 << 20 // octets of one file
	maxDepth = 8       // of includes
)

// reader reads the "key = value" syntax of Dovecot 2.3's external files.
type reader struct {
	set func(key, value string) error

	// open and close begin and end a block, "kind name {"; nil: there are none.
	open  func(kind, name string) error
	close func() error
}

// readFile reads a file and what it includes. Errors name file and line.
func (r *reader) readFile(path string, depth int) error {
	text, err := bounded.ReadFile(path, maxFile)
	if err != nil {
		return err
	}
	return r.read(path, string(text), depth)
}

// read reads the text of a file. A # outside quotes starts a comment; a backslash
// at the end of a line continues it, and the blanks around the break become one.
func (r *reader) read(path, text string, depth int) error {
	var whole strings.Builder
	first := 0 // number of the line that whole starts with
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		line = strings.TrimLeft(line, " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		if whole.Len() == 0 {
			first = number
		}
		line = strings.TrimRight(cutComment(line), " \t")
		if part, ok := strings.CutSuffix(line, `\`); ok {
			whole.WriteString(strings.TrimRight(part, " \t"))
			whole.WriteByte(' ')
			continue
		}
		whole.WriteString(line)
		line = whole.String()
		whole.Reset()
		if err := r.line(path, line, depth); err != nil {
			return fmt.Errorf("%s:%d: %w", path, first, err)
		}
	}
	if whole.Len() > 0 {
		return fmt.Errorf("%s:%d: the file ends in a continued line", path, first)
	}
	return nil
}

// cutComment cuts line at the first # that is not in quotes. A quote that is not
// closed on the line protects the rest of it.
func cutComment(line string) string {
	for i := 0; i < len(line); i++ {
		switch quote := line[i]; quote {
		case '#':
			return line[:i]
		case '\'', '"':
			for i++; i < len(line) && line[i] != quote; i++ {
				if line[i] == '\\' {
					i++
				}
			}
		}
	}
	return line
}

// line takes one logical line.
func (r *reader) line(path, line string, depth int) error {
	end := strings.IndexAny(line, " \t=")
	if end < 0 {
		end = len(line)
	}
	key, rest := line[:end], strings.TrimLeft(line[end:], " \t")
	if key == "!include" || key == "!include_try" {
		return r.include(path, rest, key == "!include_try", depth)
	}
	if r.open != nil && key == "}" && rest == "" {
		return r.close()
	}
	value, ok := strings.CutPrefix(rest, "=")
	if name, isBlock := strings.CutSuffix(rest, "{"); !ok && isBlock && r.open != nil {
		return r.open(key, strings.Trim(name, " \t\""))
	}
	if !ok {
		return fmt.Errorf("%s: expecting '='", key)
	}
	value = strings.TrimLeft(value, " \t")
	if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
		value = unescape(value[1 : n-1])
	} else {
		value = expandEnv(value)
	}
	return r.set(key, value)
}

// include reads the files that match pattern, relative to the file at path.
func (r *reader) include(path, pattern string, try bool, depth int) error {
	if depth >= maxDepth {
		return errors.New("includes too deep")
	}
	if !filepath.IsAbs(pattern) {
		pattern = filepath.Join(filepath.Dir(path), pattern)
	}
	files, err := filepath.Glob(pattern)
	if err != nil {
		return err
	}
	if len(files) == 0 && !try {
		return fmt.Errorf("%s: no matches", pattern)
	}
	for _, file := range files {
		err := r.readFile(file, depth+1)
		if err != nil && (!try || !errors.Is(err, os.ErrNotExist)) {
			return err
		}
	}
	return nil
}

// unescape takes the backslashes out of a quoted value.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' {
			if i++; i == len(s) {
				break
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// expandEnv expands words $ENV:NAME.
func expandEnv(value string) string {
	if !strings.Contains(value, "$ENV:") {
		return value
	}
	words := strings.Split(value, " ")
	for i, word := range words {
		if name, ok := strings.CutPrefix(word, "$ENV:"); ok {
			words[i] = os.Getenv(name)
		}
	}
	return strings.Join(words, " ")
}
