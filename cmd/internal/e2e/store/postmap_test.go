package store

import (
	"bytes"
	"context"
	"errors"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dovepost/lookup"
	"dovepost/lookup/mysql"
)

// An answer is "= value", "no" or "error".
const (
	answerNo    = "no"
	answerError = "error"
)

// postmap asks native Postfix for all keys at once; after an error, which ends
// postmap, it goes on behind the key that failed.
func postmap(t *testing.T, path string, keys []string) map[string]string {
	t.Helper()
	answers := make(map[string]string, len(keys))
	for len(keys) > 0 {
		out, failed := runPostmap(t, "-", path, strings.Join(keys, "\n")+"\n")
		i := 0
		for out != "" {
			for ; !strings.HasPrefix(out, keys[i]+"\t"); i++ {
				answers[keys[i]] = answerNo
			}
			value := out[len(keys[i])+1:]
			end := endOfValue(value, keys[i+1:])
			answers[keys[i]] = "= " + value[:end]
			out = value[end+1:]
			i++
		}
		if !failed {
			for ; i < len(keys); i++ {
				answers[keys[i]] = answerNo
			}
			return answers
		}
		for found := false; !found && i < len(keys); i++ {
			out, failed := runPostmap(t, keys[i], path, "")
			switch {
			case failed:
				answers[keys[i]] = answerError
				found = true
			case out == "":
				answers[keys[i]] = answerNo
			default:
				answers[keys[i]] = "= " + strings.TrimSuffix(out, "\n")
			}
		}
		keys = keys[i:]
	}
	return answers
}

// endOfValue finds the line feed that ends the value at the start of out: values
// may have line feeds, but then no key and tab follow.
func endOfValue(out string, keys []string) int {
	end := 0
	for {
		end += strings.IndexByte(out[end:], '\n')
		rest := out[end+1:]
		if rest == "" {
			return end
		}
		for _, key := range keys {
			if strings.HasPrefix(rest, key+"\t") {
				return end
			}
		}
		end++
	}
}

func runPostmap(t *testing.T, key, path, stdin string) (out string, failed bool) {
	t.Helper()
	cmd := exec.Command("/usr/sbin/postmap", "-c", config, "-q", key, "mysql:"+path)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err) // no postmap
	}
	if strings.Contains(stderr.String(), "unsupported dictionary type") {
		t.Fatal(stderr.String())
	}
	return stdout.String(), strings.Contains(stderr.String(), "query error") || strings.Contains(stderr.String(), "fatal:")
}

// ours asks a Table.
func ours(m lookup.Map, key string) string {
	values, err := m.Lookup(context.Background(), key)
	switch {
	case err == nil:
		return "= " + strings.Join(values, ",")
	case errors.Is(err, lookup.ErrNotFound):
		return answerNo
	default:
		return answerError
	}
}

// sampleKeys are keys that exist somewhere, or look as if they did.
var sampleKeys = []string{
	"alice@example.com", "ALICE@Example.COM", "bob@example.com", "o'brien@example.com", `back\slash@example.com`,
	`"quo ted"@example.com`, "percent%@example.com", "jörg@müller.example", "JÖRG@MÜLLER.EXAMPLE", "jorg@muller.example",
	"x' OR '1'='1@example.com", `x" OR "1"="1@example.com`, "postmaster@example.com", "team@example.com", "sales@example.net",
	"@example.net", "@alias.example", "empty@example.com", "lines@example.com", "nul@example.com", "example.com", "EXAMPLE.NET",
	"straße.example", "strasse.example", "MÜLLER.example", "two@example.com", "nulls@example.com", "42", "1", "0", "-1", "1.5", "1e0",
	"latin@example.com", "alice2@example.com", "strasse@example.com", "straße@example.com", "a", "b", "c", "d", "e", "f", "g", "h", "i",
	"user@com", "user@a..com", "user@.com", "user@com.", "user@sub.example.com", "user@", "@", "a@b@com", "a@b@example.com",
	"%", "_", "%@example.com", "f%", `\`, `'`, `''`, `"`, "`", ";", "--", "-- x", "#", "/*", "*/", "?", "NULL", "a,b", "alice+x@example.com",
	"t", "t@com", "x@t", "nobody@example.com", "ʼn@example.com", "İ@example.com", "ﬁ@EXAMPLE.com", "ΑΣ@example.com", "😀@example.com",
}

