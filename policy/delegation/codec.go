// Package delegation serves Postfix's access policy delegation protocol, as
// written in SMTPD_POLICY_README and spoken by smtpd's check_policy_service.
//
// A request is lines of name=value that end in LF, and an empty line. The answer is
// action=..., and an empty line. Requests follow each other on one connection,
// which Postfix keeps for as long as it likes; it is never closed for being idle,
// since that costs Postfix a second. Connections are neither authenticated nor
// encrypted: bind to a unix socket or to loopback.
//
// Whatever fails in a decision is answered DUNNO. What is not the protocol ends the
// connection without an answer; Postfix then uses its own
// smtpd_policy_service_default_action, which should be DUNNO as well.
package delegation

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"

	"dovepost/policy"
)

// Bounds of a request. Postfix's longest values are addresses and certificate
// names of at most 2048 octets (line_length_limit), and it sends about 30 lines.
const (
	maxLine  = 8192
	maxLines = 200
)

// The errors of the codec. io.EOF alone means: no further request.
var (
	errTooLong  = errors.New("policy request: line too long")
	errTooMany  = errors.New("policy request: too many lines")
	errNoEquals = errors.New("policy request: line without =")
	errKind     = errors.New("policy request: not request=smtpd_access_policy")
	errNumber   = errors.New("policy request: not a number")
)

// readRequest reads one request. The buffer of r, of maxLine octets, bounds a
// line. Attributes that are not known are ignored, of one that comes twice the
// last counts. Errors: io.EOF before the first octet, io.ErrUnexpectedEOF after
// it, those above, and what r returns.
func readRequest(r *bufio.Reader) (*policy.Request, error) {
	var req policy.Request
	seen := false // request=smtpd_access_policy
	for n := 0; ; n++ {
		line, err := r.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, errTooLong
		case errors.Is(err, io.EOF) && (n > 0 || len(line) > 0):
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		}
		line = line[:len(line)-1]
		if len(line) == 0 {
			if !seen {
				return nil, errKind
			}
			return &req, nil
		}
		if n >= maxLines {
			return nil, errTooMany
		}
		name, value, ok := bytes.Cut(line, []byte("="))
		if !ok {
			return nil, errNoEquals
		}
		if string(name) == "request" {
			if seen = string(value) == "smtpd_access_policy"; !seen {
				return nil, errKind
			}
			continue
		}
		if err := set(&req, string(name), string(value)); err != nil {
			return nil, fmt.Errorf("%w: %s=%.40q", errNumber, name, value)
		}
	}
}

// set stores one attribute; the error is that of a number that is none.
func set(r *policy.Request, name, value string) error {
	if text := field(r, name); text != nil {
		*text = value
		return nil
	}
	var err error
	switch name {
	case "client_address":
		r.ClientAddress = parseAddress(value)
	case "server_address":
		r.ServerAddress = parseAddress(value)
	case "client_port":
		r.ClientPort, err = parsePort(value)
	case "server_port":
		r.ServerPort, err = parsePort(value)
	case "recipient_count":
		r.RecipientCount, err = parseNumber[int](value)
	case "encryption_keysize":
		r.EncryptionKeysize, err = parseNumber[int](value)
	case "size":
		r.Size, err = parseNumber[int64](value)
	}
	return err
}

// field returns where the text of an attribute belongs, or nil.
func field(r *policy.Request, name string) *string {
	switch name {
	case "protocol_state":
		return &r.State
	case "protocol_name":
		return &r.Protocol
	case "instance":
		return &r.Instance
	case "queue_id":
		return &r.QueueID
	case "policy_context":
		return &r.Context
	case "stress":
		return &r.Stress
	case "client_name":
		return &r.ClientName
	case "reverse_client_name":
		return &r.ReverseClientName
	case "helo_name":
		return &r.HeloName
	case "sender":
		return &r.Sender
	case "recipient":
		return &r.Recipient
	case "etrn_domain":
		return &r.ETRNDomain
	case "sasl_method":
		return &r.SASLMethod
	case "sasl_username":
		return &r.SASLUsername
	case "sasl_sender":
		return &r.SASLSender
	case "ccert_subject":
		return &r.CertSubject
	case "ccert_issuer":
		return &r.CertIssuer
	case "ccert_fingerprint":
		return &r.CertFingerprint
	case "ccert_pubkey_fingerprint":
		return &r.CertPubkeyFingerprint
	case "encryption_protocol":
		return &r.EncryptionProtocol
	case "encryption_cipher":
		return &r.EncryptionCipher
	case "compatibility_level":
		return &r.CompatibilityLevel
	case "mail_version":
		return &r.MailVersion
	case "tls_sni":
		return &r.TLSSNI
	}
	return nil
}

// parseAddress returns the zero Addr for what is no IP address: a client on a unix
// socket has none.
func parseAddress(value string) netip.Addr {
	addr, err := netip.ParseAddr(value)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap().WithZone("")
}

// parsePort takes an empty value, or the word that Postfix writes where it does
// not know the port, for 0.
func parsePort(value string) (uint16, error) {
	if value == "" || value == "unknown" {
		return 0, nil
	}
	n, err := strconv.ParseUint(value, 10, 16)
	return uint16(n), err
}

// parseNumber takes an empty value for 0. Negative numbers are errors.
func parseNumber[T int | int64](value string) (T, error) {
	if value == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(value, 10, 63)
	return T(n), err
}

// appendAction appends an answer. policy.Action.String sees to it that it is one
// line and never empty: Postfix takes an empty action for OK.
func appendAction(dst []byte, a policy.Action) []byte {
	dst = append(dst, "action="...)
	dst = append(dst, a.String()...)
	return append(dst, "\n\n"...)
}
