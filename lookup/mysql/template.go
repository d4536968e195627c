package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// A Variable is what a scanner found at a '%' of a template.
type Variable[V any] struct {
	Len     int  // octets it takes, at least 1
	Literal bool // "%%": no variable but one '%'
	Value   V
	Trusted bool // its values do not come from outside: outside quotes they may be names
}

// A Template is an SQL text with variables, compiled to a statement whose values
// are bound. V tells one variable from another; Postfix and Dovecot write theirs
// differently, so the scanner is the caller's.
//
// A string literal with variables becomes one placeholder, and its value is put
// together from the literal's pieces. Comments disappear. Outside quotes a
// variable must be a number where a value is wanted, which is bound, too; as part
// of a name only letters, digits, $ and _ are let through, and a statement is
// prepared for each name that comes up. After a character set introducer, N, AS
// and SEPARATOR the grammar allows no placeholder: there the literal is escaped
// into the text, which is then not prepared. Nor is it where the server would take a
// placeholder for something else than a string, see untyped.
//
// Rows, columns and errors are those of the text that Postfix or Dovecot would
// have sent, but no value can change the meaning of the statement.
type Template[V any] struct {
	pieces []piece[V]
	fixed  string // the statement, if it is always the same
	direct bool   // a literal must stand in the text
	names  bool   // a name is made from a variable
	mode   sqlMode

	repeat bool // it may be asked for several keys at once, see repeatable
	unions [maxShared + 1]atomic.Pointer[string]

	// For sessions whose sql_mode changes what quotes mean; made when needed. The
	// template for the mode 0 holds them and stands for them all.
	source string
	scan   func(string) (Variable[V], error)
	others [sqlModes]atomic.Pointer[Template[V]]
}

type piece[V any] struct {
	kind  pieceKind
	parts []part[V]
}

// part is a constant, or a variable.
type part[V any] struct {
	text     string
	variable *Variable[V]
}

type pieceKind uint8

const (
	pieceText    pieceKind = iota // as it stands
	pieceBound                    // a string literal: ?
	pieceLiteral                  // a string literal that no ? can stand for
	pieceName                     // a variable in an identifier
	pieceQuoted                   // the same between backquotes
	pieceNumber                   // a value outside quotes
)

// Compile compiles text. Scan reads the variable at the start of its argument,
// which starts with '%'. Errors say what in text cannot be understood or bound.
func Compile[V any](text string, scan func(string) (Variable[V], error)) (*Template[V], error) {
	t, err := compile(text, scan, 0)
	if err != nil {
		return nil, err
	}
	t.source, t.scan = text, scan
	return t, nil
}

// under returns t as a session in the given mode must read it. An error means that
// the text makes no sense there.
func (t *Template[V]) under(m sqlMode) (*Template[V], error) {
	if m &= sqlModes - 1; m == 0 {
		return t, nil
	}
	if other := t.others[m].Load(); other != nil {
		return other, nil
	}
	other, err := compile(t.source, t.scan, m)
	if err != nil {
		return nil, fmt.Errorf("with the sql_mode of the session: %w", err)
	}
	t.others[m].Store(other)
	return other, nil
}

func compile[V any](text string, scan func(string) (Variable[V], error), m sqlMode) (*Template[V], error) {
	c := &compiler[V]{scan: scan, mode: m}
	if err := c.read(text); err != nil {
		return nil, err
	}
	t := &Template[V]{pieces: c.pieces, mode: m}
	fixed := true
	for _, p := range t.pieces {
		fixed = fixed && (p.kind == pieceText || p.kind == pieceBound)
		t.direct = t.direct || p.kind == pieceLiteral
		t.names = t.names || p.kind == pieceName || p.kind == pieceQuoted
	}
	if fixed {
		t.fixed, _, _ = t.expand(nil, nil)
		t.direct = m&typed != 0 && !untyped(t.fixed, m) || listsRows(t.fixed, m)
		t.repeat = !t.direct && repeatable(t.fixed, m)
	} else if m&typed != 0 {
		t.direct = true // also for numbers
	}
	return t, nil
}

// Direct reports whether the statement goes out as text instead of prepared.
func (t *Template[V]) Direct() bool { return t.direct }

// Names reports whether names in the statement depend on variables.
func (t *Template[V]) Names() bool { return t.names }

// Expand returns the statement and its args for the values of the variables, as it
// is sent in a session with an ordinary sql_mode. Its error means that a value does
// not fit where it stands outside quotes.
func (t *Template[V]) Expand(value func(V) string) (text string, args []any, err error) {
	return t.expand(nil, value)
}

// expand is Expand that appends to args.
func (t *Template[V]) expand(args []any, value func(V) string) (string, []any, error) {
	if t.fixed != "" {
		for i := range t.pieces {
			if p := &t.pieces[i]; p.kind == pieceBound {
				args = append(args, p.join(value))
			}
		}
		return t.fixed, args, nil
	}
	var b strings.Builder
	for i := range t.pieces {
		p := &t.pieces[i]
		switch p.kind {
		case pieceText:
			b.WriteString(p.parts[0].text)
		case pieceBound:
			b.WriteByte('?')
			if value != nil { // nil while compiling
				args = append(args, p.join(value))
			}
		case pieceLiteral:
			b.WriteString("'" + t.mode.escape(p.join(value)) + "'")
		case pieceName, pieceQuoted:
			name := p.join(value)
			if !isName(name, p.kind == pieceQuoted) {
				return "", nil, fmt.Errorf("%w: %.64q is not a name", errUnfit, name)
			}
			b.WriteString(name)
		case pieceNumber:
			arg, name, err := number(p.join(value), p.parts[0].variable.Trusted)
			if err != nil {
				return "", nil, err
			}
			if name != "" {
				b.WriteString(name)
			} else {
				b.WriteByte('?')
				args = append(args, arg)
			}
		}
	}
	return b.String(), args, nil
}

