package mysql

import (
	"fmt"
	"testing"
)

// a template is read as the session reads it.
func TestModes(t *testing.T) {
	for value, want := range map[string]sqlMode{
		"": 0, "STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION": 0, "ANSI_QUOTES": ansiQuotes, "NO_BACKSLASH_ESCAPES": noBackslash,
		"REAL_AS_FLOAT,PIPES_AS_CONCAT,ANSI_QUOTES,IGNORE_SPACE,ANSI": ansiQuotes,
		"ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH":    ansiQuotes | noBackslash | padded,
	} {
		if got := parseMode(value); got != want {
			t.Errorf("%s: got %b, want %b", value, got, want)
		}
	}
	const key = `o'b\"`
	for _, tt := range []struct {
		query string
		mode  sqlMode
		text  string
		args  string
	}{
		{`SELECT "a" FROM "t" WHERE k='%s'`, ansiQuotes, `SELECT "a" FROM "t" WHERE k=?`, fmt.Sprintf("[%s]", key)},
		{`SELECT "a""b\" FROM t WHERE k='\%%%s'`, ansiQuotes | padded, `SELECT "a""b\" FROM t WHERE k=?`, `[\%` + key + "]"},
		{`SELECT 'a\' FROM t WHERE k='\%s'`, noBackslash, `SELECT 'a\' FROM t WHERE k=?`, `[\` + key + "]"},
		{`SELECT "a\" FROM t WHERE k=N'%s'`, noBackslash, `SELECT "a\" FROM t WHERE k=N'o''b\"'`, "[]"},
		{`SELECT N'%s'`, 0, `SELECT N'o\'b\\\"'`, "[]"},
		{`SELECT "%s"`, noBackslash, `SELECT ?`, fmt.Sprintf("[%s]", key)},
	} {
		// What only makes sense in that mode has no template for the others.
		base := &Template[byte]{source: tt.query, scan: scanQuery}
		if tt.mode == 0 {
			base, _ = Compile(tt.query, scanQuery)
		}
		for range 2 {
			c, err := base.under(tt.mode)
			if err != nil {
				t.Errorf("%s: %v", tt.query, err)
				break
			}
			text, args, err := c.expand(nil, keyParts(key))
			if err != nil || text != tt.text || fmt.Sprint(args) != tt.args {
				t.Errorf("%s: got %s %v, %v; want %s %s", tt.query, text, args, err, tt.text, tt.args)
			}
		}
	}
	base := &Template[byte]{source: `SELECT "%s"`, scan: scanQuery}
	c, err := base.under(ansiQuotes)
	if err != nil {
		t.Fatal(err)
	}
	if text, _, err := c.expand(nil, keyParts("name")); text != `SELECT "name"` || err != nil {
		t.Errorf("got %s, %v", text, err)
	}
	if text, _, err := c.expand(nil, keyParts(`a" FROM b --`)); err == nil {
		t.Errorf("a name that is none gives %s", text)
	}
	base = &Template[byte]{source: `SELECT 'it\'s'`, scan: scanQuery}
	if c, err := base.under(noBackslash); err == nil {
		t.Errorf("a string without end gives %s", c.fixed)
	}
}

// the session says what its server does with placeholders, and how wide characters are.
func TestSessionMode(t *testing.T) {
	for s, want := range map[session]sqlMode{
		{Version: "10.11.19-MariaDB-0+deb12u1", Charset: "utf8mb4"}:                              0,
		{Version: "5.5.5-10.5.1-MariaDB", Charset: "latin1", SQLMode: "ANSI_QUOTES"}:             ansiQuotes,
		{Version: "9.7.4-2", Charset: "utf8mb4"}:                                                 typed,
		{Version: "8.0.36-28 (Percona)", Charset: "utf8mb3", SQLMode: "PAD_CHAR_TO_FULL_LENGTH"}: typed | padded,
		{Version: "10.11.19-MariaDB", Charset: "gbk"}:                                            wide,
		{Version: "8.4.0", Charset: "sjis", SQLMode: "NO_BACKSLASH_ESCAPES"}:                     typed | wide | noBackslash,
	} {
		if got := s.mode(); got != want {
			t.Errorf("%+v: got %b, want %b", s, got, want)
		}
	}
}
