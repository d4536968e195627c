package oauth2

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"dovepost/auth"
)

// settings reads lines of a file.
func settings(t testing.TB, lines ...string) *Settings {
	t.Helper()
	s, err := read(strings.NewReader(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func validator(t testing.TB, lines ...string) *Validator {
	t.Helper()
	v, err := New(settings(t, lines...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.client.CloseIdleConnections)
	return v
}

// errTemporary stands for any error that proves nothing.
var errTemporary = errors.New("temporary")

func checkOutcome(t *testing.T, name string, err, want error) {
	t.Helper()
	switch {
	case want == nil && err == nil:
	case want == errTemporary && err != nil && !auth.Refused(err):
	case want != nil && want != errTemporary && errors.Is(err, want):
	default:
		t.Errorf("it handles %s: %v, want %v", name, err, want)
	}
	if err != nil && (strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "t0ken")) {
		t.Errorf("it handles %s: the error says too much: %v", name, err)
	}
}

// TestAnswers: what the server says, and what follows from it.
func TestAnswers(t *testing.T) {
	no := auth.ErrPasswordMismatch
	for _, tt := range []struct {
		name   string
		status int
		body   string
		more   string // settings
		err    error
	}{
		{"an active token", 200, `{"active":true,"email":"alice@example.com"}`, "", nil},
		{"other letters", 200, `{"active":true,"email":"Alice@Example.COM"}`, "", nil},
		{"other letters where they count", 200, `{"active":true,"email":"Alice@Example.COM"}`, "username_format = %u", no},
		{"a local part alone", 200, `{"active":true,"sub":"alice"}`, "username_attribute = sub\nusername_format = %Ln", nil},
		{"an inactive token", 200, `{"active":false}`, "", no},
		{"an inactive token that has a name", 200, `{"active":false,"email":"alice@example.com"}`, "", no},
		{"active as a word", 200, `{"active":"true","email":"alice@example.com"}`, "", nil},
		{"no active where nobody has asked for it", 200, `{"email":"alice@example.com"}`, "", nil},
		{"no active where the file asks for it", 200, `{"email":"alice@example.com"}`, "active_attribute = active", no},
		{"another attribute", 200, `{"state":"enabled","email":"alice@example.com"}`, "active_attribute = state\nactive_value = enabled", nil},
		{"another value of it", 200, `{"state":"gone","email":"alice@example.com"}`, "active_attribute = state\nactive_value = enabled", no},
		{"somebody else's token", 200, `{"active":true,"email":"bob@example.com"}`, "", no},
		{"a token of two users", 200, `{"active":true,"email":["alice@example.com","bob@example.com"]}`, "", no},
		{"a token without a name", 200, `{"active":true}`, "", errTemporary},
		{"a name in an object", 200, `{"active":true,"user":{"mail":"alice@example.com"}}`, "username_attribute = user_mail", nil},
		{"the scope", 200, `{"active":true,"email":"alice@example.com","scope":"openid imap"}`, "scope = imap", nil},
		{"no such scope", 200, `{"active":true,"email":"alice@example.com","scope":"openid imaps"}`, "scope = imap", auth.ErrUserDisabled},
		{"no scope", 200, `{"active":true,"email":"alice@example.com"}`, "scope = imap", auth.ErrUserDisabled},
		{"one of two scopes", 200, `{"active":true,"email":"alice@example.com","scope":"imap"}`, "scope = imap smtp", auth.ErrUserDisabled},
		{"scopes as a list", 200, `{"active":true,"email":"alice@example.com","scope":["smtp","imap"]}`, "scope = imap smtp", nil},
		{"an audience in the scope's place", 200, `{"active":true,"email":"alice@example.com","aud":"imap"}`, "scope = imap", nil},
		{"a token that has expired", 200, `{"active":true,"email":"alice@example.com","exp":1000}`, "", no},
		{"a token of the future", 200, `{"active":true,"email":"alice@example.com","nbf":99999999999}`, "", no},
		{"a time that is none", 200, `{"active":true,"email":"alice@example.com","exp":"soon"}`, "", no},
		{"another issuer", 200, `{"active":true,"email":"alice@example.com","iss":"https://b"}`, "issuers = https://a", no},
		{"the issuer", 200, `{"active":true,"email":"alice@example.com","iss":"https://a"}`, "issuers = https://c https://a", nil},
		{"another kind of token", 200, `{"active":true,"email":"alice@example.com","token_type":"mac"}`, "", no},
		{"an error of the server", 500, `{"active":true,"email":"alice@example.com"}`, "", errTemporary},
		{"too many requests", 429, ``, "", errTemporary},
		{"a client that is not known there", 401, `{"error":"invalid_client"}`, "", errTemporary},
		{"another page", 404, `not found`, "", errTemporary},
		{"a redirect", 302, ``, "", errTemporary},
		{"nothing", 200, ``, "", errTemporary},
		{"a list", 200, `[]`, "", errTemporary},
		{"null", 200, `null`, "", errTemporary},
		{"two objects", 200, `{"active":true,"email":"alice@example.com"}{}`, "", errTemporary},
		{"half an object", 200, `{"active":true,"email":"alice@example.com"`, "", errTemporary},
		{"a deep object", 200, strings.Repeat(`{"a":`, 50) + "1" + strings.Repeat("}", 50), "", errTemporary},
		{"a long answer", 200, `{"a":"` + strings.Repeat("x", maxAnswer) + `"}`, "", errTemporary},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if tt.status == 302 {
				w.Header().Set("Location", "/elsewhere")
			}
			w.WriteHeader(tt.status)
			io.WriteString(w, tt.body)
		}))
		v := validator(t, "introspection_mode = post", "introspection_url = "+server.URL+"/introspect", "client_id = c", "client_secret = s3cret", tt.more)
		checkOutcome(t, tt.name, v.Validate(t.Context(), &auth.Request{Service: "imap"}, "alice@example.com", "t0ken"), tt.err)
		server.Close()
	}
}

