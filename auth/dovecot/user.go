package dovecot

import (
	"fmt"
	"math"
	osuser "os/user"
	"strconv"
	"strings"

	"dovepost/auth"
)

// numbered returns u with uid and gid as numbers, which is all that Dovecot's
// services understand: its auth service resolves names, and so must we. An error is
// an internal failure.
func numbered(u *auth.User) (*auth.User, error) {
	uid, err := number("uid", u.UID, func(name string) (string, error) {
		account, err := osuser.Lookup(name)
		if err != nil {
			return "", err
		}
		return account.Uid, nil
	})
	if err != nil {
		return nil, fmt.Errorf("user %q: %w", u.Name, err)
	}
	gid, err := number("gid", u.GID, func(name string) (string, error) {
		group, err := osuser.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return group.Gid, nil
	})
	if err != nil {
		return nil, fmt.Errorf("user %q: %w", u.Name, err)
	}
	n := *u
	n.UID, n.GID = uid, gid
	return &n, nil
}

// number reads an id that may be empty, a decimal number, or a name to be resolved.
// The largest number is no id: it stands for "none".
func number(kind, value string, resolve func(name string) (string, error)) (string, error) {
	if value == "" {
		return "", nil
	}
	if strings.Trim(value, "0123456789") != "" {
		id, err := resolve(value)
		if err != nil {
			return "", fmt.Errorf("%s=%s: %w", kind, value, err)
		}
		value = id
	}
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil || n == math.MaxUint32 {
		return "", fmt.Errorf("%s=%s is no id", kind, value)
	}
	return strconv.FormatUint(n, 10), nil
}

// appendUser completes a USER line: the name and its fields, in the names of the
// asker's version. An error is an internal failure: a path that may lead out of
// the user's place is never handed to Dovecot.
func appendUser(dst []byte, u *auth.User, extra auth.Fields, modern bool) ([]byte, error) {
	if u.Name == "" {
		return nil, fmt.Errorf("a user without a name")
	}
	fields := make(auth.Fields, 0, 8+len(u.Fields)+len(extra))
	for _, f := range []struct{ name, value string }{{"uid", u.UID}, {"gid", u.GID}, {"home", u.Home}, {"mail", u.Mail}} {
		if f.value != "" {
			fields = append(fields, auth.Field{Name: f.name, Value: f.value, HasValue: true})
		}
	}
	fields = append(fields, u.Fields...)
	for _, f := range fields {
		if err := checkPath(f); err != nil {
			return nil, fmt.Errorf("user %q: %w", u.Name, err)
		}
	}
	if modern {
		fields = modernFields(fields)
	}
	dst = append(dst, '\t')
	dst = appendEscaped(dst, u.Name)
	for _, f := range append(fields, extra...) {
		dst = appendField(dst, f)
	}
	return append(dst, '\n'), nil
}

// pathFields are the userdb fields that hold paths. The value of the first kind
// may be a mail location: driver:path:KEY=path...
var pathFields = map[string]bool{
	"mail": true, "mail_location": true,
	"home": false, "chroot": false, "mail_home": false, "mail_chroot": false, "mail_path": false, "mail_inbox_path": false,
	"mail_index_path": false, "mail_control_path": false, "mail_alt_path": false, "mail_cache_path": false,
}

// checkPath refuses a path with an element "." or "..", or a NUL in it. One "." may
// stand between the chroot and the home of a user, as in /srv/x/./user.
func checkPath(f auth.Field) error {
	location, isPath := pathFields[f.Name]
	if !isPath {
		return nil
	}
	if strings.IndexByte(f.Value, 0) >= 0 {
		return fmt.Errorf("NUL in %s", f.Name)
	}
	value := f.Value
	if f.Name == "home" || f.Name == "mail_home" {
		value = strings.Replace(value, "/./", "/", 1)
	}
	separators := "/"
	if location {
		separators = "/:="
	}
	for e := range strings.FieldsFuncSeq(value, func(r rune) bool { return strings.ContainsRune(separators, r) }) {
		if e == "." || e == ".." {
			return fmt.Errorf("element %q in %s=%q", e, f.Name, f.Value)
		}
	}
	return nil
}

