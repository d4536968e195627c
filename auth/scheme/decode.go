package scheme

// Decode takes a stored value, "{SCHEME}hash", apart: the scheme's name, in upper
// case and without an encoding suffix, and the value without its hexadecimal or
// base64 form. The names of one format are one: CLEAR and CLEARTEXT are PLAIN,
// HMAC-MD5 is CRAM-MD5. Errors: ErrUnknownScheme, ErrMalformed.
func Decode(stored string) (name string, value []byte, err error) {
	s, enc, text, err := split(stored)
	if err != nil {
		return "", nil, err
	}
	if value, err = s.decode(enc, text); err != nil {
		return "", nil, err
	}
	switch name = s.name; name {
	case "CLEAR", "CLEARTEXT":
		name = "PLAIN"
	case "HMAC-MD5":
		name = "CRAM-MD5"
	}
	return name, value, nil
}
