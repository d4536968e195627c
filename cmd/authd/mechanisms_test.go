package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"dovepost/cmd/internal/daemon/daemontest"
)

func TestMechanisms(t *testing.T) {
	salt := daemontest.WriteFile(t, "salt", strings.Repeat("s", 32))
	short := daemontest.WriteFile(t, "short", "s")
	oauth := daemontest.WriteFile(t, "oauth2.conf", "tokeninfo_url = http://127.0.0.1/t?t=\nscope = a b\n")
	bad := daemontest.WriteFile(t, "bad.conf", "client_secret = s3cret\nwhat = s3cret\n")
	for _, tt := range []struct {
		name, list string // of a listener
		args       []string
		want, err  string
	}{
		{"no list of its own", "", nil, "PLAIN LOGIN", ""},
		{"a list of its own", "scram-sha-256 plain", nil, "SCRAM-SHA-256 PLAIN", ""},
		{"certificates", "external", []string{"--auth_ssl_username_from_cert=yes"}, "EXTERNAL", ""},
		{"certificates whose names do not count", "external", nil, "", "auth_ssl_username_from_cert"},
		{"a file for salts", "", []string{"--scram_salt_file=" + salt}, "PLAIN LOGIN", ""},
		{"a short file for salts", "", []string{"--scram_salt_file=" + short}, "", "16 octets"},
		{"no file for salts", "", []string{"--scram_salt_file=" + filepath.Join(t.TempDir(), "x")}, "", "scram_salt_file"},
		{"tokens", "", []string{"--auth_mechanisms=xoauth2", "--oauth2=" + oauth}, "XOAUTH2", ""},
		{"tokens without a file", "", []string{"--auth_mechanisms=xoauth2"}, "", "--oauth2"},
		{"a file with a mistake", "", []string{"--oauth2=" + bad}, "", "line 2: what"},
	} {
		var s settings
		fs := pflag.NewFlagSet("authd", pflag.ContinueOnError)
		s.flags(fs)
		if err := fs.Parse(append(tt.args, "--mysql=f")); err != nil {
			t.Fatal(err)
		}
		_, err := s.check()
		if err == nil {
			_, err = s.readOAuth2()
		}
		var names []string
		if err == nil {
			list, e := s.mechanismsOf(tt.list)
			for _, m := range list {
				names = append(names, m.Name())
			}
			err = e
		}
		if strings.Join(names, " ") != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("it handles %s: %q, %v; want %q, %q", tt.name, names, err, tt.want, tt.err)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("it handles %s: the error says too much: %v", tt.name, err)
		}
	}
}
