package daemon

import "testing"

func TestManual(t *testing.T) {
	got := Manual("// Xd does.\n//\n//\txd --y\n//\n// It ends.\npackage main\n\n//go:embed main.go\n")
	if want := "Xd does.\n\n\txd --y\n\nIt ends."; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
