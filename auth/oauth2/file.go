package oauth2

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// Settings are those of a dovecot-oauth2.conf.ext, with their names there.
type Settings struct {
	TokeninfoURL, IntrospectionURL string // tokeninfo_url, introspection_url
	Mode                           string // introspection_mode: auth, get, post or local
	ForceIntrospection             bool   // force_introspection: also where tokeninfo_url has said enough
	ClientID, ClientSecret         string // client_id, client_secret

	UsernameAttribute string   // username_attribute: the field that names the user
	UsernameFormat    string   // username_format (2.4: username_validation_format): how both names are compared
	ActiveAttribute   string   // active_attribute
	ActiveValue       string   // active_value: what that field has to say
	Scope             []string // scope: all of them are needed
	Issuers           []string // issuers: one of them is needed

	Keys      string // local_validation_key_dict: the directory
	OpenID    string // openid_configuration_url
	UserAgent string

	Timeout        time.Duration // timeout_msecs
	MaxIdle        time.Duration // max_idle_time_msecs
	MaxConnections int           // max_parallel_connections
	AuthHeaders    bool          // send_auth_headers: tell the server who asks, from where

	CAFile, CADir, CertFile, KeyFile string // tls_ca_cert_file, tls_ca_cert_dir, tls_cert_file, tls_key_file

	activeSet bool // the file names active_attribute
}

// maxTimeout leaves Postfix, which waits for 10 s, time for the database.
const maxTimeout = 6 * time.Second

// defaults are Dovecot 2.3's, except that a server may not take forever.
func defaults() *Settings {
	return &Settings{UsernameAttribute: "email", UsernameFormat: "%Lu", ActiveAttribute: "active", ActiveValue: "true",
		Timeout: 5 * time.Second, MaxIdle: time.Minute, MaxConnections: 10, UserAgent: "dovepost"}
}

