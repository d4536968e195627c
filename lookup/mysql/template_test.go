package mysql

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// keyParts are the variables of key.
func keyParts(key string) func(byte) string {
	p := splitAddress(key)
	p.labels = strings.FieldsFunc(p.domain, func(r rune) bool { return r == '.' })
	return p.variable
}

// a template handles what a variable can stand in.
func TestTemplate(t *testing.T) {
	tests := []struct{ name, query, key, text, args string }{
		{"a string of one variable", "SELECT a FROM t WHERE k='%s'", "k", "SELECT a FROM t WHERE k=?", `["k"]`},
		{"pieces in a string", "SELECT '%u@%d', 'x-%d-%1'", "u@d.e", "SELECT ?, ?", `["u@d.e" "x-d.e-e"]`},
		{"LIKE patterns", "SELECT 1 FROM t WHERE a LIKE '%%%u%%' AND b LIKE 'x%%'", "u@d", "SELECT 1 FROM t WHERE a LIKE ? AND b LIKE 'x%'", `["%u%"]`},
		{"escapes around a variable", `SELECT 'it''s\n\\\%%\_%s\Z\q""'`, "k", "SELECT ?", `["it's\n\\\\%\\_k\x1aq\"\""]`},
		{"double quotes", `SELECT "a""%s'"`, "k", "SELECT ?", `["a\"k'"]`},
		{"the same variable twice", "SELECT '%s', '%s'", "k", "SELECT ?, ?", `["k" "k"]`},
		{"strings without variables", `SELECT 'a?b', "it's", '$.x', '100%%'`, "k", `SELECT 'a?b', "it's", '$.x', '100%'`, `[]`},
		{"adjacent strings", "SELECT 'a' 'b%s' /* and */ \"c\" AS x", "k", "SELECT ? AS x", `["abkc"]`},
		{"adjacent strings without variable", "SELECT 'a'  \"b\" FROM t", "k", `SELECT 'a'  "b" FROM t`, `[]`},
		{"a quote in a comment", "SELECT '%s' /* don't */ , 1 # it's\n, 2 -- it's", "k", "SELECT ?   , 1  \n, 2", `["k"]`},
		{"a variable in a comment", "SELECT 1 -- %s ?", "k", "SELECT 1", `[]`},
		{"minus minus is no comment", "SELECT 1--'%s'", "2", "SELECT 1--?", `["2"]`},
		{"modulo", "SELECT 7 %% '%s'", "4", "SELECT 7 % ?", `["4"]`},
		{"a trailing semicolon", "SELECT '%s' ; ", "k", "SELECT ?", `["k"]`},
		{"a semicolon before a comment", "SELECT '%s'; -- end", "k", "SELECT ?", `["k"]`},
		{"a number outside quotes", "SELECT 1 WHERE id = %s", "42", "SELECT 1 WHERE id = ?", `[42]`},
		{"a number in a list", "SELECT 1 WHERE id IN (1, %s)", "-7", "SELECT 1 WHERE id IN (1, ?)", `[-7]`},
		{"a glued name", "SELECT a%u, %ub, c.%u FROM t_%1", "x@com", "SELECT ax, xb, c.x FROM t_com", `[]`},
		{"a lone name", "SELECT a FROM %u JOIN %1", "x@com", "SELECT a FROM x JOIN com", `[]`},
		{"a backquoted name", "SELECT `a``%u` FROM `t_%d` WHERE x='%s'", "u@d.e", "SELECT `a``u` FROM `t_d.e` WHERE x=?", `["u@d.e"]`},
		{"an introducer", "SELECT _utf8'%s', N'%s', _latin1 'x'", "it's", `SELECT _utf8'it\'s', N'it\'s', _latin1 'x'`, `[]`},
		{"a national string before a blank", "SELECT a FROM t WHERE a = N'%s' OR N'%s' 'x' = b", "it's", `SELECT a FROM t WHERE a = N'it\'s' OR N'it\'sx' = b`, `[]`},
		{"a separator and an alias", "SELECT GROUP_CONCAT(a SEPARATOR '%u') AS '%d'", "u@d", "SELECT GROUP_CONCAT(a SEPARATOR 'u') AS 'd'", `[]`},
		{"an executable comment", "SELECT /*!50000 '%s' */ '%s'", "k", "SELECT /*!50000 'k' */ ?", `["k"]`},
		{"8-bit text", "SELECT 'ü%sß', ü FROM t", "é", "SELECT ?, ü FROM t", `["üéß"]`},
		{"labels", "SELECT '%1.%2'", "u@a.b.c", "SELECT ?", `["c.b"]`},
		{"a value that looks like the end of the string", "SELECT '%s'", `' OR 1=1 -- \`, "SELECT ?", `["' OR 1=1 -- \\"]`},
	}
	for _, tt := range tests {
		c, err := Compile(tt.query, scanQuery)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		text, args, err := c.Expand(keyParts(tt.key))
		if got := fmt.Sprintf("%q", args); err != nil || text != tt.text || got != tt.args && fmt.Sprint(args) != tt.args {
			t.Errorf("it handles %s: got %q %s, %v; want %q %s", tt.name, text, got, err, tt.text, tt.args)
		}
	}
}

// a table of values goes out as text: the server would cut its bound values.
func TestTemplateRows(t *testing.T) {
	for query, direct := range map[string]bool{
		"VALUES ('%s')": true,
		"SELECT a FROM t WHERE a IN (VALUES ('%s'), ('@%d'))": true,
		"SELECT '' UNION ALL VALUES ('%s')":                   true,
		"SELECT a FROM t WHERE a IN (VALUES ('x'))":           false,
		"INSERT INTO t (a, b) VALUES ('%s', '%u')":            false,
		"SELECT values, (t.VALUES) FROM t WHERE a = '%s'":     false,
	} {
		if c, err := Compile(query, scanQuery); err != nil || c.Direct() != direct {
			t.Errorf("%s: got %v; want that it goes out as text: %v", query, err, direct)
		}
	}
}

// a template refuses what it cannot understand or bind.
func TestTemplateRefuses(t *testing.T) {
	for name, query := range map[string]string{
		"an unknown variable":             "SELECT DATE_FORMAT(a, '%Y') FROM t WHERE k='%s'",
		"an unknown variable in comments": "SELECT '%s' /* %x */",
		"a percent sign at the end":       "SELECT '%s' %",
		"a percent sign in a string":      "SELECT 1 WHERE a LIKE 'x%'",
		"a string without end":            "SELECT '%s",
		"an identifier without end":       "SELECT `a WHERE k='%s'",
		"a comment without end":           "SELECT '%s' /* x",
		"a question mark":                 "SELECT '%s' WHERE ?",
		"a backslash before a variable":   `SELECT '\%s'`,
		"a hexadecimal literal":           "SELECT X'%s'",
		"a bit literal":                   "SELECT b'%s'",
		"a date literal":                  "SELECT DATE '%s'",
		"a timestamp literal":             "SELECT TIMESTAMP'%s'",
	} {
		if _, err := Compile(query, scanQuery); err == nil {
			t.Errorf("%s: %q compiles", name, query)
		}
	}
}

// a value that does not fit outside quotes is an error.
func TestTemplateUnfit(t *testing.T) {
	for _, tt := range []struct{ query, key string }{
		{"SELECT 1 WHERE id = %s", "x"},
		{"SELECT 1 WHERE id = %s", ""},
		{"SELECT 1 WHERE id = %s", "1 OR 1"},
		{"SELECT 1 WHERE id = %s", "+1"},
		{"SELECT 1 WHERE id = %s", "0x1"},
		{"SELECT a%u FROM t", "x,y@d"},
		{"SELECT a%u FROM t", "ü@d"},
		{"SELECT a FROM `t_%u`", "x`y@d"},
		{"SELECT a FROM `t_%u`", "x y@d"},
		{"SELECT a FROM %u", strings.Repeat("x", 65) + "@d"},
	} {
		c, err := Compile(tt.query, scanQuery)
		if err != nil {
			t.Fatal(err)
		}
		if text, _, err := c.Expand(keyParts(tt.key)); err == nil {
			t.Errorf("%q with %q: got %q, want an error", tt.query, tt.key, text)
		}
	}
}

// a trusted variable may be a name where a value is wanted.
func TestTemplateTrusted(t *testing.T) {
	scan := func(s string) (Variable[byte], error) {
		v, err := scanQuery(s)
		v.Trusted = v.Value == 'd'
		return v, err
	}
	c, err := Compile("SELECT 1 WHERE %d = 'Y' AND %d", scan)
	if err != nil {
		t.Fatal(err)
	}
	text, args, err := c.Expand(keyParts("u@imap"))
	if want := "SELECT 1 WHERE imap = 'Y' AND imap"; text != want || len(args) != 0 || err != nil {
		t.Errorf("got %q %v, %v; want %q", text, args, err, want)
	}
	if text, _, err := c.Expand(keyParts("u@i-p")); err == nil {
		t.Errorf("a value that is no name gives %q", text)
	}
}

// inline writes the arguments where the placeholders are.
func TestInline(t *testing.T) {
	got := inline("SELECT '?', `?`, ? /* ? */, \"?\", ?", []any{"it's", int64(-5)}, 0)
	if want := `SELECT '?', ` + "`?`" + `, 'it\'s' /* ? */, "?", -5`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// canonical rewrites SQL so that two texts that mean the same to the server's
// lexer are equal: strings by value, adjacent ones joined, no comments, one blank.
func canonical(text string) (string, bool) {
	var out []string
	joined := false // the last element is a string
	for text != "" {
		a, err := sqlMode(0).nextAtom(text)
		if err != nil {
			return "", false
		}
		text = text[len(a.text):]
		switch a.kind {
		case atomSpace, atomComment:
			continue
		case atomString:
			value := sqlMode(0).unescape(a.inner, a.text[0])
			if joined {
				out[len(out)-1] += value
			} else {
				out = append(out, "string "+value)
			}
			joined = true
			continue
		}
		joined = false
		out = append(out, a.text)
	}
	return strings.Join(out, "\x00"), true
}

// naive is the text that Postfix would send.
func naive(template string, value func(byte) string) string {
	var b strings.Builder
	for i := 0; i < len(template); i++ {
		switch {
		case template[i] != '%':
			b.WriteByte(template[i])
		case template[i+1] == '%':
			b.WriteByte('%')
			i++
		default:
			b.WriteString(sqlMode(0).escape(value(template[i+1])))
			i++
		}
	}
	return b.String()
}

// Whatever compiles means what Postfix would have sent, for every key, as long as
// variables stand in quotes; the arguments put back as literals show it. No key
// changes the statement.
func FuzzTemplate(f *testing.F) {
	for _, query := range []string{"SELECT a FROM t WHERE k='%s'", `SELECT "%u" 'x''%d\n' # '%s'`, "SELECT `a``b`, 7 %% 2 -- %s", "SELECT /*!50000 '%s' */ N'%u', a%u"} {
		f.Add(query, "o'brien\\@example.com")
	}
	f.Fuzz(func(t *testing.T, query, key string) {
		c, err := Compile(query, scanQuery)
		if err != nil || !strings.Contains(key, "@") || strings.ContainsAny(query, ";") {
			return
		}
		var n needs
		if err := n.add(query, true); err != nil {
			t.Fatalf("%q compiles, but %v", query, err)
		}
		if n.labels > 0 {
			return
		}
		text, args, err := c.Expand(keyParts(key))
		if err != nil {
			return
		}
		quoted := !slices.ContainsFunc(c.pieces, func(p piece[byte]) bool { return p.kind >= pieceName })
		got, ok := canonical(inline(text, args, 0))
		if !ok {
			t.Fatalf("%q with %q gives %q, which does not end its quotes", query, key, text)
		}
		if !quoted || strings.Contains(key, "\n") { // a line feed would end a comment in the naive text
			return
		}
		want, ok := canonical(naive(query, keyParts(key)))
		if commented := strings.ContainsAny(query, "#-/"); !commented && (!ok || got != want) {
			t.Errorf("%q with %q\n got %q\nwant %q", query, key, got, want)
		}
	})
}
