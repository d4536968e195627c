package session

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// The refusals of parameters, worded as Dovecot's LMTP words them.
var (
	errUnsupported = errors.New("555 5.5.4 Unsupported parameters")
	errBodyType    = errors.New("555 5.5.4 Unsupported mail BODY type")
)

func errSyntax(format string, args ...any) error {
	return fmt.Errorf("501 5.5.4 "+format, args...)
}

// eachParam calls f for each ESMTP parameter in s with its keyword in upper case.
// Every error is a reply line. RFC 5321 4.1.2.
func eachParam(verb, s string, f func(keyword, value string, hasValue bool) error) error {
	if s == "" {
		return nil
	}
	for param := range strings.SplitSeq(s, " ") {
		if param == "" {
			return errSyntax("Invalid %s parameter: Parameter is empty", verb)
		}
		keyword, value, hasValue := strings.Cut(param, "=")
		if !isKeyword(keyword) {
			return errSyntax("Invalid %s parameter: Unexpected character in parameter keyword", verb)
		}
		for i := 0; i < len(value); i++ {
			if value[i] <= ' ' || value[i] == '=' || value[i] == 0x7f {
				return errSyntax("Invalid %s parameter: Unexpected character in parameter value", verb)
			}
		}
		if err := f(strings.ToUpper(keyword), value, hasValue); err != nil {
			return err
		}
	}
	return nil
}

func isKeyword(s string) bool {
	for i := 0; i < len(s); i++ {
		if !isAlnum(s[i]) && (s[i] != '-' || i == 0) {
			return false
		}
	}
	return s != ""
}

// mailParams are the parameters of MAIL.
type mailParams struct {
	body string
	size int64 // -1: not given
	utf8 bool
}

// parseMailParams reads BODY, SIZE and SMTPUTF8. What is not announced is refused,
// since a client would rely on it.
func parseMailParams(s string) (mailParams, error) {
	p := mailParams{size: -1}
	err := eachParam("MAIL", s, func(keyword, value string, hasValue bool) error {
		switch keyword {
		case "BODY":
			return p.setBody(value, hasValue)
		case "SIZE":
			return p.setSize(value, hasValue)
		case "SMTPUTF8":
			if hasValue {
				return errSyntax("SMTPUTF8 has no parameter value")
			}
			p.utf8 = true
			return nil
		}
		return errUnsupported
	})
	return p, err
}

func (p *mailParams) setBody(value string, hasValue bool) error {
	switch {
	case p.body != "":
		return errSyntax("Duplicate BODY= parameter")
	case !hasValue:
		return errSyntax("Missing BODY= parameter value")
	}
	p.body = strings.ToUpper(value)
	if p.body != "7BIT" && p.body != "8BITMIME" {
		return errBodyType
	}
	return nil
}

func (p *mailParams) setSize(value string, hasValue bool) error {
	switch {
	case p.size >= 0:
		return errSyntax("Duplicate SIZE= parameter")
	case !hasValue:
		return errSyntax("Missing SIZE= parameter value")
	}
	size, err := parseSize(value)
	if err != nil {
		return errSyntax("Unsupported SIZE parameter value")
	}
	p.size = size
	return nil
}

// parseSize reads 1*20DIGIT: RFC 1870 4. What is beyond int64 is MaxInt64.
func parseSize(s string) (int64, error) {
	if s == "" || len(s) > 20 || strings.Trim(s, "0123456789") != "" {
		return 0, strconv.ErrSyntax
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return math.MaxInt64, nil
	}
	return n, nil
}

// parseRcptParams reads ORCPT, which is not announced and yet accepted, and
// returns the address in it; the null address when there is none, or none that
// can be used: a message is not refused for it.
func parseRcptParams(s string) (orcpt Address, err error) {
	seen := false
	err = eachParam("RCPT", s, func(keyword, value string, hasValue bool) error {
		switch {
		case keyword != "ORCPT":
			return errUnsupported
		case seen:
			return errSyntax("Duplicate ORCPT= parameter")
		case !hasValue:
			return errSyntax("Missing ORCPT= parameter value")
		}
		seen = true
		kind, text, ok := strings.Cut(value, ";")
		if !ok || !isDotString(kind) || strings.Contains(kind, ".") {
			return errSyntax("Invalid addr-type for ORCPT= parameter")
		}
		address, err := decodeXtext(text)
		if err != nil {
			return errSyntax("Invalid ORCPT= parameter: %v", err)
		}
		for i := 0; i < len(address); i++ {
			if address[i] < ' ' || address[i] >= 0x7f {
				return errSyntax("Invalid ORCPT= address value: Contains non-printable characters")
			}
		}
		if strings.EqualFold(kind, "rfc822") {
			if a, err := ParseAddress(address); err == nil {
				orcpt = a
			}
		}
		return nil
	})
	return orcpt, err
}

// decodeXtext undoes the encoding of RFC 3461 4.
func decodeXtext(s string) (string, error) {
	if s == "" {
		return "", syntaxError("Empty address value")
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '+' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", syntaxError("Invalid hexchar after '+' in xtext")
		}
		c, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", syntaxError("Invalid hexchar after '+' in xtext")
		}
		b.WriteByte(byte(c))
		i += 2
	}
	return b.String(), nil
}
