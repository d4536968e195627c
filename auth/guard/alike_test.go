package guard

import (
	"context"
	"testing"
	"time"

	"dovepost/auth"
	"dovepost/auth/scheme"
)

// A row whose hash is never computed costs what a wrong password costs, and does not
// make unknown users cheap after it.
func TestLockedCostsTheSame(t *testing.T) {
	hash, err := scheme.HashWith("BLF-CRYPT", []byte("secret"), scheme.Options{Rounds: 9})
	if err != nil {
		t.Fatal(err)
	}
	db := &passdb{}
	v := &Verifier{Passdb: db, Log: quiet}
	try := func(row string, known error) time.Duration {
		db.row, db.err = auth.Credentials{Password: row}, known
		start := busy(t)
		if _, err := v.VerifyPlain(context.Background(), &auth.Request{Login: "alice"}, []byte("wrong")); !auth.Refused(err) {
			t.Fatalf("%s: %v", row, err)
		}
		return busy(t) - start
	}
	try(hash, nil)
	wrong := min(try(hash, nil), try(hash, nil), try(hash, nil))
	for _, row := range []string{"{BLF-CRYPT}!", "{SHA512-CRYPT}*", "{SHA256}broken", "{NOSUCH}x"} {
		if took := try(row, nil); took < wrong/4 {
			t.Errorf("a row with %s takes %v, a wrong password %v", row, took, wrong)
		}
		if took := try("", auth.ErrUnknownUser); took < wrong/4 {
			t.Errorf("an unknown user after %s takes %v, a wrong password %v", row, took, wrong)
		}
	}
}
