package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"dovepost/auth"
	"dovepost/auth/guard"
	"dovepost/auth/sasl"
	"dovepost/cmd/internal/daemon"
)

// mechanismSettings are the flags about SASL mechanisms.
type mechanismSettings struct {
	mechList    string
	realms      string
	anonymous   string
	fromCert    bool
	requireCert bool
	saltFile    string
	oauth2      string

	bearers     *bearers     // nil: without --oauth2
	saslOptions sasl.Options // what the settings above make, once for all listeners
}

func (s *mechanismSettings) mechanismFlags(fs *pflag.FlagSet) {
	fs.StringVar(&s.mechList, "auth_mechanisms", "plain login", "SASL `mechanisms`, in the order in which they are offered")
	fs.StringVar(&s.realms, "auth_realms", "", "`realms` that DIGEST-MD5 offers")
	fs.StringVar(&s.anonymous, "auth_anonymous_username", "anonymous", "`user` who ANONYMOUS is")
	daemon.BoolVar(fs, &s.fromCert, "auth_ssl_username_from_cert", false, "believe the user name of a verified client certificate")
	daemon.BoolVar(fs, &s.requireCert, "auth_ssl_require_client_cert", false, "refuse logins without a verified client certificate")
	fs.StringVar(&s.saltFile, "scram_salt_file", "", "secret `FILE` that keeps the salts that SCRAM makes up the same after a restart")
	fs.StringVar(&s.oauth2, "oauth2", "", "validate the tokens of XOAUTH2 and OAUTHBEARER as `FILE` says, a dovecot-oauth2.conf.ext")
}

// checkMechanisms makes what the mechanisms need.
func (s *mechanismSettings) checkMechanisms(names *guard.Names) error {
	hostname, err := os.Hostname()
	if err != nil {
		hostname = ""
	}
	s.saslOptions = sasl.Options{Hostname: hostname, Realms: strings.Fields(s.realms), Anonymous: s.anonymous,
		UsernameFromCert: s.fromCert, RequireCert: s.requireCert, SaltKey: sasl.NewSaltKey()}
	if s.saltFile != "" {
		if s.saslOptions.SaltKey, err = readSaltFile(s.saltFile); err != nil {
			return fmt.Errorf("scram_salt_file: %w", err)
		}
	}
	if s.oauth2 != "" {
		s.bearers = &bearers{names: names}
		s.saslOptions.Tokens = s.bearers
	}
	if _, err := s.mechanismsOf(""); err != nil {
		return fmt.Errorf("auth_mechanisms: %w", err)
	}
	return nil
}

// mechanismsOf returns the mechanisms of a listener: those of its own list, or of
// auth_mechanisms.
func (s *mechanismSettings) mechanismsOf(list string) ([]auth.Mechanism, error) {
	if list == "" {
		list = s.mechList
	}
	return sasl.New(list, s.saslOptions)
}

const minSaltFile, maxSaltFile = 16, 64 << 10

// readSaltFile makes a key of whatever the file holds.
func readSaltFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	secret, err := io.ReadAll(io.LimitReader(f, maxSaltFile))
	if err != nil {
		return nil, err
	}
	if len(secret) < minSaltFile {
		return nil, errors.New(path + ": less than 16 octets")
	}
	key := sha256.Sum256(secret)
	return key[:], nil
}
