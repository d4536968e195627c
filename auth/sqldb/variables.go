package sqldb

import (
	"errors"
	"strings"
	"sync"

	"dovepost/auth"
	"dovepost/auth/expand"
	"dovepost/lookup/mysql"
)

// variable is one %... of a query.
type variable = expand.Variable

// errClear says why %w is refused.
var errClear = errors.New("%w, the password in clear, is given to the database only with sql_clear_password = yes")

// scan returns the scanner of q's variables. Those whose value has to be made up before
// the query can be asked are added to q.made. A query that wants the password in clear is
// refused when it is tried or asked, and not before: who does not ask it may open it.
func (f *File) scan(q *query) func(string) (mysql.Variable[*variable], error) {
	scan := expand.Scan
	if f.modern {
		scan = expand.ScanModern
	}
	return interned(func(s string) (mysql.Variable[*variable], error) {
		v, n, err := scan(s)
		switch {
		case err != nil:
			return mysql.Variable[*variable]{}, err
		case v == nil:
			return mysql.Variable[*variable]{Len: n, Literal: true}, nil
		}
		return mysql.Variable[*variable]{Len: n, Value: v, Trusted: v.Trusted()}, nil
	}, func(v *variable) {
		switch {
		case v.Secret() && !f.ClearPassword:
			q.refused = errClear
		case !v.Plain():
			q.made = append(q.made, v)
		}
	})
}

// interned is scan with one value for all variables of the same text; first is told of
// each. A template is compiled again, later and by any goroutine, for sessions that read
// SQL in another way, and its variables have to be those of the first time.
func interned[V any](scan func(string) (mysql.Variable[V], error), first func(V)) func(string) (mysql.Variable[V], error) {
	var mu sync.Mutex
	known := map[string]mysql.Variable[V]{}
	return func(s string) (mysql.Variable[V], error) {
		v, err := scan(s)
		if err != nil || v.Literal {
			return v, err
		}
		mu.Lock()
		defer mu.Unlock()
		if old, ok := known[s[:v.Len]]; ok {
			return old, nil
		}
		known[s[:v.Len]] = v
		first(v.Value)
		return v, nil
	}
}

// values returns what the variables of q stand for in r. An error means that one
// stands for nothing.
func (q *query) values(r *auth.Request) (func(*variable) string, error) {
	plain := func(v *variable) string {
		s, _ := v.Value(expand.Values{Request: r}) // as it is: no error
		return s
	}
	if q.refused != nil {
		return nil, q.refused
	}
	if len(q.made) == 0 {
		return plain, nil
	}
	made := make(map[*variable]string, len(q.made))
	for _, v := range q.made {
		s, err := q.make(v, r)
		if err != nil {
			return nil, err
		}
		made[v] = s
	}
	return func(v *variable) string {
		if s, ok := made[v]; ok {
			return s
		}
		return plain(v)
	}, nil
}

// make returns the value of v as the server would read it in Dovecot's query text:
// Dovecot 2.3 escapes the name first and cuts or hashes it then. 2.4 does it the
// other way round.
func (q *query) make(v *variable, r *auth.Request) (string, error) {
	if q.modern {
		return v.Value(expand.Values{Request: r})
	}
	s, err := v.Value(expand.Values{Request: r, Escape: escape})
	if err != nil {
		return "", err
	}
	return unescapeSQL(s), nil
}

// escapes are the characters that the client library of the server escapes.
var escapes = strings.NewReplacer("\x00", `\0`, "\n", `\n`, "\r", `\r`, `\`, `\\`, "'", `\'`, `"`, `\"`, "\x1a", `\Z`)

func escape(s string) string { return escapes.Replace(s) }

// unescapeSQL is what the server takes an escaped text for. A backslash at the end, of
// an escape that was cut in two, has nothing to escape; in Dovecot it takes the meaning
// from what stands behind it, be it the quote that ends the text.
func unescapeSQL(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '\\' {
			if i++; i == len(s) {
				break
			}
			if at := strings.IndexByte(`0nrtbZ`, s[i]); at >= 0 {
				c = "\x00\n\r\t\b\x1a"[at]
			} else {
				c = s[i]
			}
		}
		b.WriteByte(c)
	}
	return b.String()
}