// TestRequests: what the server is asked, in each mode.
func TestRequests(t *testing.T) {
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked = append(asked, strings.TrimSpace(strings.Join([]string{r.Method, r.URL.RequestURI(), r.Header.Get("Authorization"), r.Header.Get("X-Dovecot-Auth-Remote"), string(body)}, " ")))
		if strings.HasPrefix(r.URL.Path, "/less") {
			io.WriteString(w, `{"active":"true"}`)
			return
		}
		if strings.Contains(r.URL.Path, "bad") {
			w.WriteHeader(http.StatusUnauthorized)
		}
		io.WriteString(w, `{"active":true,"email":"alice@example.com"}`)
	}))
	defer server.Close()
	withUser := strings.Replace(server.URL, "://", "://id:pw@", 1)
	for _, tt := range []struct {
		name, lines string
		want        []string
		err         error
	}{
		{"mode auth", "introspection_mode = auth\nintrospection_url = " + server.URL + "/i", []string{"GET /i Bearer t0ken+/="}, nil},
		{"mode auth, refused", "introspection_mode = auth\nintrospection_url = " + server.URL + "/bad", []string{"GET /bad Bearer t0ken+/="}, auth.ErrPasswordMismatch},
		{"mode get", "introspection_mode = get\nclient_id = c&d\nclient_secret = s3cret\nintrospection_url = " + server.URL + "/i?token=", []string{"GET /i?token=t0ken%2B%2F%3D&client_id=c%26d&client_secret=s3cret"}, nil},
		{"mode get, refused", "introspection_mode = get\nintrospection_url = " + server.URL + "/bad?token=", []string{"GET /bad?token=t0ken%2B%2F%3D&client_id=&client_secret="}, errTemporary},
		{"mode post", "introspection_mode = post\nclient_id = c\nclient_secret = s3cret\nintrospection_url = " + server.URL + "/i", []string{"POST /i   token=t0ken%2B%2F%3D&client_id=c&client_secret=s3cret"}, nil},
		{"mode post with a name for the server", "introspection_mode = post\nintrospection_url = " + withUser + "/i", []string{"POST /i Basic aWQ6cHc=  token=t0ken%2B%2F%3D&client_id=&client_secret="}, nil},
		{"who asks", "introspection_mode = auth\nsend_auth_headers = yes\nintrospection_url = " + server.URL + "/i", []string{"GET /i Bearer t0ken+/= 192.0.2.1:99"}, nil},
		{"tokeninfo", "tokeninfo_url = " + server.URL + "/t?access_token=", []string{"GET /t?access_token=t0ken%2B%2F%3D Bearer t0ken+/="}, nil},
		{"tokeninfo, refused", "tokeninfo_url = " + server.URL + "/bad?t=", []string{"GET /bad?t=t0ken%2B%2F%3D Bearer t0ken+/="}, auth.ErrPasswordMismatch},
		{"tokeninfo that says enough", "introspection_mode = auth\nintrospection_url = " + server.URL + "/i\ntokeninfo_url = " + server.URL + "/t?t=", []string{"GET /t?t=t0ken%2B%2F%3D Bearer t0ken+/="}, nil},
		{"tokeninfo that says too little", "introspection_mode = auth\nintrospection_url = " + server.URL + "/i\ntokeninfo_url = " + server.URL + "/less?t=", []string{"GET /less?t=t0ken%2B%2F%3D Bearer t0ken+/=", "GET /i Bearer t0ken+/="}, nil},
		{"force_introspection", "force_introspection = yes\nintrospection_mode = auth\nintrospection_url = " + server.URL + "/i\ntokeninfo_url = " + server.URL + "/t?t=", []string{"GET /t?t=t0ken%2B%2F%3D Bearer t0ken+/=", "GET /i Bearer t0ken+/="}, nil},
	} {
		asked = nil
		r := &auth.Request{Service: "imap", RemoteIP: netip.MustParseAddr("192.0.2.1"), RemotePort: 99}
		checkOutcome(t, tt.name, validator(t, tt.lines).Validate(t.Context(), r, "alice@example.com", "t0ken+/="), tt.err)
		if strings.Join(asked, "\n") != strings.Join(tt.want, "\n") {
			t.Errorf("it handles %s: asked %q, want %q", tt.name, asked, tt.want)
		}
	}
}

