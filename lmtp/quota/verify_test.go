package quota

import (
	"errors"
	"os"
	"strings"
	"testing"

	"dovepost/lmtp"
)

// What maildirsize says is counted again before a message is refused for good: somebody may have deleted
// mail without telling it, or it was torn. What was counted just now is believed.
func TestRefusedOnProof(t *testing.T) {
	tests := []struct {
		name, file string
		has, size  int // octets
		fits       bool
	}{
		{"a sum that is too high", "10000S\n100 1\n9000 9\n", 100, 3000, true},
		{"lines that ran into each other", "10000S\n100 1\n90009 1\n", 100, 3000, true},
		{"too many messages", "10000S,10C\n100 1\n0 8\n0 1\n", 100, 3000, true},
		{"a sum that is right", "10000S\n100 1\n8900 1\n", 9000, 3000, false},
		{"a sum of a moment ago", "10000S\n9000 2\n", 100, 3000, false},
	}
	for _, tt := range tests {
		t.Run("it handles "+tt.name, func(t *testing.T) {
			limits, _, _ := strings.Cut(tt.file, "\n")
			s := newSite(t, &Root{Backend: Maildir}, "*:backend="+limits)
			if err := s.deliver("", tt.has); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(s.path(), []byte(tt.file), 0o666); err != nil {
				t.Fatal(err)
			}
			err := s.deliver("", tt.size)
			if tt.fits && err != nil || !tt.fits && !errors.Is(err, lmtp.ErrOverQuota) {
				t.Errorf("got %v; fits %v", err, tt.fits)
			}
			if tt.fits {
				s.check()
			}
		})
	}
}
