package maildir

import (
	"errors"
	"fmt"
	"strings"

	"dovepost/auth"
	"dovepost/auth/expand"
	"dovepost/lmtp"
)

// expandVariables replaces the variables in a mail location, those of Dovecot 2.3 or of 2.4. A
// value that is empty or that could change the directory is an error, and one with a colon
// makes no option: names of users come from the net.
func expandVariables(s string, mb *lmtp.Mailbox) (string, error) {
	if strings.IndexByte(s, '%') < 0 {
		return s, nil
	}
	if strings.ContainsAny(mb.User, "/\x00") {
		return "", fmt.Errorf("the name %q is no part of a path", mb.User)
	}
	t, err := expand.Parse(s, pathVariable)
	if err != nil {
		return "", err
	}
	return t.ExpandParts(expand.Values{
		Request: &auth.Request{User: mb.User, Login: mb.User, Service: "lmtp"}, Home: mb.Home,
	}, checkValue)
}

// pathVariable reads a variable that a path can have.
func pathVariable(s string) (*expand.Variable, int, error) {
	v, n, err := expand.ScanEither(s)
	if err == nil && v != nil && v.Secret() {
		err = errors.New("a password is no part of a path")
	}
	if err != nil {
		err = fmt.Errorf("variable: %w", err)
	}
	return v, n, err
}

func checkValue(value string) (string, error) {
	if value == "" || value == "." || value == ".." || strings.IndexByte(value, 0) >= 0 {
		return "", fmt.Errorf("the value %q of a variable does not fit a path", value)
	}
	return strings.ReplaceAll(value, ":", "::"), nil
}
