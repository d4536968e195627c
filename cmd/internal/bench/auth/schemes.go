package main

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"dovepost/auth/scheme"
	"dovepost/cmd/internal/bench/rounds"
)

// password is what the hashes are of.
const password = "correct horse battery"

// schemes compares the time that one hash takes here and in the libraries that Dovecot
// uses: libcrypt, called by Perl's crypt, and libsodium, called by doveadm pw, whose
// own start is subtracted.
func (b *bench) schemes() error {
	for _, s := range []struct {
		name, setting string
		n             int // hashes in a round
		target        float64
	}{
		{"SHA512-CRYPT", "$6$abcdefghijklmnop$", 60, 1},
		{"SHA256-CRYPT", "$5$abcdefghijklmnop$", 60, 1},
		{"MD5-CRYPT", "$1$abcdefgh$", 600, 0.8},
		{"bcrypt, cost 5", "$2y$05$abcdefghijklmnopqrstuu", 50, 0.8},
		{"yescrypt, 16 MiB", "$y$j9T$abcdefgh$", 6, 0.5},
		{"scrypt, 16 MiB", "$7$C6..../....abcdefgh$", 6, 0.5},
	} {
		out, err := perl(s.setting, 1)
		if err != nil {
			return err
		}
		theirs := func() (float64, error) {
			began := time.Now()
			_, err := perl(s.setting, s.n)
			return float64(s.n) / time.Since(began).Seconds(), err
		}
		if err := b.hash(s.name, theirs, "{CRYPT}"+out, s.n, s.target); err != nil {
			return err
		}
	}
	for _, name := range []string{"ARGON2ID", "ARGON2I"} {
		stored, err := doveadm("-s", name)
		if err != nil {
			return err
		}
		theirs := func() (float64, error) {
			began := time.Now()
			if _, err := doveadm("-s", "SHA1"); err != nil {
				return 0, err
			}
			middle := time.Now()
			_, err := doveadm("-t", stored)
			return 1 / (time.Since(middle) - middle.Sub(began)).Seconds(), err
		}
		if err := b.hash(name, theirs, stored, 1, 0.5); err != nil {
			return err
		}
	}
	return nil
}

// hash prints the comparison for one scheme.
func (b *bench) hash(name string, theirs func() (float64, error), stored string, n int, target float64) error {
	got, err := rounds.Alternate(b.rounds, theirs, func() (float64, error) {
		began := time.Now()
		for range n {
			if ok, err := scheme.Verify(stored, []byte(password), ""); !ok {
				return 0, fmt.Errorf("%s is not verified: %w", name, err)
			}
		}
		return float64(n) / time.Since(began).Seconds(), nil
	})
	if err != nil {
		return err
	}
	rounds.PerSecond("  one core: "+name, got[0], got[1], target)
	return nil
}

// perl hashes n times and returns the hash.
func perl(setting string, n int) (string, error) {
	out, err := exec.Command("perl", "-e", `my $h; $h = crypt($ARGV[0], $ARGV[1]) for 1..$ARGV[2]; print $h`, password, setting, strconv.Itoa(n)).Output()
	if err != nil {
		return "", fmt.Errorf("perl: %w", err)
	}
	return string(out), nil
}

func doveadm(args ...string) (string, error) {
	out, err := exec.Command("doveadm", append([]string{"-O", "pw", "-p", password}, args...)...).Output()
	if err != nil {
		return "", fmt.Errorf("doveadm pw: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}