// Query executes the statement for the values of the variables; see Pool.Query.
func (t *Template[V]) Query(ctx context.Context, p *Pool, value func(V) string) (*Rows, error) {
	return p.collect(ctx, func(c *conn, each rowFunc) error { return t.query(c, value, each) })
}

// Each executes the statement like Query and calls each for every row, without
// keeping the rows. The row is valid until each returns. An error of each ends the
// query and is returned. It takes as long as rows keep coming.
func (t *Template[V]) Each(ctx context.Context, p *Pool, value func(V) string, each func(columns []string, row []sql.NullString) error) error {
	seen := false
	var own error
	_, limited := ctx.Deadline()
	err := p.do(ctx, func(c *conn) error {
		start := time.Now()
		err := t.query(c, value, func(columns []string, row []sql.NullString) error {
			if row != nil {
				seen = true
				own = each(columns, row)
			}
			if now := time.Now(); !limited && now.Sub(start) > time.Second {
				c.extend(ctx, now.Add(queryTimeout)) // rows come, or each is slow
				start = now
			}
			return own
		})
		if err != nil && seen {
			own = err // rows have been given away: never start over
			return nil
		}
		return err
	})
	return errors.Join(err, own)
}

// query executes the statement on c.
func (t *Template[V]) query(c *conn, value func(V) string, each rowFunc) error {
	t, err := t.under(c.mode)
	if err != nil {
		return err
	}
	narrow := true
	if t.direct && c.mode&wide != 0 {
		value = checked(value, &narrow)
	}
	text, args, err := t.expand(c.values[:0], value)
	if err != nil {
		return err
	}
	c.values = args
	if !narrow {
		return fmt.Errorf("%w: it has characters beyond ASCII, and the charset is %s", errUnfit, c.session.Charset)
	}
	if t.direct {
		// No statement is prepared, so numbers are written out as well.
		return c.queryText(inline(text, args, t.mode), each)
	}
	return c.query(text, args, each)
}

// checked is value that notes whether all values are ASCII. What escape does is right for
// them in any character set; in one where a backslash can be the second half of a character
// it would let others end their quotes.
func checked[V any](value func(V) string, ascii *bool) func(V) string {
	return func(v V) string {
		s := value(v)
		for i := range len(s) {
			*ascii = *ascii && s[i] < 0x80
		}
		return s
	}
}

// Prepare prepares the statement as it is for the given values.
func (t *Template[V]) Prepare(ctx context.Context, p *Pool, value func(V) string) error {
	return p.do(ctx, func(c *conn) error {
		t, err := t.under(c.mode)
		if err != nil {
			return err
		}
		text, args, err := t.expand(nil, value)
		if err != nil {
			return err
		}
		if t.direct {
			text = inline(text, args, t.mode)
		}
		_, err = c.prepare(text)
		return err
	})
}

// join puts the value of a literal together.
func (p *piece[V]) join(value func(V) string) string {
	if len(p.parts) == 1 && p.parts[0].variable != nil {
		return value(p.parts[0].variable.Value)
	}
	var b strings.Builder
	for _, part := range p.parts {
		if part.variable != nil {
			b.WriteString(value(part.variable.Value))
		} else {
			b.WriteString(part.text)
		}
	}
	return b.String()
}

// isName reports whether s can stand as (part of) an identifier and as nothing
// else. Between backquotes more is harmless.
func isName(s string, backquoted bool) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !isWord(c) && !(backquoted && (c == '.' || c == '-' || c == '@' || c == '+')) || c >= 0x80 {
			return false
		}
	}
	return len(s) <= 64
}

// number returns what stands for s outside quotes: an argument, or the name
// itself if it is trusted.
func number(s string, trusted bool) (arg any, name string, err error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && s[0] != '+' {
		return n, "", nil
	}
	if trusted && s != "" && isName(s, false) && (s[0] < '0' || s[0] > '9') {
		return nil, s, nil
	}
	return nil, "", fmt.Errorf("%w: %.64q is not a number", errUnfit, s)
}

// inline writes args into text, whose only question marks outside quotes are placeholders.
func inline(text string, args []any, m sqlMode) string {
	var b strings.Builder
	for text != "" {
		a, err := m.nextAtom(text)
		if err != nil {
			a.text = text
		}
		text = text[len(a.text):]
		if a.kind != atomPunct || a.text != "?" || len(args) == 0 {
			b.WriteString(a.text)
			continue
		}
		switch v := args[0].(type) {
		case string:
			b.WriteString("'" + m.escape(v) + "'")
		case int64:
			b.WriteString(strconv.FormatInt(v, 10))
		}
		args = args[1:]
	}
	return b.String()
}
