package sasl

import (
	"encoding/base64"
	"strings"

	"dovepost/auth"
)

// scramHello is the client's first message. RFC 5802 section 7:
//
//	client-first-message      = gs2-header client-first-message-bare
//	client-first-message-bare = [reserved-mext ","] username "," nonce ["," extensions]
type scramHello struct {
	gs2
	bare  string
	user  string
	nonce string
}

func parseHello(message string) (h scramHello, err error) {
	if h.gs2, h.bare, err = parseGS2(message); err != nil {
		return h, err
	}
	name, rest, ok := strings.Cut(h.bare, ",")
	nonce, _, _ := strings.Cut(rest, ",")
	user, isName := strings.CutPrefix(name, "n=") // m= would be an extension that must be understood
	var isNonce bool
	h.nonce, isNonce = strings.CutPrefix(nonce, "r=")
	if !ok || !isName || !isNonce || !printable(h.nonce) || len(h.nonce) > scramMaxNonce {
		return scramHello{}, auth.ErrMalformed
	}
	if h.user, ok = unescapeName(user); !ok || h.user == "" {
		return scramHello{}, auth.ErrMalformed
	}
	return h, nil
}

// scramFinal is the client's last message:
//
//	client-final-message               = client-final-message-without-proof "," proof
//	client-final-message-without-proof = channel-binding "," nonce ["," extensions]
type scramFinal struct {
	withoutProof string
	binding      []byte // gs2-header, and the channel's data with flag p
	nonce        string
	proof        []byte
}

func parseFinal(message string) (f scramFinal, err error) {
	last := strings.LastIndexByte(message, ',')
	if last < 0 {
		return f, auth.ErrMalformed
	}
	f.withoutProof = message[:last]
	binding, rest, ok := strings.Cut(f.withoutProof, ",")
	nonce, _, _ := strings.Cut(rest, ",")
	binding, ok1 := strings.CutPrefix(binding, "c=")
	f.nonce, _ = strings.CutPrefix(nonce, "r=")
	proof, ok2 := strings.CutPrefix(message[last+1:], "p=")
	if !ok || !ok1 || !ok2 || f.nonce == nonce {
		return scramFinal{}, auth.ErrMalformed
	}
	var err1, err2 error
	f.binding, err1 = base64.StdEncoding.Strict().DecodeString(binding)
	f.proof, err2 = base64.StdEncoding.Strict().DecodeString(proof)
	if err1 != nil || err2 != nil {
		return scramFinal{}, auth.ErrMalformed
	}
	return f, nil
}

// gs2 is the header of RFC 5801:
//
//	gs2-header     = gs2-cbind-flag "," [ authzid ] ","
//	gs2-cbind-flag = ("p=" cb-name) / "n" / "y"
//	authzid        = "a=" saslname
type gs2 struct {
	header  string // as it came, with both commas
	flag    byte   // p, n or y
	binding string // cb-name
	authzid string
}

// parseGS2 takes the header off message.
func parseGS2(message string) (g gs2, rest string, err error) {
	flag, rest, ok1 := strings.Cut(message, ",")
	authzid, rest, ok2 := strings.Cut(rest, ",")
	if !ok1 || !ok2 {
		return gs2{}, "", auth.ErrMalformed
	}
	g.header = message[:len(message)-len(rest)]
	switch name, bound := strings.CutPrefix(flag, "p="); {
	case flag == "n" || flag == "y":
		g.flag = flag[0]
	case bound && isBindingName(name):
		g.flag, g.binding = 'p', name
	default:
		return gs2{}, "", auth.ErrMalformed
	}
	if authzid != "" {
		name, ok := strings.CutPrefix(authzid, "a=")
		if !ok {
			return gs2{}, "", auth.ErrMalformed
		}
		if g.authzid, ok = unescapeName(name); !ok || g.authzid == "" {
			return gs2{}, "", auth.ErrMalformed
		}
	}
	return g, rest, nil
}

// isBindingName: cb-name = 1*(ALPHA / DIGIT / "." / "-").
func isBindingName(s string) bool {
	return s != "" && len(s) <= 64 && !strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '.' || r == '-')
	})
}

// unescapeName reads a saslname, in which =2C is a comma and =3D an equals sign.
func unescapeName(s string) (string, bool) {
	var name strings.Builder
	for s != "" {
		before, after, found := strings.Cut(s, "=")
		name.WriteString(before)
		switch {
		case !found:
			return name.String(), true
		case strings.HasPrefix(after, "2C"):
			name.WriteByte(',')
		case strings.HasPrefix(after, "3D"):
			name.WriteByte('=')
		default:
			return "", false
		}
		s = after[2:]
	}
	return name.String(), true
}

// printable: %x21-2B / %x2D-7E, at least one.
func printable(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == ',' || r > '~' })
}
