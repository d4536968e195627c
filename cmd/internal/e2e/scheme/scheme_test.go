// Package scheme compares auth/scheme with Dovecot's own doveadm pw, both ways.
package scheme

import (
	"bytes"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"dovepost/auth/scheme"
)

const user = "test@example.com"

// doveadm runs doveadm pw and returns what it printed.
func doveadm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command("doveadm", append([]string{"pw"}, args...)...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		if _, ran := err.(*exec.ExitError); !ran {
			t.Fatalf("doveadm is needed: %v", err)
		}
		t.Logf("doveadm pw: %v: %s", err, stderr.String())
	}
	return strings.TrimSuffix(string(out), "\n"), err
}

// passwords returns ten passwords: short, long, beyond the block sizes of bcrypt
// and md5, 8-bit, and random ones. The seed is fixed, so failures come again.
func passwords(name string) []string {
	all := []string{"a", "12345678", "123456789", "pässwörd", "p\xe4ss\xff\x80", strings.Repeat("0123456789", 13)}
	random := rand.New(rand.NewPCG(1, uint64(len(name))))
	for len(all) < 10 {
		b := make([]byte, 1+random.IntN(100))
		for i := range b {
			b[i] = byte(1 + random.IntN(255))
		}
		all = append(all, string(b))
	}
	return all
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
	if got, want := scheme.Known(), listed(t); !slices.Equal(got, want) {
		t.Errorf("Known() = %q, want %q", got, want)
	}
}

func TestDoveadmTakesOurHashes(t *testing.T) {
	for _, name := range scheme.Known() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, password := range passwords(name) {
				stored, err := scheme.HashWith(name, []byte(password), scheme.Options{User: user})
				if err != nil {
					t.Fatalf("HashWith(%s, %q): %v", name, password, err)
				}
				if out, err := doveadm(t, "-t", stored, "-p", password, "-u", user); err != nil || !strings.Contains(out, "(verified)") {
					t.Errorf("doveadm pw -t %q -p %q: %q, %v", stored, password, out, err)
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
			for _, password := range passwords(name) {
				stored, err := doveadm(t, "-s", name, "-p", password, "-u", user)
				if err != nil {
					t.Fatalf("doveadm pw -s %s -p %q: %v", name, password, err)
				}
				if name == "PLAIN" || strings.HasPrefix(name, "CLEAR") {
					stored = "{" + name + "}" + password // its output ends where a line ends
				}
				for try, want := range map[string]bool{password: true, "!" + password: false} {
					if got, err := scheme.Verify(stored, []byte(try), user); got != want || err != nil {
						t.Errorf("Verify(%q, %q) = %v, %v; want %v, nil", stored, try, got, err, want)
					}
				}
			}
		})
	}
}