// modernFields translates the fields of Dovecot 2.3 to those of 2.4. It silently
// ignores the old names, and the user would be without a quota; name+= makes it
// panic, and plugin/name fails the lookup, so those are left out.
func modernFields(old auth.Fields) auth.Fields {
	fields := make(auth.Fields, 0, len(old)+3)
	add := func(name, value string) {
		if _, there := fields.Get(name); !there {
			fields = append(fields, auth.Field{Name: name, Value: value, HasValue: true})
		}
	}
	for _, f := range old {
		switch {
		case f.Name == "mail" || f.Name == "mail_location":
			modernMail(f.Value, add)
		case isQuotaRule(f.Name):
			modernQuota(f.Value, add)
		case strings.HasSuffix(f.Name, "+") || strings.HasPrefix(f.Name, "plugin/"):
		default:
			fields = append(fields, f)
		}
	}
	return fields
}

// modernMail translates a mail location. mail_inbox_path has to be said, because
// Debian's own configuration points it to /var/mail. Of a path alone Dovecot finds out,
// or has been told, what is there.
func modernMail(location string, add func(name, value string)) {
	driver, rest, ok := strings.Cut(location, ":")
	if !ok {
		if strings.HasPrefix(location, "/") || strings.HasPrefix(location, "~") {
			add("mail_path", location)
		}
		return
	}
	parts := strings.Split(rest, ":")
	inbox := ""
	if driver == "maildir" {
		inbox = parts[0]
	}
	add("mail_driver", driver)
	add("mail_path", parts[0])
	for _, part := range parts[1:] {
		key, value, _ := strings.Cut(part, "=")
		switch key {
		case "INBOX":
			inbox = value
		case "INDEX":
			add("mail_index_path", value)
		case "CONTROL":
			add("mail_control_path", value)
		case "VOLATILEDIR":
			add("mail_volatile_path", value)
		case "ALT":
			add("mail_alt_path", value)
		case "LAYOUT":
			add("mailbox_list_layout", value)
		case "DIRNAME":
			add("mailbox_directory_name", value)
		}
	}
	if inbox != "" {
		add("mail_inbox_path", inbox)
	}
}

// isQuotaRule: quota_rule, quota_rule2, quota_rule3 ...
func isQuotaRule(name string) bool {
	rest, ok := strings.CutPrefix(name, "quota_rule")
	return ok && strings.Trim(rest, "0123456789") == ""
}

// modernQuota translates a rule for all mailboxes: *:storage=1G:messages=100. A
// limit that cannot be read is left out, since 2.4 would refuse the user.
func modernQuota(rule string, add func(name, value string)) {
	limits, ok := strings.CutPrefix(rule, "*:")
	if !ok {
		return
	}
	for limit := range strings.SplitSeq(limits, ":") {
		key, value, _ := strings.Cut(limit, "=")
		switch key {
		case "bytes":
			if n, ok := size(value, 1); ok {
				add("quota_storage_size", strconv.FormatUint(n, 10)+"B")
			}
		case "storage":
			if n, ok := size(value, 1024); ok {
				add("quota_storage_size", strconv.FormatUint(n, 10)+"B")
			}
		case "messages":
			if n, ok := size(value, 1); ok {
				add("quota_message_count", strconv.FormatUint(n, 10))
			}
		case "ignore":
			add("quota_storage_size", "0B")
		}
	}
}

// size reads a number with an optional unit of Dovecot's quota rules; without one
// it counts in units of octets.
func size(s string, octets uint64) (uint64, bool) {
	digits := strings.TrimRight(s, "bBkKmMgGtTiI")
	unit := strings.ToUpper(s[len(digits):])
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return 0, false
	}
	if unit != "" {
		i := strings.IndexByte("BKMGT", unit[0])
		if i < 0 || len(unit) > 3 {
			return 0, false
		}
		octets = 1 << (10 * i)
	}
	if n > math.MaxInt64/octets {
		return 0, false
	}
	return n * octets, true
}