// hostileKeys returns n keys made of what is dangerous to quoting and folding.
// Keys of postmap - are lines, so there is no line feed in them.
func hostileKeys(n int) []string {
	r := rand.New(rand.NewSource(1))
	bits := []string{"alice", "o'brien", "two", "@", "@", "@", "example.com", "example.net", "com", ".", "..", "'", "''", `"`,
		`\`, `\'`, "%", "_", "%%", "`", ";", "--", "-- ", "/*", "*/", "/*!", "#", " ", "ß", "é", "Ä", "İ", "ſ", "K", "ΑΣ", "日本", "\x80",
		"\xff", "ALICE", "NULL", "1", "0", "OR", "=", "(", ")", ",", "\t", "\r", "\x1a", "\x01", "😀", "ﬁ", "?", "$1", "{", "}", "ẞ", "Ꭰ"}
	keys := make([]string, 0, n)
	for len(keys) < n {
		var b strings.Builder
		for range 1 + r.Intn(6) {
			b.WriteString(bits[r.Intn(len(bits))])
		}
		if key := strings.Trim(b.String(), " \t\r"); key != "" {
			keys = append(keys, key)
		}
	}
	return append(keys, strings.Repeat("a", 10000)+"@example.com", strings.Repeat("ß", 5000)+"@example.com")
}

// it answers every key as Postfix does: value, not found or error.
func TestPostmap(t *testing.T) {
	files, err := filepath.Glob("testdata/cf/*.cf")
	if err != nil || len(files) == 0 {
		t.Fatal("no testdata/cf", err)
	}
	hostile := hostileKeys(60)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".cf"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			path := cfFile(t, string(text)+account(socket()))
			m, _ := table(t, path, 2)
			if err := m.Prepare(context.Background()); err != nil && mysql.Unreachable(err) {
				t.Fatal(err)
			}
			keys := append(sampleKeys[:len(sampleKeys):len(sampleKeys)], hostile...)
			if few, ok := fewKeys[filepath.Base(file)]; ok {
				keys = few
			}
			want := postmap(t, path, keys)
			for _, key := range keys {
				if got := ours(m, key); got != want[key] {
					_, err := m.Lookup(context.Background(), key)
					t.Errorf("%.60q: got %.200q, want %.200q (%v)", key, got, want[key], err)
				}
			}
		})
	}
}

// fewKeys are the keys for files that mostly give errors: each costs postmap a second.
var fewKeys = map[string][]string{
	"call-two.cf":    {"team@example.com"},
	"call-none.cf":   {"team@example.com"},
	"call-boom.cf":   {"team@example.com"},
	"call-late.cf":   {"team@example.com"},
	"update.cf":      {"alice@example.com", "nobody@example.com"},
	"charset-l.cf":   {"alice@example.com", "ALICE2@example.com", "jörg@müller.example", "straße@example.com", "日本", "😀@example.com", "%", "'"},
	"charset-g.cf":   {"alice@example.com", "ALICE2@example.com", "jörg@müller.example", "straße@example.com", "日本", "😀@example.com", "%", "'"},
	"executable.cf":  {"team@example.com", "TEAM@example.com", "nobody@example.com", "'", "*/", "?", "--"},
	"charset-mix.cf": {"alice@example.com", "x"},
	"number.cf":      {"1", "42", "7", "0", "-1", "alice", "1.5x"},
	"number-list.cf": {"42", "alice@example.com"},
	"rows.cf":        {"two@example.com", "nobody@example.com", "'@x.example"},
	"name-glued.cf":  {"user@example.com", "user@example.net", "user@com"},
	"name-prefix.cf": {"user@example.com", "user@example.net"},
	"name-quoted.cf": {"user@example.com", "user@com", "user@x.example"},
}

// it lets nothing through that would change the statement. Postfix sends these.
func TestRaw(t *testing.T) {
	for file, key := range map[string]string{
		"number.cf":      "1 or 1=1",
		"number-list.cf": "1) or (1",
		"name-glued.cf":  "user@com where 1",
		"name-quoted.cf": "user@com` where 1 #",
	} {
		text, err := os.ReadFile("testdata/cf/" + file)
		if err != nil {
			t.Fatal(err)
		}
		m, _ := table(t, cfFile(t, string(text)+account(socket())), 2)
		if got := ours(m, key); got != answerError {
			t.Errorf("%s: %q: got %q, want %q", file, key, got, answerError)
		}
	}
}

// it refuses at start what Postfix refuses, and what cannot be bound.
func TestRefused(t *testing.T) {
	files, err := filepath.Glob("testdata/refused/*.cf")
	if err != nil || len(files) == 0 {
		t.Fatal("no testdata/refused", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		path := cfFile(t, string(text)+account(socket()))
		f, err := mysql.ReadFile(path)
		if err == nil {
			_, err = mysql.NewTable(f, mysql.OpenPool(f.Config(), 1))
		}
		if err == nil || !strings.HasPrefix(err.Error(), path) {
			t.Errorf("%s: got %v; want an error that names the file", filepath.Base(file), err)
		} else {
			t.Log(filepath.Base(file), strings.TrimPrefix(err.Error(), path))
		}
	}
}
