package maildir

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"dovepost/lmtp"
)

// Location is where the mail of one user is, from a mail_location such as
// "maildir:~/Maildir:LAYOUT=fs:CONTROL=/var/lib/control/%u". All paths are
// absolute and without "." and "..".
type Location struct {
	Root    string // of the mailbox tree
	Inbox   string // Root, unless :INBOX= names another
	Control string // where maildirsize and subscriptions are: Root, unless :CONTROL= names another
	Layout  Layout
	UTF8    bool // names of mailboxes on disk are UTF-8, not modified UTF-7
	// Subscriptions is the file in Control that lists the subscribed mailboxes: "subscriptions", unless
	// :SUBSCRIPTIONS= names another.
	Subscriptions string
}

// Layout is how names of mailboxes become directories.
type Layout int

const (
	MaildirPP Layout = iota // "Work/2026" is Root/.Work.2026
	FSLayout                // "Work/2026" is Root/Work/2026
)

// CheckLocation reports what is wrong with a mail_location setting, for any user.
func CheckLocation(s string) error {
	_, err := location(s, &lmtp.Mailbox{User: "user@example.com", Home: "/home/user"}, true)
	return err
}

// location reads the mail_location s of the user mb, in the syntax of Dovecot 2.3. With
// variables it is the site's setting, and the variables of package expand are
// expanded. As in Dovecot, a location of the user's own has none.
//
// "Maildir" without a driver means maildir:~/Maildir; Dovecot finds that ambiguous,
// yet old guides print it. Everything that this package cannot store into is an error:
// other drivers, LAYOUT=index, DIRNAME= and its kin, unknown options.
func location(s string, mb *lmtp.Mailbox, variables bool) (*Location, error) {
	plain, err := s, error(nil)
	if variables {
		plain, err = expandVariables(s, mb)
	}
	var l *Location
	if err == nil {
		l, err = parseLocation(plain, mb.Home)
	}
	if err != nil {
		return nil, fmt.Errorf("mail location %q: %w", s, err)
	}
	return l, nil
}

func parseLocation(s, home string) (*Location, error) {
	args := splitLocation(s)
	switch driver, rest, ok := strings.Cut(args[0], "\x00"); {
	case !ok: // no driver
		if p := strings.TrimSuffix(args[0], "/"); p != "Maildir" && !strings.HasSuffix(p, "/Maildir") {
			return nil, errors.New("ambiguous: write maildir:PATH")
		}
	case !strings.EqualFold(driver, "maildir"):
		return nil, fmt.Errorf("driver %q is not supported, only maildir", driver)
	default:
		args[0] = rest
	}
	var l Location
	var err error
	if l.Root, err = homePath(args[0], home); err != nil {
		return nil, err
	}
	l.Inbox, l.Control, l.Subscriptions = l.Root, l.Root, subscriptions
	for _, arg := range args[1:] {
		key, value, _ := strings.Cut(arg, "=")
		switch key {
		case "INBOX":
			l.Inbox, err = homePath(value, home)
		case "CONTROL":
			l.Control, err = homePath(value, home)
		case "LAYOUT":
			switch value {
			case "maildir++":
				l.Layout = MaildirPP
			case "fs":
				l.Layout = FSLayout
			default:
				err = fmt.Errorf("LAYOUT=%s is not supported, only maildir++ and fs", value)
			}
		case "UTF-8":
			l.UTF8 = true
		case "SUBSCRIPTIONS":
			if l.Subscriptions = value; value == "" || strings.ContainsAny(value, "/\x00") {
				err = fmt.Errorf("SUBSCRIPTIONS=%s is not the name of a file", value)
			}
		case "INDEX", "INDEXPVT", "INDEXCACHE", "LISTINDEX", "ITERINDEX", "VOLATILEDIR", "NO-NOSELECT",
			"NO-FS-VALIDATION", "BROKENCHAR":
			// What Dovecot keeps for itself.
		default:
			err = fmt.Errorf("option %s is not supported", key)
		}
		if err != nil {
			return nil, err
		}
	}
	return &l, nil
}

// splitLocation splits at colons, "::" being a colon in a value. The first piece is
// "driver NUL path", or a bare path.
func splitLocation(s string) []string {
	var args []string
	var cur strings.Builder
	cur.Grow(len(s))
	driver := true
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] != ':':
			cur.WriteByte(s[i])
		case i+1 < len(s) && s[i+1] == ':' && !driver:
			cur.WriteByte(':')
			i++
		case driver:
			cur.WriteByte(0)
			driver = false
		default:
			args = append(args, cur.String())
			cur.Reset()
		}
	}
	return append(args, cur.String())
}

// homePath expands "~/" of a path in a mail location. A path that is not absolute is
// below the home, as for Dovecot, which works from there.
func homePath(p, home string) (string, error) {
	if p == "" {
		return "", errors.New("empty path")
	}
	if rest, ok := strings.CutPrefix(p, "~"); ok || p[0] != '/' {
		if ok && rest != "" && rest[0] != '/' {
			return "", errors.New("homes of other users (~user) are not supported")
		}
		if !ok {
			rest = p
		}
		dir, err := cleanPath(home)
		if err != nil {
			return "", fmt.Errorf("home %q: %w", home, err)
		}
		p = dir + "/" + rest
	}
	return cleanPath(p)
}

// cleanPath takes an absolute path, with slashes doubled or at its end. It refuses
// elements "." and "..", NUL, and the root itself.
func cleanPath(p string) (string, error) {
	if p == "" || p[0] != '/' {
		return "", errors.New("not an absolute path")
	}
	if strings.IndexByte(p, 0) >= 0 {
		return "", errors.New("NUL in path")
	}
	if len(p) >= 4096 {
		return "", errors.New("path too long")
	}
	for e := range strings.SplitSeq(p, "/") {
		if e == "." || e == ".." {
			return "", fmt.Errorf("%q in path", e)
		}
	}
	if p = path.Clean(p); p == "/" { // without ".." it does no more than to drop slashes
		return "", errors.New("the root directory is no place for mail")
	}
	return p, nil
}
