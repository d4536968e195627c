package delivery

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"dovepost/cmd/internal/stack"
)

// TestPlantedFiles: what a user can put into the mailbox keeps the mail of no other user
// and harms no other file; his own mail arrives or waits.
func TestPlantedFiles(t *testing.T) {
	target := filepath.Join(site.Dir, "target")
	if err := errors.Join(os.MkdirAll(target, 0o777), os.Chmod(target, 0o777)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(site.Dir, "file")
	if err := errors.Join(os.WriteFile(file, []byte("0S\n0 0\n"), 0o666), os.Chmod(file, 0o666)); err != nil {
		t.Fatal(err)
	}
	link := func(to string) func(string) error { return func(path string) error { return os.Symlink(to, path) } }
	tests := []struct {
		what string // in the Maildir
		make func(path string) error
		want int
	}{
		{"maildirsize", func(path string) error { return syscall.Mkfifo(path, 0o666) }, 250},
		{"maildirsize", link(file), 250},
		{"maildirsize", link("/etc/nowhere"), 250},
		{"maildirsize", func(path string) error { return os.WriteFile(path, []byte("\x00garbage\n"), 0o666) }, 250},
		{"new", link(target), 451},
		{"tmp", link(target), 451},
		{"new", func(path string) error { return syscall.Mkfifo(path, 0o666) }, 451},
		{"new", func(string) error { return nil }, 250}, // missing
		{"cur", func(string) error { return nil }, 250},
	}
	c, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	send := func(rcpt string) int {
		t.Helper()
		codes, err := c.send("Subject: planted\r\n\r\nend\r\n", rcpt)
		if err != nil {
			t.Fatal(err)
		}
		return codes[0]
	}
	box := filepath.Join(site.MailRoot(), "example.net/u2/Maildir")
	for _, tt := range tests {
		if err := os.RemoveAll(box); err != nil {
			t.Fatal(err)
		}
		if code := send(user(2)); code != 250 {
			t.Fatalf("before %s: %d", tt.what, code)
		}
		path := filepath.Join(box, tt.what)
		if err := errors.Join(os.RemoveAll(path), tt.make(path)); err != nil {
			t.Fatal(err)
		}
		os.Lchown(path, stack.MailUID, stack.MailUID)
		if code := send(user(2)); code != tt.want {
			t.Errorf("%s: %d; want %d", tt.what, code, tt.want)
		}
		if code := send(user(3)); code != 250 {
			t.Errorf("%s: another user's mail got %d", tt.what, code)
		}
	}
	if planted, err := os.ReadDir(target); err != nil || len(planted) > 0 {
		t.Errorf("a link led lmtpd to write %v, %v", planted, err)
	}
	if text, err := os.ReadFile(file); string(text) != "0S\n0 0\n" {
		t.Errorf("a link led lmtpd to write %q, %v", text, err)
	}
}
