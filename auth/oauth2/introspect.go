package oauth2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"dovepost/auth"
)

// maxAnswer bounds what is read of a server's answer, in octets.
const maxAnswer = 256 << 10

// tokeninfo asks tokeninfo_url, to which the token is appended.
func (v *Validator) tokeninfo(ctx context.Context, r *auth.Request, token string) (fields, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, v.s.TokeninfoURL+url.QueryEscape(token), nil)
	if err != nil {
		return nil, errors.New("tokeninfo_url cannot be asked")
	}
	if v.s.Mode == "auth" && request.URL.User == nil {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	return v.ask(request, r, true)
}

// introspect asks introspection_url in the way of introspection_mode.
func (v *Validator) introspect(ctx context.Context, r *auth.Request, token string) (fields, error) {
	form := "token=" + url.QueryEscape(token)
	client := "&client_id=" + url.QueryEscape(v.s.ClientID) + "&client_secret=" + url.QueryEscape(v.s.ClientSecret)
	method, address, body := http.MethodGet, v.s.IntrospectionURL, ""
	switch v.s.Mode {
	case "get":
		address += url.QueryEscape(token) + client
	case "post":
		method, body = http.MethodPost, form+client
	}
	request, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(body))
	if err != nil {
		return nil, errors.New("introspection_url cannot be asked")
	}
	switch {
	case v.s.Mode == "post":
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	case v.s.Mode == "auth" && request.URL.User == nil:
		request.Header.Set("Authorization", "Bearer "+token)
	}
	return v.ask(request, r, v.s.Mode == "auth")
}

// ask sends a request and reads the answer. decides says that a status of RFC 6750
// 3.1 (400, 401, 403) is about the token, and not about us.
func (v *Validator) ask(request *http.Request, r *auth.Request, decides bool) (fields, error) {
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", v.s.UserAgent)
	if v.s.AuthHeaders {
		request.Header.Set("X-Dovecot-Auth-Service", r.Service)
		if r.LocalIP.IsValid() {
			request.Header.Set("X-Dovecot-Auth-Local", addrPort(r.LocalIP, r.LocalPort))
		}
		if r.RemoteIP.IsValid() {
			request.Header.Set("X-Dovecot-Auth-Remote", addrPort(r.RemoteIP, r.RemotePort))
		}
	}
	response, err := v.client.Do(request)
	if err != nil {
		// The URL that stands in the error may hold the token and the secret.
		var inURL *url.Error
		if errors.As(err, &inURL) {
			err = inURL.Err
		}
		return nil, fmt.Errorf("ask %s: %w", request.URL.Host, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch status := response.StatusCode; {
	case err != nil:
		return nil, fmt.Errorf("answer of %s: %w", request.URL.Host, err)
	case decides && (status == http.StatusBadRequest || status == http.StatusUnauthorized || status == http.StatusForbidden):
		return nil, refusal("the token server says " + response.Status)
	case status < 200 || status > 299:
		return nil, fmt.Errorf("answer of %s: %s", request.URL.Host, response.Status)
	case len(text) > maxAnswer:
		return nil, fmt.Errorf("answer of %s: more than %d octets", request.URL.Host, maxAnswer)
	}
	f, err := parseFields(text)
	if err != nil {
		return nil, fmt.Errorf("answer of %s: %w", request.URL.Host, err)
	}
	return f, nil
}
