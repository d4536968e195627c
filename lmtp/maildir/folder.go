package maildir

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// inbox is the name of the mailbox that is always there.
const inbox = "INBOX"

// maxName bounds each directory name on disk, as the filesystem does, and maxPath all of them together,
// so that home, mailbox and message remain a path.
const (
	maxName = 255
	maxPath = 2048
)

// elements returns the directories from the root of the mailbox tree to the mailbox
// name, whose levels are separated by sep, '.' or '/'. The name is UTF-8 as it came
// with the message. An error means that no mailbox can have that name.
//
// No element is empty, "." or "..", contains a slash, a control character or NUL, or
// can be taken for one of the files and directories that belong to a mailbox.
func (l *Location) elements(name string, sep byte) ([]string, error) {
	if !utf8.ValidString(name) {
		return nil, errors.New("not UTF-8")
	}
	parts := strings.Split(name, string(sep))
	for i, part := range parts {
		if err := l.checkPart(part); err != nil {
			return nil, err
		}
		if !l.UTF8 {
			parts[i] = encodeMUTF7(part)
		}
	}
	if l.Layout == MaildirPP {
		parts = []string{"." + strings.Join(parts, ".")}
	}
	whole := 0
	for _, part := range parts {
		if whole += 1 + len(part); len(part) > maxName || whole > maxPath {
			return nil, errors.New("too long")
		}
	}
	if len(parts) > 64 {
		return nil, errors.New("too deep")
	}
	return parts, nil
}

func (l *Location) checkPart(part string) error {
	switch {
	case part == "":
		return errors.New("empty level")
	case part[0] == '~':
		return errors.New("begins with ~")
	case strings.IndexByte(part, '/') >= 0:
		return errors.New("slash in a level")
	}
	for _, r := range part {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return errors.New("control character")
		}
	}
	if l.Layout == MaildirPP {
		if strings.IndexByte(part, '.') >= 0 {
			return errors.New("dot in a level, which separates levels on disk")
		}
		return nil
	}
	// In LAYOUT=fs mailboxes stand beside the files of their parent.
	switch {
	case part[0] == '.', part == "cur", part == "new", part == "tmp",
		strings.HasPrefix(part, "dovecot"), strings.HasPrefix(part, "maildir"), strings.HasPrefix(part, "subscriptions"), part == l.Subscriptions, part == l.Subscriptions+".lock":
		return fmt.Errorf("%q is a name for something else", part)
	}
	return nil
}

// isInbox reports whether name means INBOX, in any case.
func isInbox(name string) bool { return strings.EqualFold(name, inbox) }

// mutf7 is the base64 of RFC 3501 5.1.3.
var mutf7 = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").WithPadding(base64.NoPadding)

// encodeMUTF7 writes valid UTF-8 as modified UTF-7, RFC 3501 5.1.3.
func encodeMUTF7(s string) string {
	var out strings.Builder
	for s != "" {
		n := strings.IndexFunc(s, func(r rune) bool { return r == '&' || r < ' ' || r > '~' })
		if n < 0 {
			n = len(s)
		}
		out.WriteString(s[:n])
		if s = s[n:]; s == "" {
			break
		}
		if s[0] == '&' {
			out.WriteString("&-")
			s = s[1:]
			continue
		}
		n = strings.IndexFunc(s, func(r rune) bool { return r >= ' ' && r <= '~' })
		if n < 0 {
			n = len(s)
		}
		var units []byte
		for _, u := range utf16.Encode([]rune(s[:n])) {
			units = append(units, byte(u>>8), byte(u))
		}
		out.WriteByte('&')
		out.WriteString(mutf7.EncodeToString(units))
		out.WriteByte('-')
		s = s[n:]
	}
	return out.String()
}

// decodeMUTF7 reads modified UTF-7; ok is false unless s is what encodeMUTF7 writes.
func decodeMUTF7(s string) (name string, ok bool) {
	var out strings.Builder
	for rest := s; ; {
		text, after, shift := strings.Cut(rest, "&")
		out.WriteString(text)
		if !shift {
			break
		}
		code, after, closed := strings.Cut(after, "-")
		if rest = after; !closed {
			return "", false
		}
		if code == "" {
			out.WriteByte('&')
			continue
		}
		octets, err := mutf7.DecodeString(code)
		if err != nil || len(octets)%2 != 0 {
			return "", false
		}
		units := make([]uint16, 0, len(octets)/2)
		for i := 0; i < len(octets); i += 2 {
			units = append(units, uint16(octets[i])<<8|uint16(octets[i+1]))
		}
		out.WriteString(string(utf16.Decode(units)))
	}
	name = out.String()
	return name, encodeMUTF7(name) == s
}
