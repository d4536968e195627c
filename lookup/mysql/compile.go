package mysql

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// compiler reads a template atom by atom.
type compiler[V any] struct {
	mode   sqlMode
	scan   func(string) (Variable[V], error)
	pieces []piece[V]

	text  strings.Builder // constant text that is not a piece yet
	run   []atom          // strings and the blanks between and after them: to the server they are one string
	word  string          // the last word, if only blanks came after it
	glued bool            // the last atom can be the first part of a name
	maybe bool            // in a comment that not every server executes: a ? may not be seen
}

func (c *compiler[V]) read(text string) error {
	for text != "" {
		a, err := c.mode.nextAtom(text)
		if err != nil {
			return err
		}
		n := len(a.text)
		switch a.kind {
		case atomSpace:
			c.space(a)
		case atomComment:
			// An unknown variable is an error here, too.
			if _, err = c.parts(a.inner); err == nil {
				c.space(atom{kind: atomSpace, text: " "})
			}
		case atomString:
			c.run = append(c.run, a)
		case atomIdentifier:
			err = c.identifier(a)
		case atomPercent:
			n, err = c.bare(text)
		default:
			err = c.constant(a)
		}
		if err != nil {
			return err
		}
		text = text[n:]
	}
	if err := c.endRun(); err != nil {
		return err
	}
	// The server takes one semicolon at the end of a text, but not in a prepared one.
	end := strings.TrimRight(strings.TrimSuffix(strings.TrimRight(c.text.String(), blanks), ";"), blanks)
	c.text.Reset()
	c.text.WriteString(end)
	c.flush()
	return nil
}

const blanks = " \t\n\v\f\r"

// variable scans the variable at the start of text.
func (c *compiler[V]) variable(text string) (Variable[V], error) {
	v, err := c.scan(text)
	if err == nil && (v.Len < 1 || v.Len > len(text)) {
		err = fmt.Errorf("variable of %d octets in %d", v.Len, len(text))
	}
	return v, err
}

// space adds blanks. Those of a run come after its first string, which is glued to a
// word or not whatever they are.
func (c *compiler[V]) space(a atom) {
	if len(c.run) > 0 {
		c.run = append(c.run, a)
		return
	}
	c.glued = false
	c.text.WriteString(a.text)
}

// constant adds a word or a punctuation mark.
func (c *compiler[V]) constant(a atom) error {
	if err := c.endRun(); err != nil {
		return err
	}
	if a.text == "?" {
		return errors.New("a ? outside quotes")
	}
	c.word = ""
	if a.kind == atomWord {
		c.word = a.text
	}
	c.glued = a.kind == atomWord || a.text == "."
	c.maybe = a.kind == atomOpen || c.maybe && a.kind != atomClose
	c.text.WriteString(a.text)
	return nil
}

// flush makes a piece of the constant text.
func (c *compiler[V]) flush() {
	if c.text.Len() > 0 {
		c.pieces = append(c.pieces, piece[V]{pieceText, []part[V]{{text: c.text.String()}}})
		c.text.Reset()
	}
}

// add adds a piece with variables.
func (c *compiler[V]) add(kind pieceKind, parts ...part[V]) {
	c.flush()
	c.pieces = append(c.pieces, piece[V]{kind, parts})
	c.word = ""
}

// beforeName are the words after which a lone variable is a name.
var beforeName = []string{"FROM", "JOIN", "INTO", "UPDATE", "TABLE", "AS", "CALL", "USE", "INDEX", "KEY", "USING", "COLLATE", "BY"}

// bare adds the variable, or the percent sign, at the start of text, which is
// not in quotes. It returns how many octets it took.
func (c *compiler[V]) bare(text string) (int, error) {
	v, err := c.variable(text)
	if err != nil {
		return 0, err
	}
	if v.Literal {
		return v.Len, c.constant(atom{kind: atomPunct, text: "%"})
	}
	if err := c.endRun(); err != nil {
		return 0, err
	}
	kind := pieceNumber
	if c.glued || c.startsName(text[v.Len:]) || slices.Contains(beforeName, strings.ToUpper(c.word)) {
		kind = pieceName
	}
	c.add(kind, part[V]{variable: &v})
	c.glued = kind == pieceName
	return v.Len, nil
}

