package mailbox

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	osuser "os/user"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"dovepost/auth"
	"dovepost/auth/expand"
	"dovepost/lmtp"
	"dovepost/lmtp/session"
	"dovepost/lookup"
)

// Users finds the mailbox of a recipient: the rules for addresses, then the
// userdb. It is an lmtp.Resolver.
type Users struct {
	Delimiter string
	Timeout   time.Duration

	rows atomic.Pointer[lookup.Map]
}

// Use makes rows those that are asked: a Userdb, with a cache before it. SIGHUP exchanges them.
func (u *Users) Use(rows lookup.Map) { u.rows.Store(&rows) }

// Resolve implements lmtp.Resolver.
func (u *Users) Resolve(ctx context.Context, rcpt string) (*lmtp.Mailbox, error) {
	address, err := session.ParseAddress(rcpt)
	if err != nil {
		return nil, err
	}
	name, detail := address.Split(u.Delimiter)
	rows := *u.rows.Load()
	values, known, err := fresh(rows, name)
	if !known {
		ctx, cancel := context.WithTimeout(ctx, u.Timeout)
		defer cancel()
		values, err = rows.Lookup(ctx, name)
		if whole, _ := address.Split(""); errors.Is(err, lookup.ErrNotFound) && whole != name {
			// A delimiter may be a part of a name, and then Postfix has found the user by it.
			name, detail = whole, ""
			values, err = rows.Lookup(ctx, name)
		}
	}
	if errors.Is(err, lookup.ErrNotFound) {
		return nil, lmtp.ErrUnknownUser
	}
	if err != nil {
		return nil, fmt.Errorf("user %q: %w", name, err)
	}
	mb, err := unpack(values)
	if err != nil {
		return nil, fmt.Errorf("user %q: %w", name, err)
	}
	mb.Rcpt, mb.Detail = rcpt, detail
	return mb, nil
}

// fresh asks a cache whether it has the row of a user: in that case a time limit would take
// longer than the rest. A row that is not there is not known.
func fresh(rows lookup.Map, name string) (values []string, known bool, err error) {
	cache, ok := rows.(interface {
		Fresh(key []byte) (values []string, ok bool, err error)
	})
	if !ok {
		return nil, false, nil
	}
	values, ok, err = cache.Fresh([]byte(name))
	return values, ok && err == nil, err
}

// Userdb is an auth.Userdb as a table, so that it can be cached: the key is the name
// of a user, the answer a packed mailbox. What is wrong with a row is an error, and
// so temporary.
type Userdb struct {
	auth.Userdb
	Homes    *Homes // nil: no home but that of the row
	UID, GID string // where the row has none
	Rules    Numbered
}

