package dovecot

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"dovepost/auth"
)

// askTimeout is for one question of a client without a time limit of its own.
const askTimeout = 30 * time.Second

// asker is the client's end of one connection, which serves one question at a time.
type asker struct {
	net.Conn
	r      *bufio.Reader
	modern bool // the server is Dovecot 2.4: it wants protocol=
	lastID uint32
}

// dial connects and greets. The handshake ends with the line that begins with last;
// until then each line is shown to see.
func dial(ctx context.Context, network, address, greeting, last string, see func(fields []string) error) (*asker, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	a := &asker{Conn: c, r: bufio.NewReaderSize(c, maxLine)}
	stop := a.until(ctx)
	defer stop()
	if err := a.greet(greeting, last, see); err != nil {
		c.Close()
		return nil, fmt.Errorf("handshake with %s: %w", address, err)
	}
	return a, nil
}

func (a *asker) greet(greeting, last string, see func(fields []string) error) error {
	if _, err := io.WriteString(a, greeting); err != nil {
		return err
	}
	for first := true; ; first = false {
		fields, err := a.line()
		if err != nil {
			return err
		}
		if first {
			minor, err := parseVersion(fields)
			if err != nil {
				return err
			}
			a.modern = minor >= modernMinor
		}
		if err := see(fields); err != nil {
			return err
		}
		if fields[0] == last {
			return nil
		}
	}
}

// until makes the end of ctx the end of all reads and writes.
func (a *asker) until(ctx context.Context) (stop func() bool) {
	if t, ok := ctx.Deadline(); ok {
		a.SetDeadline(t)
	} else {
		a.SetDeadline(time.Time{})
	}
	return context.AfterFunc(ctx, func() { a.SetDeadline(longAgo) })
}

func (a *asker) line() ([]string, error) {
	line, err := readLine(a.r)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	return splitLine(line), nil
}

// ask sends a question and returns the id under which the answers will come.
// params are its other fields, each behind a TAB.
func (a *asker) ask(word string, params []byte) (id uint32, err error) {
	a.lastID++
	line := append(appendCommand(nil, word, a.lastID), params...)
	if len(line) >= maxLine {
		return 0, errLineTooLong
	}
	_, err = a.Write(append(line, '\n'))
	return a.lastID, err
}

// answer returns the fields of the next line, which has to be for id: its word,
// and what follows the id.
func (a *asker) answer(id uint32) (word string, fields []string, err error) {
	fields, err = a.line()
	if err != nil {
		return "", nil, err
	}
	if len(fields) < 2 || fields[1] != strconv.FormatUint(uint64(id), 10) {
		return "", nil, fmt.Errorf("unexpected answer %.20q", fields[0])
	}
	return fields[0], fields[2:], nil
}

// appendParams appends what is known of a request.
func appendParams(dst []byte, r *auth.Request, modern bool) []byte {
	service := r.Service
	if service == "" {
		service = "doveadm"
	}
	if modern {
		dst = appendPair(dst, "protocol", service)
	} else {
		dst = appendPair(dst, "service", service)
	}
	switch {
	case r.TLS:
		dst = appendPair(dst, "secured", "tls")
	case r.Secured:
		dst = append(dst, "\tsecured"...)
	}
	if r.Session != "" {
		dst = appendPair(dst, "session", r.Session)
	}
	for _, a := range []struct {
		name string
		ip   netip.Addr
	}{{"lip", r.LocalIP}, {"rip", r.RemoteIP}, {"real_lip", r.RealLocalIP}, {"real_rip", r.RealRemoteIP}} {
		if a.ip.IsValid() {
			dst = appendPair(dst, a.name, a.ip.String())
		}
	}
	for _, p := range []struct {
		name string
		port uint16
	}{{"lport", r.LocalPort}, {"rport", r.RemotePort}} {
		if p.port != 0 {
			dst = appendPair(dst, p.name, strconv.Itoa(int(p.port)))
		}
	}
	return dst
}

// parseField is the inverse of appendField.
func parseField(s string) auth.Field {
	name, value, ok := strings.Cut(s, "=")
	return auth.Field{Name: name, Value: value, HasValue: ok}
}

// parseFields returns the fields of an answer; empty ones and those that were
// there before are left out.
func parseFields(list []string) (fields auth.Fields) {
	seen := map[string]bool{}
	for _, s := range list {
		f := parseField(s)
		if f.Name != "" && !seen[f.Name] {
			seen[f.Name] = true
			fields = append(fields, f)
		}
	}
	return fields
}

// failure is the error of a FAIL with these fields.
func failure(list []string) error {
	fields := parseFields(list)
	reason, _ := fields.Get("reason")
	code, _ := fields.Get("code")
	refusal := &auth.Refusal{Err: auth.ErrPasswordMismatch, Reason: reason}
	switch code {
	case "":
	case "user_disabled":
		refusal.Err = auth.ErrUserDisabled
	case "pass_expired":
		refusal.Err = auth.ErrPassExpired
	case "authz_fail":
		refusal.Err = auth.ErrAuthzFailed
	default:
		return fmt.Errorf("the auth server says code=%s %s", code, reason)
	}
	return refusal
}

// Client logs in at an auth-client socket, of authd or of Dovecot.
type Client struct {
	Network, Address string        // "unix" and a path, or "tcp" and host:port
	Timeout          time.Duration // of one login; 0 is 30 s
}

// AuthPlain logs in as r.Login, or as r.Authzid with its password. The row has
// the final name, and in Fields what the server said besides.
//
// Errors: a refusal (see auth.Refused), where an *auth.Refusal holds the text for
// the user; anything else is temporary. The server tells no unknown user from a
// wrong password: both are auth.ErrPasswordMismatch.
func (c *Client) AuthPlain(ctx context.Context, r *auth.Request, password []byte) (*auth.Credentials, error) {
	ctx, cancel := context.WithTimeout(ctx, orDefault(c.Timeout))
	defer cancel()
	plain := false
	a, err := dial(ctx, c.Network, c.Address, fmt.Sprintf("VERSION\t1\t2\nCPID\t%d\n", os.Getpid()), "DONE", func(fields []string) error {
		plain = plain || fields[0] == "MECH" && len(fields) > 1 && fields[1] == "PLAIN"
		return nil
	})
	if err != nil {
		return nil, err
	}
	defer a.Close()
	defer a.until(ctx)()
	if !plain {
		return nil, errors.New("the auth server does not offer PLAIN")
	}
	message := append([]byte(r.Authzid+"\x00"+r.Login+"\x00"), password...)
	params := append(appendParams([]byte("\tPLAIN"), r, a.modern), "\tresp="...)
	params = base64.StdEncoding.AppendEncode(params, message)
	id, err := a.ask("AUTH", params)
	if err != nil {
		return nil, err
	}
	word, fields, err := a.answer(id)
	switch {
	case err != nil:
		return nil, err
	case word == "FAIL":
		return nil, failure(fields)
	case word != "OK":
		return nil, fmt.Errorf("unexpected answer %.20q", word)
	}
	return parseCredentials(fields)
}

// parseCredentials makes a row, without a password, of the fields of an answer.
func parseCredentials(fields []string) (*auth.Credentials, error) {
	row := &auth.Credentials{Fields: parseFields(fields)}
	if row.User, _ = row.Fields.Get("user"); row.User == "" {
		return nil, errors.New("the auth server names no user")
	}
	return row, nil
}

func orDefault(timeout time.Duration) time.Duration {
	if timeout <= 0 {
		return askTimeout
	}
	return timeout
}
