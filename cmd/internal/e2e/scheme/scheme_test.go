// Package scheme compares auth/scheme with Dovecot's own doveadm pw, and with the
// crypt(3) that Dovecot uses, both ways.
//
// With DOVEPOST_LONG=1 in the environment every scheme gets as many passwords as the
// cheap ones; without it ARGON2 gets few of them.
package scheme

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"dovepost/auth/scheme"
)

const user = "test@example.com"

// doveadm runs doveadm pw and returns what it printed, without the end of the line.
// -O leaves the configuration alone, which would take as long again.
func doveadm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := exec.Command("doveadm", append([]string{"-O", "pw"}, args...)...).Output()
	if err != nil {
		if _, ran := err.(*exec.ExitError); !ran {
			t.Fatalf("doveadm is needed: %v", err)
		}
	}
	return strings.TrimSuffix(string(out), "\n"), err
}

// verified is doveadm's verdict.
func verified(t *testing.T, stored, password string) bool {
	t.Helper()
	out, err := doveadm(t, "-t", stored, "-p", password, "-u", user)
	return err == nil && strings.HasSuffix(out, "(verified)")
}

// passwords returns a hundred for a scheme, few for a slow one: the empty one, 8-bit,
// up to 200 octets, around the limits of DES (8), MD5 (64) and bcrypt (72), and
// random ones. The seed is fixed, so failures come again.
func passwords(name string) []string {
	all := []string{"", "a", strings.Repeat("\xff", 200), "pässwörd", "p\xe4ss\xff\x80", "12345678", "123456789",
		strings.Repeat("x", 64), strings.Repeat("0123456789", 10), strings.Repeat("y", 72)}
	if strings.HasPrefix(name, "ARGON2") && os.Getenv("DOVEPOST_LONG") != "1" {
		return all[:6]
	}
	seed := uint64(0)
	for _, c := range name {
		seed = seed*31 + uint64(c)
	}
	random := rand.New(rand.NewPCG(1, seed))
	for len(all) < 100 {
		b := make([]byte, 1+random.IntN(200))
		for i := range b {
			b[i] = byte(1 + random.IntN(255))
		}
		all = append(all, string(b))
	}
	return all
}

// wrong returns a password that is not this one for any scheme: also the first
// eight octets' lower seven bits differ.
func wrong(password string) string {
	if password == "" {
		return "x"
	}
	return string(password[0]^1) + password[1:]
}

// listed returns the schemes of `doveadm pw -l`, without OTP, which stands for no
// password but for the next of a list.
func listed(t *testing.T) []string {
	out, err := doveadm(t, "-l")
	if err != nil {
		t.Fatal(err)
	}
	names := slices.DeleteFunc(strings.Fields(out), func(name string) bool { return name == "OTP" })
	slices.Sort(names)
	return names
}

func TestTheSchemesAreThoseOfDoveadm(t *testing.T) {
	want := listed(t)
	if !slices.Contains(want, "ARGON2") { // which Dovecot 2.4 has
		want = append([]string{"ARGON2"}, want...)
	}
	if got := scheme.Known(); !slices.Equal(got, want) {
		t.Errorf("Known() = %q, want %q", got, want)
	}
}

// isClear: the value is the password, which doveadm cannot print whole where it holds
// the end of a line, nor take from a value that begins with its scheme's own marks.
func isClear(name string) bool { return name == "PLAIN" || strings.HasPrefix(name, "CLEAR") }

func TestDoveadmTakesOurHashes(t *testing.T) {
	for _, name := range listed(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for i, password := range passwords(name) {
				suffix := [...]string{"", ".b64", ".hex", ".base64"}[i%4]
				stored, err := scheme.HashWith(name+suffix, []byte(password), scheme.Options{User: user})
				if err != nil {
					t.Fatalf("HashWith(%s, %q): %v", name, password, err)
				}
				if !verified(t, stored, password) {
					t.Errorf("doveadm pw -t %q -p %q: not verified", stored, password)
				}
				if i%10 == 0 && verified(t, stored, wrong(password)) {
					t.Errorf("doveadm pw -t %q -p %q: verified", stored, wrong(password))
				}
			}
		})
	}
}

func TestWeTakeDoveadmsHashes(t *testing.T) {
	for _, name := range listed(t) {
		if name == "PLAIN-TRUNC" {
			continue // doveadm makes it without the length that it demands itself
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for i, password := range passwords(name) {
				suffix := ""
				if isClear(name) || i%4 == 3 {
					suffix = ".b64"
				}
				stored, err := doveadm(t, "-s", name+suffix, "-p", password, "-u", user)
				if err != nil {
					t.Fatalf("doveadm pw -s %s -p %q: %v", name+suffix, password, err)
				}
				for try, want := range map[string]bool{password: true, wrong(password): false} {
					if got, err := scheme.Verify(stored, []byte(try), user); got != want || err != nil {
						t.Errorf("Verify(%q, %q) = %v, %v; want %v, nil", stored, try, got, err, want)
					}
				}
			}
		})
	}
}