// Lookup implements lookup.Map.
func (u Userdb) Lookup(ctx context.Context, name string) ([]string, error) {
	row, err := u.LookupUser(ctx, &auth.Request{Login: name, Service: "lmtp"})
	if errors.Is(err, auth.ErrUnknownUser) {
		return nil, lookup.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	// A query may have put either name into the home.
	if err := errors.Join(checkName(name), checkName(row.Name)); err != nil {
		return nil, err
	}
	mb, err := u.mailbox(row)
	if err != nil {
		return nil, err
	}
	return pack(mb), nil
}

// mailbox makes a mailbox of a userdb row.
func (u Userdb) mailbox(row *auth.User) (*lmtp.Mailbox, error) {
	place, err := placeOf(row)
	if err != nil {
		return nil, err
	}
	mb := &lmtp.Mailbox{User: row.Name, Home: place.Home}
	if mb.Mail, err = modernMail(place.Mail, row.Fields); err != nil {
		return nil, err
	}
	switch {
	case mb.Home != "":
		mb.Home, err = rowHome(mb.Home, row.Name)
	case u.Homes != nil:
		mb.Home, err = u.Homes.of(row.Name)
	}
	if err != nil {
		return nil, err
	}
	if mb.UID, err = id("uid", place.UID, u.UID, os.Geteuid()); err != nil {
		return nil, err
	}
	if mb.GID, err = id("gid", place.GID, u.GID, os.Getegid()); err != nil {
		return nil, err
	}
	if mb.Quota, err = quotaRules(row.Fields, u.Rules); err != nil {
		return nil, err
	}
	return mb, nil
}

// placeOf returns home, mail, uid and gid of a row. Dovecot takes each setting from a row that has a field
// of its name: mail_home, mail_location, mail_uid and mail_gid have the last word. With a chroot home
// and mail would be below it, which is an error here.
func placeOf(row *auth.User) (auth.User, error) {
	place := auth.User{Home: row.Home, Mail: row.Mail, UID: row.UID, GID: row.GID}
	for _, f := range row.Fields {
		switch {
		case f.Value == "":
		case f.Name == "mail_location":
			place.Mail = f.Value
		case f.Name == "mail_home":
			place.Home = f.Value
		case f.Name == "mail_uid":
			place.UID = f.Value
		case f.Name == "mail_gid":
			place.GID = f.Value
		case f.Name == "chroot" || f.Name == "mail_chroot":
			return place, fmt.Errorf("%s %q: a home below a chroot is not supported, only its whole path", f.Name, f.Value)
		}
	}
	return place, nil
}

// checkName refuses a name that, put into a path, leads to another user's place: what
// user_query has made of it cannot be told any more.
func checkName(name string) error {
	if name == "" || name[0] == '@' || strings.ContainsFunc(name, func(r rune) bool { return r == '/' || r < ' ' }) {
		return fmt.Errorf("the name %q is no part of a path", name)
	}
	return nil
}

// rowHome returns the home that a row gives. One "." may stand in it between a chroot and what
// is below, as in /srv/x/./user, unless it can have come of the name.
func rowHome(home, name string) (string, error) {
	if local, domain, _ := strings.Cut(name, "@"); local != "." && domain != "." {
		home = strings.Replace(home, "/./", "/", 1)
	}
	return home, checkHome(home)
}

// checkHome refuses a home that names no certain place.
func checkHome(home string) error {
	if !strings.HasPrefix(home, "/") || strings.IndexByte(home, 0) >= 0 {
		return fmt.Errorf("home %q is not an absolute path", home)
	}
	for element := range strings.SplitSeq(home, "/") {
		if element == "." || element == ".." {
			return fmt.Errorf("home %q has the element %q", home, element)
		}
	}
	return nil
}

// Homes is mail_home: where a user is at home whose row does not say.
type Homes struct{ path expand.Template }

// NewHomes reads the setting, a path with variables.
func NewHomes(setting string) (*Homes, error) {
	path, err := expand.Parse(setting, func(s string) (*expand.Variable, int, error) {
		v, n, err := expand.ScanEither(s)
		if err == nil && v != nil && v.Secret() {
			err = errors.New("a password is no part of a path")
		}
		return v, n, err
	})
	if err != nil {
		return nil, fmt.Errorf("mail_home = %s: %w", setting, err)
	}
	h := &Homes{path}
	if _, err := h.of("user@example.com"); err != nil {
		return nil, fmt.Errorf("mail_home = %s: %w", setting, err)
	}
	return h, nil
}

// of returns the home of user. A name that would change the shape of the path, by a
// slash or an empty part, has none.
func (h *Homes) of(user string) (string, error) {
	home, err := h.path.Expand(expand.Values{Request: &auth.Request{User: user, Login: user, Service: "lmtp"}})
	if err = errors.Join(err, checkName(user)); err != nil {
		return "", err
	}
	if strings.Contains(home+"/", "//") {
		return "", fmt.Errorf("the name %q makes no home", user)
	}
	return home, checkHome(home)
}

// id returns the number of a user or group: that of the row, else of the setting,
// else the daemon's own. Mail never belongs to root.
func id(kind, row, setting string, own int) (int, error) {
	value := row
	if value == "" {
		value = setting
	}
	if value == "" {
		if own == 0 {
			return 5000, nil
		}
		return -1, nil
	}
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil {
		if value, err = named(kind, value); err == nil {
			n, err = strconv.ParseUint(value, 10, 32)
		}
	}
	if err != nil {
		return 0, fmt.Errorf("%s %q: %w", kind, value, err)
	}
	if n == 0 || n == math.MaxUint32 {
		return 0, fmt.Errorf("%s %d cannot own mail", kind, n)
	}
	return int(n), nil
}

// named looks a user or group of the machine up.
func named(kind, name string) (string, error) {
	if kind == "gid" {
		group, err := osuser.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return group.Gid, nil
	}
	user, err := osuser.Lookup(name)
	if err != nil {
		return "", err
	}
	return user.Uid, nil
}

// pack writes a mailbox as the values of a table.
func pack(mb *lmtp.Mailbox) []string {
	return append([]string{mb.User, mb.Home, mb.Mail, strconv.Itoa(mb.UID), strconv.Itoa(mb.GID)}, mb.Quota...)
}

// unpack undoes pack. values stay the cache's.
func unpack(values []string) (*lmtp.Mailbox, error) {
	if len(values) < 5 {
		return nil, errors.New("incomplete row")
	}
	uid, err1 := strconv.Atoi(values[3])
	gid, err2 := strconv.Atoi(values[4])
	return &lmtp.Mailbox{
		User: values[0], Home: values[1], Mail: values[2], UID: uid, GID: gid, Quota: values[5:len(values):len(values)],
	}, errors.Join(err1, err2)
}
