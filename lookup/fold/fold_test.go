package fold

import (
	"slices"
	"strings"
	"testing"
)

// folding handles more than ASCII.
func TestFold(t *testing.T) {
	for key, want := range map[string]string{"ABC@X": "abc@x", "STRAẞE ß": "strasse ss", "ΑΣ": "ασ", "ς": "σ", "İ": "i̇", "ſ": "s", "K": "k", "Ꭰꭰᏸ": "ᎠᎠᏰ", "😀": "😀"} {
		if got := String(key); got != want {
			t.Errorf("%q: got %q, want %q", key, got, want)
		}
	}
}

// Folding is stable, keeps UTF-8 and @, and does not depend on the case of ASCII letters.
func FuzzFold(f *testing.F) {
	f.Add("Jörg@Müller.example")
	f.Add("ẞİŉﬁΣᎠ")
	f.Fuzz(func(t *testing.T, key string) {
		if !slices.Equal([]byte(key), []byte(strings.ToValidUTF8(key, ""))) {
			return
		}
		got := String(key)
		if again := String(got); again != got {
			t.Errorf("%q folds to %q, and that to %q", key, got, again)
		}
		if strings.Count(got, "@") != strings.Count(key, "@") || got != strings.ToValidUTF8(got, "") {
			t.Errorf("%q folds to %q", key, got)
		}
	})
}