// Values that no doveadm makes but that may stand in a row: both must agree on
// whether the password is right.
func TestOddValues(t *testing.T) {
	for _, tt := range []struct{ name, stored, password string }{
		{"an empty password", "{PLAIN}", ""},
		{"an empty bcrypt password", "{BLF-CRYPT}$2y$04$32.zN38N2KYgZvg2o8LoeONjbAD5L95sMGolRhTObewfT53uULZEK", ""},
		{"an empty crypt value", "{CRYPT}", ""},
		{"a locked crypt value", "{CRYPT}*", "secret"},
		{"capitals and small letters in the scheme", "{Sha512-Crypt}$6$qniKPDWMhtrMQLOD$jtVgO7aU.0/d/NVQzULH5JdSuNJDISMzbCwspHntCtjbvmVLI2DZy0tgqYOp30ViV5GIBEauYiskG5LEKP.TF1", "secret"},
		{"another crypt under SHA512-CRYPT", "{SHA512-CRYPT}$1$0vgEzPVj$DBqSq2gkrl1lr.VcJvEVC.", "secret"},
		{"bcrypt under MD5-CRYPT", "{MD5-CRYPT}$2y$05$uay6wmhQm0FFJsvDnU1xpOQG5UwyteUPK8qr64OX5IgFCgqvWn.pi", "secret"},
		{"bcrypt of PHP", "{CRYPT}$2a$05$uay6wmhQm0FFJsvDnU1xpOQG5UwyteUPK8qr64OX5IgFCgqvWn.pi", "secret"},
		{"bcrypt of OpenBSD", "{CRYPT}$2b$05$uay6wmhQm0FFJsvDnU1xpOQG5UwyteUPK8qr64OX5IgFCgqvWn.pi", "secret"},
		{"md5-crypt under BLF-CRYPT", "{BLF-CRYPT}$1$0vgEzPVj$DBqSq2gkrl1lr.VcJvEVC.", "secret"},
		{"a digest under MD5-CRYPT", "{MD5-CRYPT}5ebe2294ecd0e0f08eab7690d2a6ee69", "secret"},
		{"a digest under MD5", "{MD5}5ebe2294ecd0e0f08eab7690d2a6ee69", "secret"},
		{"a salt of 17 characters", "{CRYPT}$6$12345678901234567$d2HCAnimIF5VMqUnwaZ/4JhNDJ.ttsjm0nbbmc9eE7xUYiw79GMvXUc5ZqG5BlqkXSbASZxrvR0QefAgdLbeH.", "secret"},
		{"a salt of 16 characters", "{CRYPT}$6$1234567890123456$d2HCAnimIF5VMqUnwaZ/4JhNDJ.ttsjm0nbbmc9eE7xUYiw79GMvXUc5ZqG5BlqkXSbASZxrvR0QefAgdLbeH.", "secret"},
		{"no salt", "{CRYPT}$6$$2M9DchxW4txWyTYoZrH9D3VvAAQxBpEezYsLY6Cao.jwzEXpyL9xwip9hiUZX7GqTqe/E/z6iKvZqXUuqniQH.", "secret"},
		{"999 rounds", "{CRYPT}$6$rounds=999$abc$MqEcPZUYRGGcOeq7PhMpfjfu/F0HrVEI0OlZBijWvO8mSG77iNUDP5MqFceKpJTBc8iITVtNyLiNTRNCxv6oh0", "secret"},
		{"argon2i under ARGON2ID", "{ARGON2ID}$argon2i$v=19$m=32768,t=4,p=1$PhKRDAiyHzX/BhnEshlkmQ$pf1kuTJrA9ZtN/uo12cESy8lXMIDNNIfYC7gU5uU9oI", "secret"},
		{"argon2 with two lanes", "{ARGON2ID}$argon2id$v=19$m=1024,t=2,p=2$c29tZXNhbHRzb21lc2FsdA$6b4UKew5+f7HHg6T4lQLh+TbmsNqTpKc5pdqC/I1cjI", "secret"},
		{"argon2 with a short salt and hash", "{ARGON2ID}$argon2id$v=19$m=1024,t=2,p=1$c29tZXNhbHQ$JfwpXLlxxjAvECQQk5f+Gw", "secret"},
		{"a long password of md5-crypt", "{MD5-CRYPT}$1$0vgEzPVj$DBqSq2gkrl1lr.VcJvEVC.", strings.Repeat("x", 600)},
		{"PLAIN-TRUNC, cut", "{PLAIN-TRUNC}3-sec", "secret"},
		{"PLAIN-TRUNC, not cut", "{PLAIN-TRUNC}9-sec", "secret"},
		{"DES, only eight octets count", "{DES-CRYPT}.fk9zytwqdBZQ", "secret"},
		{"hex by length", "{SSHA256}5ebe2294ecd0e0f08eab7690d2a6ee69", "secret"},
		{"base64 where hex is usual", "{PLAIN-MD5}Xr4ilOzQ4PCOq3aQ0qbuaQ==", "secret"},
		{"hex by suffix", "{LDAP-MD5.hex}5ebe2294ecd0e0f08eab7690d2a6ee69", "secret"},
		{"base64 by suffix", "{PLAIN-MD5.base64}Xr4ilOzQ4PCOq3aQ0qbuaQ==", "secret"},
		{"a suffix nobody knows", "{PLAIN-MD5.foo}Xr4ilOzQ4PCOq3aQ0qbuaQ==", "secret"},
		{"no padding", "{LDAP-MD5}Xr4ilOzQ4PCOq3aQ0qbuaQ", "secret"},
		{"blanks in base64", "{LDAP-MD5} Xr4ilOzQ4PC\tOq3aQ0qbuaQ== ", "secret"},
		{"no salt in SSHA", "{SSHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "secret"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := doveadm(t, "-t", tt.stored, "-p", tt.password, "-u", user)
			want := err == nil && strings.Contains(out, "(verified)")
			if got, err := scheme.Verify(tt.stored, []byte(tt.password), user); got != want {
				t.Errorf("Verify(%q) = %v, %v; doveadm says %v", tt.stored, got, err, want)
			}
		})
	}
}
