package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"

	"dovepost/auth/scheme"
	"dovepost/cmd/internal/stack"
)

// bench is two sites with the same users: one with Dovecot's own auth service, one
// with authd.
type bench struct {
	rounds, logins int
	bin            string

	dir          string
	native, ours *stack.Stack
	people       int // that have logged in so far
	boxes        int // that have been looked up so far
}

// maxBoxes is the number of users that are looked up but do not log in.
const maxBoxes = 200_000

// person returns a user with a password of its own.
func person(i int) (name, password string) {
	return fmt.Sprintf("person%06d@example.com", i), fmt.Sprintf("secret-%06d", i)
}

func box(i int) string { return fmt.Sprintf("box%06d@example.com", i) }

// settings are for both: IMAP without TLS, whose cost is the same on both sides, and
// more clients than the default, which is 1000 in all.
const settings = `ssl = no
disable_plaintext_auth = no
service auth {
  client_limit = 4000
}
service anvil {
  client_limit = 4000
}
`

func (b *bench) setUp() (err error) {
	if b.dir, err = os.MkdirTemp("", "bench-auth-"); err != nil {
		return err
	}
	if b.bin == "" {
		if err := os.Chmod(b.dir, 0o755); err != nil { // the daemons run as somebody else
			return err
		}
		b.bin = filepath.Join(b.dir, "bin")
		if err := stack.Build(b.bin); err != nil {
			return err
		}
	}
	if b.native, err = stack.Start(stack.Options{Flavour: stack.Native, DovecotConf: []string{settings}}); err != nil {
		return err
	}
	if b.ours, err = stack.Start(stack.Options{Flavour: stack.Dovepost, Bin: b.bin, DovecotConf: []string{settings}}); err != nil {
		return err
	}
	return b.fill()
}

// fill makes as many people as the rounds need, and the boxes, whose hash is that
// of nobody's password.
func (b *bench) fill() error {
	n := 2 * b.rounds * b.logins
	hashes := make([]string, n)
	var hashing errgroup.Group
	cores := runtime.GOMAXPROCS(0)
	for core := range cores {
		hashing.Go(func() (err error) {
			for i := core; i < n && err == nil; i += cores {
				_, password := person(i)
				hashes[i], err = scheme.Hash("SHA512-CRYPT", []byte(password))
			}
			return err
		})
	}
	if err := hashing.Wait(); err != nil {
		return err
	}
	var sql strings.Builder
	fmt.Fprintf(&sql, "USE maildb; INSERT INTO users (email, password) SELECT CONCAT('box', LPAD(seq, 6, '0'), '@example.com'), %s FROM seq_0_to_%d;\n",
		stack.Quote(hashes[0]), maxBoxes-1)
	for i, hash := range hashes {
		name, _ := person(i)
		separator := ","
		if i == 0 {
			separator = "INSERT INTO users (email, password) VALUES "
		}
		fmt.Fprintf(&sql, "%s(%s, %s)", separator, stack.Quote(name), stack.Quote(hash))
	}
	sql.WriteString("; ANALYZE TABLE users;")
	return errors.Join(b.native.DB.Exec(sql.String()), b.ours.DB.Exec(sql.String()))
}

// socket returns a path in a side's base_dir.
func socket(s *stack.Stack, name string) string { return filepath.Join(s.DovecotRun(), name) }

func (b *bench) tearDown() (err error) {
	for _, s := range []*stack.Stack{b.native, b.ours} {
		if s != nil {
			err = errors.Join(err, s.Stop())
		}
	}
	return errors.Join(err, os.RemoveAll(b.dir))
}
