package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"dovepost/lookup"
)

// maxForms is how many keys of one lookup one statement asks for. What a key adds is
// a third of what a round trip costs, so more would gain little and could ask for
// much in vain.
const maxForms = 4

// A Set is the tables of one Postfix parameter, in the order of the parameter. It is
// a lookup.Map, too: the answer of the first table that has the key.
type Set []*Table

// Lookup asks the tables for one key.
func (s Set) Lookup(ctx context.Context, key string) ([]string, error) {
	_, values, err := s.First(ctx, []string{key})
	return values, err
}

// First looks up the keys, most significant first, and returns the place of the
// first one that a table has, and what Table.Lookup returns for it there. It is the
// same as asking every table for keys[0], then every table for keys[1] and so on
// until one answers with values or an error, but takes fewer round trips: one
// statement asks a table for up to four keys. The first key is asked for alone if
// the last lookup found its own first key.
//
// The index is that of the key that was found or led to the error, and len(keys)
// with lookup.ErrNotFound.
func (s Set) First(ctx context.Context, keys []string) (index int, values []string, err error) {
	if len(keys) == 0 || len(s) == 0 {
		return len(keys), nil, lookup.ErrNotFound
	}
	var chunk [maxForms]string
	deep := s[0].deep.Load()
	n := copy(chunk[:1], keys)
	if deep {
		n = copy(chunk[:], keys)
	}
	for done := 0; done < len(keys); done, n = done+n, copy(chunk[:], keys[done+n:]) {
		i, values, err := s.first(ctx, chunk[:n])
		if err == nil || !errors.Is(err, lookup.ErrNotFound) {
			if far := done+i > 0; len(keys) > 1 && far != deep {
				s[0].deep.Store(far)
			}
			return done + i, values, err
		}
	}
	if len(keys) > 1 && !deep {
		s[0].deep.Store(true)
	}
	return len(keys), nil, lookup.ErrNotFound
}

// first is First for one chunk.
func (s Set) first(ctx context.Context, keys []string) (index int, values []string, err error) {
	var buf [4]batch
	batches := buf[:0]
	for i, key := range keys {
		for j, t := range s {
			k := t.split(key)
			if k == nil {
				continue
			}
			if len(batches) <= j {
				batches = append(batches, make([]batch, j+1-len(batches))...)
			}
			values, err := batches[j].lookup(ctx, t, i, k, keys)
			if err == nil || !errors.Is(err, lookup.ErrNotFound) {
				return i, values, err
			}
		}
	}
	return len(keys), nil, lookup.ErrNotFound
}

// batch is what one table answered to the keys of a chunk.
type batch struct {
	asked   bool
	answers []reply // nil: each is asked for alone
	at      [maxForms]int8
}

// lookup returns what t says about keys[i], which is k. The first call asks for all
// that follow, too.
func (b *batch) lookup(ctx context.Context, t *Table, i int, k *parts, keys []string) ([]string, error) {
	if !b.asked {
		b.asked = true
		if err := b.ask(ctx, t, i, k, keys); err != nil {
			return nil, t.wrap(err)
		}
	}
	if b.answers == nil {
		return t.askAlone(ctx, k)
	}
	return t.say(ctx, &b.answers[b.at[i]])
}

// ask asks for keys[i], which is k, and what follows with one statement, if t can.
func (b *batch) ask(ctx context.Context, t *Table, i int, k *parts, keys []string) error {
	if !t.repeats() {
		return nil
	}
	var buf [maxForms]*parts
	all := append(buf[:0], k)
	for j := i + 1; j < len(keys); j++ {
		if other := t.split(keys[j]); other != nil {
			b.at[j] = int8(len(all))
			all = append(all, other)
		}
	}
	replies, err := t.answers(ctx, all...)
	if err == errAlone {
		return nil
	}
	b.answers = replies
	return err
}

// say returns what r says.
func (t *Table) say(ctx context.Context, r *reply) ([]string, error) {
	switch {
	case r.alone:
		return r.values, r.err
	case r.rows > 1:
		// Their order is the server's, and may be another one in the larger statement.
		return t.askAlone(ctx, r.key)
	}
	err := r.outcome(t, r.key)
	return r.values, err
}

// errUnlike says that a repeated query does not give what the query alone does.
var errUnlike = errors.New("the query cannot be repeated")

// askTogether fills in replies.
func (t *Table) askTogether(c *conn, replies []reply) error {
	query, err := t.query.under(c.mode)
	if err != nil {
		return err
	}
	if !query.repeat || c.mode&padded != 0 {
		return errUnlike
	}
	args := c.values[:0]
	for i := range replies {
		replies[i].answer = answer{}
		if _, args, err = query.expand(args, replies[i].key.variable); err != nil {
			return err
		}
	}
	c.values = args
	rows, err := c.execute(query.repeated(len(replies)), args)
	if err != nil {
		return err
	}
	return c.scan(rows, func(columns []string, row []sql.NullString) error {
		if row == nil {
			if !textual(rows, len(columns)) {
				return errUnlike
			}
			return nil
		}
		// The first column is the number of the key.
		n, err := strconv.Atoi(row[0].String)
		if err != nil || n < 0 || n >= len(replies) {
			return errUnlike
		}
		return replies[n].add(t, replies[n].key, row[1:])
	})
}

