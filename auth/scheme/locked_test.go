package scheme

import "testing"

func TestLocked(t *testing.T) {
	for stored, want := range map[string]bool{
		"{CRYPT}!": true, "{SHA512-CRYPT}!$6$salt$hash": true, "{sha256-crypt}*": true, "{MD5-CRYPT}!!": true, "{MD5}*LK*": true,
		"{BLF-CRYPT}": true, "{ARGON2ID}!$argon2id$": true, "{DES-CRYPT}*": true,
		"{SHA512-CRYPT}$6$salt$hash": false, "{PLAIN}!secret": false, "{PLAIN-MD5}!": false, "{NOPE}!": false, "!": false,
	} {
		if got := Locked(stored); got != want {
			t.Errorf("Locked(%q) = %v, want %v", stored, got, want)
		}
		// Whatever is locked, Verify refuses without an error.
		if ok, err := Verify(stored, []byte("secret"), "u"); want && (ok || err != nil) {
			t.Errorf("Verify(%q) = %v, %v; want false, nil", stored, ok, err)
		}
	}
}