// TestBrokenHashes: hashes that were cut off, or in which a character changed, get
// the same verdict.
func TestBrokenHashes(t *testing.T) {
	for _, name := range listed(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stored, err := scheme.HashWith(name, []byte("secret"), scheme.Options{User: user})
			if err != nil {
				t.Fatal(err)
			}
			head := strings.IndexByte(stored, '}') + 1
			value := stored[head:]
			broken := []string{value + "x", value + "=", value + " ", " " + value, strings.ToUpper(value), "x" + value, "$" + value, "!" + value}
			random := rand.New(rand.NewPCG(2, uint64(len(value))))
			for range 6 {
				at := random.IntN(len(value))
				broken = append(broken, value[:at], value[:at]+"A"+value[at+1:])
			}
			for _, b := range append(broken, value[:len(value)-1], value[:len(value)-1]+"0") {
				stored := stored[:head] + b
				got, err := scheme.Verify(stored, []byte("secret"), user)
				if want := verified(t, stored, "secret"); got != want {
					t.Errorf("Verify(%q) = %v, %v; doveadm says %v", stored, got, err, want)
				}
			}
		})
	}
}

// settings are crypt(3)'s, for every method that Debian's libcrypt has; S stands for
// a random character of a salt.
var settings = []string{
	"$y$j75$SSSS$", "$y$/75$SSSSSSSS$", "$y$j7500.$SSSS$", "$y$j750..$SSSS$", "$y$j85//$$", "$y$j1T$SSSS$", "$y$j75/.$SSSSSSS$",
	"$7$66..../....SSSSSSSS$", "$7$76....0....SSSSSSSSSSSSSSSSSSSSSS$",
	"$2a$04$SSSSSSSSSSSSSSSSSSSSSS", "$2b$04$SSSSSSSSSSSSSSSSSSSSSS", "$2x$04$SSSSSSSSSSSSSSSSSSSSSS", "$2y$04$SSSSSSSSSSSSSSSSSSSSSS",
	"$6$SSSSSSSSSSSSSSSS$", "$6$rounds=1000$SSSS$", "$6$$", "$5$SSSSSSSSSSSSSSSS$", "$5$rounds=1234$S$",
	"$sha1$100$SSSSSSSS$", "$md5$SSSSSSSS$", "$md5,rounds=9$SSSSSSSS$", "$md5,rounds=99$SSSS$x", "$1$SSSSSSSS$", "$1$$", "$3$",
	"_/...SSSS", "_J9..SSSS", "SS", "SSSSSSSSSSSSSSSSSSSSSSSS",
}

// libcrypt hashes passwords with settings: Perl's crypt is that of libcrypt, the
// same that Dovecot calls. A failure is an empty string.
func libcrypt(t *testing.T, passwords, settings []string) []string {
	var in bytes.Buffer
	for i := range passwords {
		fmt.Fprintf(&in, "%x %s\n", passwords[i], settings[i])
	}
	cmd := exec.Command("perl", "-ne", `/^(\S*) (.*)$/; print crypt(pack("H*", $1), $2), "\n"`)
	cmd.Stdin, cmd.Stderr = &in, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("perl is needed: %v", err)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
}

func TestWeTakeCryptsHashes(t *testing.T) {
	const letters = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	random := rand.New(rand.NewPCG(3, 0))
	for _, setting := range settings {
		t.Run(setting, func(t *testing.T) {
			all := passwords(setting)
			// Octets that the bug of $2x made alike.
			for i := 90; i < len(all); i++ {
				b := make([]byte, 1+random.IntN(20))
				for j := range b {
					b[j] = "\x80\xff\xa3A"[random.IntN(4)]
				}
				all[i] = string(b)
			}
			salted := make([]string, len(all))
			for i := range salted {
				b := []byte(setting)
				for j := range b {
					if b[j] == 'S' {
						b[j] = letters[random.IntN(len(letters))]
					}
				}
				salted[i] = string(b)
			}
			others := make([]string, len(all))
			for i := range others {
				others[i] = wrong(all[i])
			}
			hashes, otherHashes := libcrypt(t, all, salted), libcrypt(t, others, salted)
			for i, hash := range hashes {
				stored := "{CRYPT}" + hash
				if len(hash) < 13 { // libcrypt does not like it: neither may we
					if ok, err := scheme.Verify("{CRYPT}"+salted[i]+strings.Repeat(".", 43), []byte(all[i]), ""); ok || err == nil {
						t.Errorf("Verify with the setting %q = %v, %v", salted[i], ok, err)
					}
					continue
				}
				if got, err := scheme.Verify(stored, []byte(all[i]), ""); !got || err != nil {
					t.Errorf("Verify(%q, %q) = %v, %v; want true", stored, all[i], got, err)
				}
				if i < 3 && !verified(t, stored, all[i]) {
					t.Errorf("doveadm does not verify %q, %q", stored, all[i])
				}
				// A hash of $2x$ may stand for several passwords.
				want := hash == otherHashes[i]
				if got, err := scheme.Verify(stored, []byte(others[i]), ""); got != want || err != nil {
					t.Errorf("Verify(%q, %q) = %v, %v; want %v", stored, others[i], got, err, want)
				}
			}
		})
	}
}
