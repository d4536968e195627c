package scheme

import (
	"errors"
	"testing"
)

func TestDecode(t *testing.T) {
	tests := []struct {
		name, stored string
		scheme       string
		value        string
		err          error
	}{
		{"a clear password", "{PLAIN}se}cret", "PLAIN", "se}cret", nil},
		{"other names of clear passwords", "{cleartext}secret", "PLAIN", "secret", nil},
		{"a clear password in base64", "{PLAIN.b64}c2VjcmV0", "PLAIN", "secret", nil},
		{"hexadecimal", "{DIGEST-MD5}30313233343536373839616263646566", "DIGEST-MD5", "0123456789abcdef", nil},
		{"base64 where hexadecimal is usual", "{DIGEST-MD5.b64}MDEyMzQ1Njc4OWFiY2RlZg==", "DIGEST-MD5", "0123456789abcdef", nil},
		{"the other name of CRAM-MD5", "{HMAC-MD5}3031323334353637383961626364656630313233343536373839616263646566", "CRAM-MD5", "0123456789abcdef0123456789abcdef", nil},
		{"SCRAM", "{SCRAM-SHA-256}4096,c2FsdA==,YQ==,Yg==", "SCRAM-SHA-256", "4096,c2FsdA==,YQ==,Yg==", nil},
		{"a wrong length", "{CRAM-MD5}3031", "", "", ErrMalformed},
		{"an unknown scheme", "{NOSUCH}x", "", "", ErrUnknownScheme},
		{"no scheme", "secret", "", "", ErrUnknownScheme},
	}
	for _, tt := range tests {
		scheme, value, err := Decode(tt.stored)
		if scheme != tt.scheme || string(value) != tt.value || !errors.Is(err, tt.err) {
			t.Errorf("it handles %s: Decode(%q) = %q, %q, %v; want %q, %q, %v", tt.name, tt.stored, scheme, value, err, tt.scheme, tt.value, tt.err)
		}
	}
}