// TestAway: a server that is not there, or says nothing, is no reason to refuse.
func TestAway(t *testing.T) {
	done := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-done }))
	defer server.Close()
	defer close(done)
	mode := "introspection_mode = get\nclient_secret = s3cret\n"
	v := validator(t, mode+"timeout_msecs = 100\nintrospection_url = "+server.URL+"/i?t=")
	start := time.Now()
	checkOutcome(t, "a server that says nothing", v.Validate(t.Context(), &auth.Request{}, "alice", "t0ken"), errTemporary)
	if took := time.Since(start); took >= 5*time.Second { // the default
		t.Errorf("after %v", took)
	}
	closed := httptest.NewServer(nil)
	address, _ := url.Parse(closed.URL)
	closed.Close()
	v = validator(t, mode+"introspection_url = http://"+address.Host+"/i?t=")
	checkOutcome(t, "a server that is not there", v.Validate(t.Context(), &auth.Request{}, "alice", "t0ken"), errTemporary)
	v = validator(t, mode+"introspection_url = https://"+strings.TrimPrefix(server.URL, "http://")+"/i?t=")
	checkOutcome(t, "a server without TLS", v.Validate(t.Context(), &auth.Request{}, "alice", "t0ken"), errTemporary)
	checkOutcome(t, "no token", v.Validate(t.Context(), &auth.Request{}, "alice", ""), auth.ErrPasswordMismatch)
	checkOutcome(t, "a very long token", v.Validate(t.Context(), &auth.Request{}, "alice", strings.Repeat("x", MaxToken+1)), auth.ErrPasswordMismatch)
}

