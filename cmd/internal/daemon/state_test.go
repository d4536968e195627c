package daemon

import "testing"

func TestStateFile(t *testing.T) {
	for _, tt := range []struct{ setting, directory, want string }{
		{"", "", ""},
		{"", "/var/lib/x", "/var/lib/x/cache"},
		{"", "/var/lib/x:/var/lib/y", "/var/lib/x/cache"},
		{"", "relative", ""},
		{"none", "/var/lib/x", ""},
		{"/tmp/c", "/var/lib/x", "/tmp/c"},
		{"/tmp/c", "", "/tmp/c"},
	} {
		t.Setenv("STATE_DIRECTORY", tt.directory)
		if got := StateFile(tt.setting, "cache"); got != tt.want {
			t.Errorf("%+v: got %q", tt, got)
		}
	}
}
