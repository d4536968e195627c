package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"dovepost/auth/dovecot"
)

func TestTokenSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	s := &tokenSettings{tokenSecret: path}
	if _, err := s.tokens(false); err != nil {
		t.Errorf("--check without the file: %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("--check made the file")
	}
	if _, err := s.tokens(true); err != nil {
		t.Fatal(err)
	}
	secret, err := os.ReadFile(path)
	info, statErr := os.Stat(path)
	if err != nil || statErr != nil || len(secret) != dovecot.TokenSecretSize || info.Mode() != 0o600 {
		t.Fatalf("the file: %d octets, %v, %v, %v", len(secret), info.Mode(), err, statErr)
	}
	if _, err := s.tokens(true); err != nil {
		t.Error(err)
	}
	if again, _ := os.ReadFile(path); !bytes.Equal(again, secret) {
		t.Error("the file is not kept")
	}
	os.WriteFile(path, []byte("short"), 0o600)
	if _, err := s.tokens(true); err == nil {
		t.Error("it handles a short secret")
	}
	if _, err := (&tokenSettings{tokenSecret: filepath.Join(path, "x")}).tokens(true); err == nil {
		t.Error("it handles a path that cannot be")
	}
	if _, err := (&tokenSettings{}).tokens(true); err != nil {
		t.Error(err)
	}
}