// textual reports whether all columns have types whose values come out the same
// from a UNION: strings, and numbers that cannot be ZEROFILL.
func textual(rows driver.Rows, columns int) bool {
	for i := range columns {
		switch name := typeName(rows, i); name {
		case "VARCHAR", "CHAR", "TINYTEXT", "TEXT", "MEDIUMTEXT", "LONGTEXT", "ENUM", "SET", "NULL",
			"VARBINARY", "TINYBLOB", "BLOB", "MEDIUMBLOB", "LONGBLOB",
			"TINYINT", "SMALLINT", "MEDIUMINT", "INT", "BIGINT":
		default:
			return false
		}
	}
	return true
}

// repeated returns the statement that asks the query of t for several keys: the
// rows of the query have the number of their key before them.
func (t *Template[V]) repeated(keys int) string {
	if text := t.unions[keys].Load(); text != nil {
		return *text
	}
	var b strings.Builder
	for i := range keys {
		if i > 0 {
			b.WriteString(" UNION ALL ")
		}
		fmt.Fprintf(&b, "SELECT %d, q%d.* FROM (%s) AS q%d", i, i, t.fixed, i)
	}
	text := b.String()
	t.unions[keys].Store(&text)
	return text
}

// repeatable reports whether the statement may be asked for several keys at once,
// also for keys that Postfix would not ask for any more: it only reads, calls no
// function that could do more or depends on what was asked before, and its rows mean
// the same when they are part of a UNION. What is not known to be so is not.
func repeatable(text string, m sqlMode) bool {
	var before, last atom // the last two atoms that are not blanks
	blank := false        // there are blanks between last and a
	clauses := []string{""}
	for first := true; text != ""; first = false {
		a, err := m.nextAtom(text)
		if err != nil {
			return false
		}
		text = text[len(a.text):]
		word := strings.ToUpper(a.text)
		switch {
		case a.kind == atomSpace:
			blank = true
			continue
		case first && word != "SELECT", a.kind == atomOpen, a.kind == atomClose, a.text == "@", a.text == ";", a.text == ":":
			return false
		case a.kind == atomWord && last.text != "." && slices.Contains(unrepeatable, word):
			return false
		case a.text == "?" && !slices.Contains(conditions, clauses[len(clauses)-1]):
			return false // a value in a row is cut to the length that it had in the first row of the UNION
		case a.text == "(" && (last.kind == atomWord || last.kind == atomIdentifier):
			name := strings.ToUpper(last.text)
			function := !blank && before.text != "." && slices.Contains(functions, name)
			if !function && !slices.Contains(keywords, name) {
				return false
			}
		}
		inner := len(clauses) - 1
		switch {
		case a.text == "(":
			clauses = append(clauses, clauses[inner])
		case a.text == ")" && inner > 0:
			clauses = clauses[:inner]
		case a.kind == atomWord && last.text != "." && slices.Contains(clauseWords, word):
			clauses[inner] = word
		}
		before, last, blank = last, a, false
	}
	return true
}

// clauseWords begin the clauses of a SELECT; in conditions a value decides about rows and is in none.
var (
	clauseWords = strings.Fields("SELECT FROM WHERE ON HAVING GROUP LIMIT UNION")
	conditions  = strings.Fields("WHERE ON")
)

// unrepeatable are words that make a statement mean something else as part of a
// UNION, or once more.
var unrepeatable = strings.Fields("ORDER INTO FOR LOCK PROCEDURE SQL_CALC_FOUND_ROWS NEXT PREVIOUS WITH TABLE VALUES")

// keywords can stand before a parenthesis and call nothing.
var keywords = strings.Fields(`SELECT DISTINCT ALL FROM JOIN ON USING WHERE AND OR NOT XOR IN EXISTS ANY SOME LIKE REGEXP RLIKE
	BETWEEN CASE WHEN THEN ELSE UNION HAVING BY AS IS BINARY DIV MOD LIMIT INTERVAL`)

// functions are those of the server that do nothing but compute a value from their
// arguments and the clock. With a blank before the parenthesis, or a dot before the
// name, it would be somebody's own.
var functions = strings.Fields(`ASCII CAST CHAR CHAR_LENGTH CHARACTER_LENGTH COALESCE CONCAT CONCAT_WS CONVERT COUNT CURDATE
	CURRENT_DATE CURRENT_TIMESTAMP DATE DATE_ADD DATE_FORMAT DATE_SUB ELT FIELD FIND_IN_SET FLOOR GREATEST HEX IF IFNULL
	INSTR ISNULL JSON_CONTAINS JSON_EXTRACT JSON_UNQUOTE JSON_VALUE LCASE LEAST LEFT LENGTH LOCATE LOWER LPAD LTRIM MAX
	MD5 MID MIN NOW NULLIF POSITION REPEAT REPLACE REVERSE RIGHT RPAD RTRIM SHA1 SHA2 STRCMP SUBSTR SUBSTRING
	SUBSTRING_INDEX SUM TRIM UCASE UNHEX UNIX_TIMESTAMP UPPER UTC_TIMESTAMP`)

var _ lookup.Map = Set(nil)
