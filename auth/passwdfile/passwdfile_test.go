package passwdfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dovepost/auth"
)

// a file handles what Dovecot's passwd-file has, and refuses what it would misread.
func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "masters")
	text := "# masters\n\nroot@example.com:{PLAIN}a:b\nadmin:$6$x:0:0:Admin:/home:/bin/sh:allow_nets=10.0.0.0/8 userdb_x=y nodelay\r\n::\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Read(path, "CRYPT")
	if err != nil {
		t.Fatal(err)
	}
	for user, want := range map[string]string{"root@example.com": "{PLAIN}a []", "admin": "{CRYPT}$6$x [allow_nets=10.0.0.0/8 nodelay=]"} {
		row, err := f.LookupPass(t.Context(), &auth.Request{User: user})
		if err != nil {
			t.Errorf("%s: %v", user, err)
			continue
		}
		var fields []string
		for _, field := range row.Fields {
			fields = append(fields, field.Name+"="+field.Value)
		}
		if got := row.Password + " [" + strings.Join(fields, " ") + "]"; got != want || row.User != user || row.NoPassword {
			t.Errorf("%s: got %s, want %s", user, got, want)
		}
	}
	for _, user := range []string{"", "Admin", "root", "#", "# masters"} {
		if row, err := f.LookupPass(t.Context(), &auth.Request{User: user}); !errors.Is(err, auth.ErrUnknownUser) {
			t.Errorf("%q: got %v, %v", user, row, err)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	for _, text := range []string{"root", "root:", "root::0:0", "a:x\na:y", "a:x::::::nopassword=y", "a:x::::::user=b"} {
		if f, err := parse(text, "CRYPT"); err == nil {
			t.Errorf("%q is taken: %v", text, f.rows)
		} else if strings.Contains(err.Error(), "x") && strings.Contains(text, ":x") && !strings.Contains(err.Error(), "nopassword") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := Read(filepath.Join(t.TempDir(), "none"), "CRYPT"); err == nil {
		t.Error("a file that is not there is read")
	}
}

// Nobody in a file is without a name or a password.
func FuzzParse(f *testing.F) {
	f.Add("root:{PLAIN}x:::::: allow_nets=1\n#x\na:b")
	f.Fuzz(func(t *testing.T, text string) {
		file, err := parse(text, "CRYPT")
		if err != nil {
			return
		}
		for user, row := range file.rows {
			if user == "" || row.User != user || row.NoPassword || !strings.HasPrefix(row.Password, "{") || !strings.Contains(row.Password, "}") {
				t.Errorf("%q: %+v", text, row)
			}
			if _, value, _ := strings.Cut(row.Password, "}"); strings.Contains(value, "\n") {
				t.Errorf("%q: a password of two lines", text)
			}
		}
	})
}