func TestReadFile(t *testing.T) {
	for _, tt := range []struct {
		name, lines, err string
	}{
		{"Dovecot's example", "tokeninfo_url = http://endpoint/oauth/tokeninfo?access_token=\nintrospection_url = http://endpoint/me\nintrospection_mode = auth\nusername_attribute = email\ntls_cipher_suite = HIGH:!SSLv2", ""},
		{"local validation", "introspection_mode = local\nlocal_validation_key_dict = fs:posix:prefix=/etc/dovecot/keys/", ""},
		{"2.4's names", "oauth2_introspection_mode = local\noauth2_local_validation_key_dict = /etc/dovecot/keys\noauth2_username_validation_format = %{user|username|lower}", ""},
		{"comments, blanks and quotes", "# a comment\n\n  introspection_mode=\"post\"\nintrospection_url = 'https://x/i'", ""},
		{"nobody to ask", "username_attribute = x", "one of"},
		{"an unknown mode", "introspection_mode = ask\nintrospection_url = http://x/", "introspection_mode"},
		{"no mode", "introspection_url = http://x/", "introspection_mode"},
		{"local without keys", "introspection_mode = local", "local_validation_key_dict"},
		{"keys without local", "local_validation_key_dict = /keys", "introspection_mode"},
		{"another dict", "introspection_mode = local\nlocal_validation_key_dict = redis:host=127.0.0.1", "local_validation_key_dict"},
		{"a URL that is none", "tokeninfo_url = ftp://x/", "tokeninfo_url"},
		{"an unknown setting", "tokeninfo_url = http://x/\nwhat = s3cret", "line 2: what"},
		{"a line without =", "what", "line 1"},
		{"the password grant", "tokeninfo_url = http://x/\ngrant_url = http://x/", "grant_url"},
		{"invalid certificates", "tokeninfo_url = https://x/\ntls_allow_invalid_cert = yes", "tls_allow_invalid_cert"},
		{"templates of fields", "tokeninfo_url = https://x/\npass_attrs = host=%{oauth2:host}", "pass_attrs"},
		{"a broken format", "tokeninfo_url = http://x/\nusername_format = %q", "username_format"},
		{"an empty format", "tokeninfo_url = http://x/\nusername_format =", "username_format"},
		{"force without anybody to ask", "tokeninfo_url = http://x/\nforce_introspection = yes", "force_introspection"},
	} {
		_, err := read(strings.NewReader(tt.lines))
		if (err == nil) != (tt.err == "") || err != nil && (!strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "s3cret")) {
			t.Errorf("it handles %s: %v, want %q", tt.name, err, tt.err)
		}
	}
	s := settings(t, "tokeninfo_url = http://x/", "timeout_msecs = 60000", "max_idle_time_msecs = 0")
	if s.Timeout != maxTimeout || s.MaxIdle != time.Minute {
		t.Errorf("timeouts %v, %v", s.Timeout, s.MaxIdle)
	}
}

func TestFormat(t *testing.T) {
	for _, tt := range []struct{ format, user, want string }{
		{"%Lu", "Alice@Example.com", "alice@example.com"},
		{"%u", "Alice@Example.com", "Alice@Example.com"},
		{"%n", "Alice@Example.com", "Alice"},
		{"%Ud-%%-%Ln", "Alice@Example.com", "EXAMPLE.COM-%-alice"},
		{"%{user}", "Alice", "Alice"},
		{"%{user | domain | upper}", "a@b", "B"},
		{"%{username|lower}", "A@b", "a"},
	} {
		f, err := compileFormat(tt.format)
		if err != nil || f.expand(tt.user) != tt.want {
			t.Errorf("%s of %s: %v, want %s", tt.format, tt.user, err, tt.want)
		}
	}
	for _, bad := range []string{"", "%", "%x", "%{user", "%{x}", "%{user|md5}", "%{}"} {
		if _, err := compileFormat(bad); err == nil {
			t.Errorf("%q has no error", bad)
		}
	}
}
