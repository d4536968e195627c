package bounded

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadFile(path, 5); err != nil || string(got) != "12345" {
		t.Errorf("of 5 octets: %q, %v", got, err)
	}
	if got, err := ReadFile(path, 4); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("of 4 octets: %q, %v; want an error that names the file", got, err)
	}
	if got, err := ReadFile("/dev/zero", 4); err == nil {
		t.Errorf("of a file without end: %q", got)
	}
	if _, err := ReadFile(path+"x", 4); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("of a file that is not there: %v", err)
	}
	if _, err := ReadFile(filepath.Dir(path), 4); err == nil || !strings.Contains(err.Error(), filepath.Dir(path)) {
		t.Errorf("of a directory: %v", err)
	}
}