// startsName reports whether text goes on with what belongs to the same name.
func (c *compiler[V]) startsName(text string) bool {
	if text == "" {
		return false
	}
	if text[0] != '%' {
		return isWord(text[0]) || text[0] == '.'
	}
	v, err := c.variable(text)
	return err == nil && !v.Literal
}

// identifier adds a quoted identifier.
func (c *compiler[V]) identifier(a atom) error {
	if err := c.endRun(); err != nil {
		return err
	}
	parts, err := c.parts(a.inner)
	if err != nil {
		return err
	}
	quote := a.text[0]
	c.text.WriteByte(quote)
	for _, p := range parts {
		if p.variable != nil {
			c.add(pieceQuoted, p)
		} else {
			c.text.WriteString(p.text)
		}
	}
	c.text.WriteByte(quote)
	c.word, c.glued = "", false
	return nil
}

// endRun adds the strings that were read, as they stand if no variable is among
// them, and else as one piece.
func (c *compiler[V]) endRun() error {
	run := c.run
	c.run = nil
	if len(run) == 0 {
		return nil
	}
	after := "" // the blanks behind the run
	var parts []part[V]
	var plain strings.Builder
	variables := false
	for _, a := range run {
		if a.kind == atomSpace {
			after += a.text
			plain.WriteString(a.text)
			continue
		}
		after = ""
		inner, err := c.parts(a.inner)
		if err != nil {
			return err
		}
		quote := a.text[:1]
		plain.WriteString(quote)
		for _, p := range inner {
			plain.WriteString(p.text)
			if p.variable != nil {
				variables = true
			} else if p.text, err = c.decode(p.text, quote[0]); err != nil {
				return fmt.Errorf("%w in %s", err, a.text)
			}
			parts = append(parts, p)
		}
		plain.WriteString(quote)
	}
	if !variables {
		c.text.WriteString(plain.String())
		c.word, c.glued = "", false
		return nil
	}
	kind, err := c.literalKind()
	if err != nil {
		return fmt.Errorf("%w: %s", err, run[0].text)
	}
	c.add(kind, parts...)
	c.text.WriteString(after)
	c.glued = false
	return nil
}

// literalKind tells what a string with variables is after the last word.
func (c *compiler[V]) literalKind() (pieceKind, error) {
	word := strings.ToUpper(c.word)
	adjacent := c.glued
	switch {
	case strings.HasPrefix(word, "_"), word == "N" && adjacent, word == "AS", word == "SEPARATOR", c.maybe:
		return pieceLiteral, nil
	case adjacent && (word == "X" || word == "B"), word == "DATE", word == "TIME", word == "TIMESTAMP":
		return 0, fmt.Errorf("a variable cannot be bound after %s", c.word)
	}
	return pieceBound, nil
}

// decode returns what text, a constant part of a string in quote, stands for. A
// backslash at its end would take the first octet of the variable's value with it.
func (c *compiler[V]) decode(text string, quote byte) (string, error) {
	if trailing := len(text) - len(strings.TrimRight(text, `\`)); trailing%2 == 1 && c.mode&noBackslash == 0 {
		return "", errors.New(`a \ directly before a variable`)
	}
	return c.mode.unescape(text, quote), nil
}

// parts splits the inside of a quoted atom into constants, joined and as written
// but for %%, and variables.
func (c *compiler[V]) parts(inner string) ([]part[V], error) {
	var parts []part[V]
	var text strings.Builder
	flush := func() {
		if text.Len() > 0 {
			parts = append(parts, part[V]{text: text.String()})
			text.Reset()
		}
	}
	for inner != "" {
		n := strings.IndexByte(inner, '%')
		if n < 0 {
			n = len(inner)
		}
		text.WriteString(inner[:n])
		if inner = inner[n:]; inner == "" {
			break
		}
		v, err := c.variable(inner)
		if err != nil {
			return nil, err
		}
		if v.Literal {
			text.WriteByte('%')
		} else {
			flush()
			parts = append(parts, part[V]{variable: &v})
		}
		inner = inner[v.Len:]
	}
	flush()
	return parts, nil
}
