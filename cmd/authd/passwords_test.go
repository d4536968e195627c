package main

import "testing"

// auth_verbose_passwords handles what Dovecot takes, as far as nobody's password gets
// into a log.
func TestVerbosePasswords(t *testing.T) {
	for setting, want := range map[string]int{"no": 0, "": 0, "sha1": 6, "sha1:6": 6, "sha1:1": 1,
		"plain": -1, "plain:3": -1, "yes": -1, "sha1:7": -1, "sha1:40": -1, "sha1:0": -1, "sha1:-1": -1, "sha1:": -1, "sha1:x": -1, "md5:6": -1} {
		s := passwordSettings{verbosePasswords: setting}
		err := s.checkPasswords()
		if got := s.verboseDigits; (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%q: got %d, %v; want %d", setting, got, err, want)
		}
	}
}

// a separator needs master users, and is one character.
func TestCheckMasters(t *testing.T) {
	for _, tt := range []struct {
		settings masterSettings
		ok       bool
	}{
		{masterSettings{}, true}, {masterSettings{separator: "*", masterFile: "x"}, true}, {masterSettings{masterQuery: "x"}, true},
		{masterSettings{separator: "*"}, false}, {masterSettings{separator: "**", masterFile: "x"}, false},
	} {
		if err := tt.settings.checkMasters(); (err == nil) != tt.ok {
			t.Errorf("%+v: %v", tt.settings, err)
		}
	}
}
