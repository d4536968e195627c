package scheme

import (
	"strings"
	"testing"
)

func TestWhole(t *testing.T) {
	long := strings.Repeat("p", 72)
	for _, tt := range []struct {
		name, scheme, password string
		want                   bool
	}{
		{"DES, which takes eight octets, and no more are there", "DES-CRYPT", "seventh", true},
		{"DES, and the user may have more elsewhere", "DES-CRYPT", "password", false},
		{"DES, with more than it looks at", "DES-CRYPT", "password and more", false},
		{"DES, which drops the eighth bit", "DES-CRYPT", "p\xe4ss", false},
		{"bcrypt", "BLF-CRYPT", long[1:], true},
		{"bcrypt, with more than it looks at", "BLF-CRYPT", long, false},
		{"bcrypt by the name of CRYPT", "CRYPT", long, false},
		{"a scheme that takes everything", "SHA512-CRYPT", long, true},
		{"a salted digest", "SSHA", long, true},
		{"a clear password that looks like bcrypt", "PLAIN", "$2" + long, true},
		{"PLAIN-TRUNC that is whole", "PLAIN-TRUNC", long, true},
	} {
		stored, err := Hash(tt.scheme, []byte(tt.password))
		if err != nil {
			t.Fatal(err)
		}
		if got := Whole(stored, []byte(tt.password)); got != tt.want {
			t.Errorf("it handles %s: %v, want %v", tt.name, got, tt.want)
		}
	}
	for stored, want := range map[string]bool{"{PLAIN-TRUNC}4-pass": false, "{PLAIN-TRUNC}5-pass": true, "{NOPE}pass": false, "{SHA256}x": false} {
		if got := Whole(stored, []byte("pass")); got != want {
			t.Errorf("Whole(%q) = %v, want %v", stored, got, want)
		}
	}
}