// ReadFile reads a dovecot-oauth2.conf.ext of Dovecot 2.3 as it stands; the names
// may have 2.4's prefix oauth2_. The file may hold client_secret: only its owner
// should be able to read it. Errors: of the file, a setting that is not known or
// not served, and what cannot work together. None of them holds a value.
func ReadFile(path string) (*Settings, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s, err := read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

const maxFile = 1 << 20

// read reads name = value lines; # begins a comment line.
func read(r io.Reader) (*Settings, error) {
	s := defaults()
	lines := bufio.NewScanner(io.LimitReader(r, maxFile))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			return nil, fmt.Errorf("line %d: not name = value", n)
		}
		name = strings.TrimPrefix(strings.TrimSpace(name), "oauth2_")
		if err := s.set(name, unquote(strings.TrimSpace(value))); err != nil {
			return nil, fmt.Errorf("line %d: %s: %w", n, name, err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	return s, s.check()
}

func unquote(value string) string {
	if len(value) >= 2 && (value[0] == '"' || value[0] == '\'') && value[len(value)-1] == value[0] {
		return value[1 : len(value)-1]
	}
	return value
}

var errNotServed = errors.New("is not served; leave it out")

func (s *Settings) set(name, value string) (err error) {
	texts := map[string]*string{
		"tokeninfo_url": &s.TokeninfoURL, "introspection_url": &s.IntrospectionURL, "introspection_mode": &s.Mode,
		"client_id": &s.ClientID, "client_secret": &s.ClientSecret, "username_attribute": &s.UsernameAttribute,
		"username_format": &s.UsernameFormat, "username_validation_format": &s.UsernameFormat, "active_value": &s.ActiveValue,
		"openid_configuration_url": &s.OpenID, "tls_ca_cert_file": &s.CAFile, "tls_ca_cert_dir": &s.CADir,
		"tls_cert_file": &s.CertFile, "tls_key_file": &s.KeyFile,
	}
	if to, ok := texts[name]; ok {
		*to = value
		return nil
	}
	switch name {
	case "active_attribute":
		s.ActiveAttribute, s.activeSet = value, value != ""
	case "scope":
		s.Scope = strings.Fields(value)
	case "issuers":
		s.Issuers = strings.Fields(value)
	case "local_validation_key_dict":
		s.Keys, err = keyDirectory(value)
	case "force_introspection":
		s.ForceIntrospection, err = parseBool(value)
	case "send_auth_headers":
		s.AuthHeaders, err = parseBool(value)
	case "timeout_msecs":
		err = parseMillis(&s.Timeout, value)
	case "max_idle_time_msecs":
		err = parseMillis(&s.MaxIdle, value)
	case "max_parallel_connections":
		if s.MaxConnections, err = strconv.Atoi(value); err == nil && s.MaxConnections < 1 {
			err = errors.New("less than 1")
		}
	case "max_pipelined_requests", "debug", "tls_cipher_suite", "rawlog_dir":
		// The first is 1 or makes no difference, the others would weaken something.
	case "grant_url", "pass_attrs":
		if value != "" {
			err = errNotServed
		}
	case "use_grant_password", "tls_allow_invalid_cert":
		on, e := parseBool(value)
		if err = e; err == nil && on {
			err = errNotServed
		}
	default:
		err = errors.New("unknown setting")
	}
	return err
}

// keyDirectory reads fs:posix:prefix=DIR/, or a directory alone.
func keyDirectory(value string) (string, error) {
	if rest, ok := strings.CutPrefix(value, "fs:posix:"); ok {
		value = ""
		for _, option := range strings.Split(rest, ":") {
			if dir, ok := strings.CutPrefix(option, "prefix="); ok {
				value = dir
			}
		}
	}
	if !strings.HasPrefix(value, "/") {
		return "", errors.New("want fs:posix:prefix=/DIRECTORY/")
	}
	return value, nil
}

func parseBool(value string) (bool, error) {
	switch strings.ToLower(value) {
	case "yes", "y", "true", "1":
		return true, nil
	case "no", "n", "false", "0", "":
		return false, nil
	}
	return false, errors.New("want yes or no")
}

// parseMillis reads milliseconds; 0 leaves the default.
func parseMillis(to *time.Duration, value string) error {
	n, err := strconv.ParseUint(value, 10, 31)
	if err != nil {
		return errors.New("want milliseconds")
	}
	if n > 0 {
		*to = time.Duration(n) * time.Millisecond
	}
	return nil
}

// check finds what cannot work.
func (s *Settings) check() error {
	s.Timeout = min(s.Timeout, maxTimeout)
	for _, u := range []struct{ name, url string }{{"tokeninfo_url", s.TokeninfoURL}, {"introspection_url", s.IntrospectionURL}, {"openid_configuration_url", s.OpenID}} {
		parsed, err := url.Parse(u.url)
		if u.url != "" && (err != nil || parsed.Scheme != "http" && parsed.Scheme != "https" || parsed.Host == "") {
			return fmt.Errorf("%s: not an http or https URL", u.name)
		}
	}
	if _, err := compileFormat(s.UsernameFormat); err != nil {
		return fmt.Errorf("username_format: %w", err)
	}
	if s.Mode == "" && s.IntrospectionURL == "" {
		s.Mode = "auth"
	}
	switch {
	case s.Mode != "auth" && s.Mode != "get" && s.Mode != "post" && s.Mode != "local":
		return errors.New("introspection_mode: want auth, get, post or local")
	case s.Mode == "local" && s.Keys == "":
		return errors.New("introspection_mode = local needs local_validation_key_dict")
	case s.Mode != "local" && s.Keys != "" && s.TokeninfoURL == "" && s.IntrospectionURL == "":
		return errors.New("local_validation_key_dict needs introspection_mode = local")
	case s.Mode != "local" && s.TokeninfoURL == "" && s.IntrospectionURL == "":
		return errors.New("one of tokeninfo_url, introspection_url and local_validation_key_dict is needed")
	case s.ForceIntrospection && s.Mode != "local" && s.IntrospectionURL == "":
		return errors.New("force_introspection needs introspection_url")
	case s.ActiveAttribute == "" && s.ActiveValue != "" && s.ActiveValue != "true":
		return errors.New("active_value needs active_attribute")
	case s.UsernameAttribute == "":
		return errors.New("username_attribute is empty")
	}
	return nil
}
