package mailbox

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"strings"
	"testing"
	"time"

	"dovepost/auth"
	"dovepost/auth/guard"
	"dovepost/lmtp"
	"dovepost/lookup/cache"
)

// table is a userdb with rows of one kind for each name.
type table struct {
	rows  map[string]*auth.User
	asked map[string]int
}

func (t *table) LookupUser(ctx context.Context, r *auth.Request) (*auth.User, error) {
	if t.asked != nil {
		t.asked[r.User]++
	}
	if r.Service != "lmtp" {
		return nil, fmt.Errorf("service %q", r.Service)
	}
	switch r.User {
	case "away@d":
		return nil, errors.New("no server answers")
	case "slow@d":
		<-ctx.Done()
		return nil, ctx.Err()
	}
	row, ok := t.rows[r.User]
	if !ok {
		return nil, auth.ErrUnknownUser
	}
	return row, nil
}

func (t *table) Users(context.Context, string) iter.Seq2[string, error] { return nil }

func field(name, value string) auth.Field {
	return auth.Field{Name: name, Value: value, HasValue: true}
}

func newUsers(t *testing.T, rows *table, mailHome string) *Users {
	t.Helper()
	names, err := guard.NewNames("", "", "", guard.DefaultUsernameFormat)
	if err != nil {
		t.Fatal(err)
	}
	db := Userdb{Userdb: guard.Lookup{Names: names, Userdb: rows}, UID: "70", GID: "80"}
	if mailHome != "" {
		if db.Homes, err = NewHomes(mailHome); err != nil {
			t.Fatal(err)
		}
	}
	u := &Users{Delimiter: "+-", Timeout: time.Minute}
	u.Use(cache.New(time.Minute, 1<<20).Map("users", db))
	return u
}

func TestResolveHandles(t *testing.T) {
	rows := &table{rows: map[string]*auth.User{
		"u@d":      {Name: "u@d", Home: "/home/u", Mail: "maildir:~/M", UID: "5000", GID: "5001"},
		"bare@d":   {Name: "bare@d"},
		"plus+u@d": {Name: "plus+u@d", Home: "/home/plus"},
		"+u@d2":    {Name: "+u@d2", Home: "/home/begins"},
		"quota@d": {Name: "quota@d", Home: "/h", Fields: auth.Fields{
			field("quota_rule", "*:storage=1G"), field("quota_rule2", "Trash:storage=+10M"), field("quota_rules", "no"), field("quota", "no")}},
		"modern@d":   {Name: "modern@d", Home: "/h", Fields: auth.Fields{field("quota_storage_size", "1024B"), field("quota_message_count", "7")}},
		"alias@d":    {Name: "real@d", Home: "/home/real"},
		"relative@d": {Name: "relative@d", Home: "home"},
		"climbs@d":   {Name: "climbs@d", Home: "/home/../etc"},
		"dot@d":      {Name: "dot@d", Home: "/home/x/."},
		"dots@d":     {Name: "dots@d", Home: "/home/./x/./y"},
		".@d":        {Name: ".@d", Home: "/home/./mail"},
		"chroot@d":   {Name: "chroot@d", Home: "/home/./x"},
		"settings@d": {Name: "settings@d", Home: "/home/s", Mail: "maildir:~/A", UID: "1", GID: "1", Fields: auth.Fields{
			field("mail_location", "maildir:~/B"), field("mail_home", "/home/t"), field("mail_uid", "5005"), field("mail_gid", "5006")}},
		"empty@d":     {Name: "empty@d", Home: "/home/s", Mail: "maildir:~/A", UID: "1", GID: "1", Fields: auth.Fields{field("mail_location", ""), field("mail_home", ""), field("mail_uid", ""), field("mail_gid", ""), field("chroot", "")}},
		"jail@d":      {Name: "jail@d", Home: "/vmail/x", Fields: auth.Fields{field("chroot", "/home")}},
		"mailjail@d":  {Name: "mailjail@d", Home: "/vmail/x", Fields: auth.Fields{field("mail_chroot", "/home")}},
		"mailhome@d":  {Name: "mailhome@d", Fields: auth.Fields{field("mail_home", "/home/t")}},
		"mailroot@d":  {Name: "mailroot@d", Home: "/h", Fields: auth.Fields{field("mail_uid", "0")}},
		"climber@d":   {Name: "climber@d", Fields: auth.Fields{field("mail_home", "/home/../t")}},
		"nul@d":       {Name: "nul@d", Home: "/home/\x00"},
		"a/b@d":       {Name: "a/b@d", Home: "/home/a/b"},
		"slash@d":     {Name: "a/b@d", Home: "/home/slash"},
		"@d":          {Name: "@d", Home: "/home/d/"},
		"o'brien@d":   {Name: "o'brien@d", Home: "/home/o'brien"},
		"root@d":      {Name: "root@d", Home: "/h", UID: "0"},
		"rootgroup@d": {Name: "rootgroup@d", Home: "/h", UID: "1", GID: "0"},
		"minus@d":     {Name: "minus@d", Home: "/h", UID: "4294967295"},
		"named@d":     {Name: "named@d", Home: "/h", UID: "daemon", GID: "daemon"},
		"noname@d":    {Name: "noname@d", Home: "/h", UID: "no such user"},
	}}
	temporary := errors.New("anything but unknown")
	for _, tt := range []struct {
		name, rcpt, mailHome string
		want                 *lmtp.Mailbox
		err                  error
	}{
		{"a user", "u@d", "", &lmtp.Mailbox{Rcpt: "u@d", User: "u@d", Home: "/home/u", Mail: "maildir:~/M", UID: 5000, GID: 5001}, nil},
		{"an extension", "u+x-y@d", "", &lmtp.Mailbox{Rcpt: "u+x-y@d", User: "u@d", Detail: "x-y", Home: "/home/u", Mail: "maildir:~/M", UID: 5000, GID: 5001}, nil},
		{"another delimiter", "u-x+y@d", "", &lmtp.Mailbox{Rcpt: "u-x+y@d", User: "u@d", Detail: "x+y", Home: "/home/u", Mail: "maildir:~/M", UID: 5000, GID: 5001}, nil},
		{"a name with a delimiter", "plus+u@d", "", &lmtp.Mailbox{Rcpt: "plus+u@d", User: "plus+u@d", Home: "/home/plus", UID: 70, GID: 80}, nil},
		{"a name that begins with a delimiter", "+u@d2", "", &lmtp.Mailbox{Rcpt: "+u@d2", User: "+u@d2", Home: "/home/begins", UID: 70, GID: 80}, nil},
		{"an extension of a name with a delimiter", "plus+u-x@d", "", nil, lmtp.ErrUnknownUser},
		{"an extension, the database away", "away+x@d", "", nil, temporary},
		{"capitals", "U@D", "", &lmtp.Mailbox{Rcpt: "U@D", User: "u@d", Home: "/home/u", Mail: "maildir:~/M", UID: 5000, GID: 5001}, nil},
		{"a row without anything", "bare@d", "", &lmtp.Mailbox{Rcpt: "bare@d", User: "bare@d", UID: 70, GID: 80}, nil},
		{"mail_home", "bare@d", "/mail/%d/%n", &lmtp.Mailbox{Rcpt: "bare@d", User: "bare@d", Home: "/mail/d/bare", UID: 70, GID: 80}, nil},
		{"quota rules", "quota@d", "", &lmtp.Mailbox{Rcpt: "quota@d", User: "quota@d", Home: "/h", UID: 70, GID: 80, Quota: []string{"*:storage=1G", "Trash:storage=+10M"}}, nil},
		{"what Dovecot 2.4 says of quota", "modern@d", "", &lmtp.Mailbox{Rcpt: "modern@d", User: "modern@d", Home: "/h", UID: 70, GID: 80, Quota: []string{"*:bytes=1024:messages=7"}}, nil},
		{"a row that renames", "alias@d", "", &lmtp.Mailbox{Rcpt: "alias@d", User: "real@d", Home: "/home/real", UID: 70, GID: 80}, nil},
		{"names of the machine", "named@d", "", &lmtp.Mailbox{Rcpt: "named@d", User: "named@d", Home: "/h", UID: 1, GID: 1}, nil},
		{"an unknown user", "nobody@d", "", nil, lmtp.ErrUnknownUser},
		{"a name that climbs", `"../../etc/x"@d`, "", nil, lmtp.ErrUnknownUser},
		{"a name with a percent sign", "%@d", "", nil, lmtp.ErrUnknownUser},
		{"only an extension", "+x@e", "", nil, lmtp.ErrUnknownUser},
		{"a database that is away", "away@d", "", nil, temporary},
		{"a database that does not answer", "slow@d", "", nil, temporary},
		{"a relative home", "relative@d", "", nil, temporary},
		{"a home that climbs", "climbs@d", "", nil, temporary},
		{"a home with a dot", "dot@d", "", nil, temporary},
		{"a home with two dots", "dots@d", "", nil, temporary},
		{"a home with a dot for a name", `"."@d`, "", nil, temporary},
		{"a home below a chroot", "chroot@d", "", &lmtp.Mailbox{Rcpt: "chroot@d", User: "chroot@d", Home: "/home/x", UID: 70, GID: 80}, nil},
		{"settings of Dovecot in a row", "settings@d", "/mail/%n", &lmtp.Mailbox{Rcpt: "settings@d", User: "settings@d", Home: "/home/t", Mail: "maildir:~/B", UID: 5005, GID: 5006}, nil},
		{"empty settings in a row", "empty@d", "", &lmtp.Mailbox{Rcpt: "empty@d", User: "empty@d", Home: "/home/s", Mail: "maildir:~/A", UID: 1, GID: 1}, nil},
		{"mail_home of a row", "mailhome@d", "/mail/%n", &lmtp.Mailbox{Rcpt: "mailhome@d", User: "mailhome@d", Home: "/home/t", UID: 70, GID: 80}, nil},
		{"a chroot", "jail@d", "", nil, temporary},
		{"mail_chroot", "mailjail@d", "", nil, temporary},
		{"mail_uid of root", "mailroot@d", "", nil, temporary},
		{"mail_home that climbs", "climber@d", "", nil, temporary},
		{"a home with NUL", "nul@d", "", nil, temporary},
		{"a name with a slash", "a/b@d", "", nil, temporary},
		{"a row that renames to a path", "slash@d", "", nil, temporary},
		{"a row without a local part", "+x@d", "", nil, temporary},
		{"a quote in a name", "o'brien@d", "", &lmtp.Mailbox{Rcpt: "o'brien@d", User: "o'brien@d", Home: "/home/o'brien", UID: 70, GID: 80}, nil},
		{"root", "root@d", "", nil, temporary},
		{"the group of root", "rootgroup@d", "", nil, temporary},
		{"uid -1", "minus@d", "", nil, temporary},
		{"a user whom the machine does not know", "noname@d", "", nil, temporary},
	} {
		u := newUsers(t, rows, tt.mailHome)
		if tt.rcpt == "slow@d" {
			u.Timeout = 50 * time.Millisecond
		}
		got, err := u.Resolve(context.Background(), tt.rcpt)
		if tt.err == temporary {
			if err == nil || errors.Is(err, lmtp.ErrUnknownUser) || errors.Is(err, auth.ErrUnknownUser) {
				t.Errorf("%s: Resolve(%q) = %+v, %v; want a temporary error", tt.name, tt.rcpt, got, err)
			}
			continue
		}
		if err != tt.err || err == nil && !equal(got, tt.want) {
			t.Errorf("%s: Resolve(%q) = %+v, %v; want %+v, %v", tt.name, tt.rcpt, got, err, tt.want, tt.err)
		}
	}
}

func equal(a, b *lmtp.Mailbox) bool {
	return len(a.Quota) == len(b.Quota) && reflect.DeepEqual(pack(a), pack(b)) && a.Rcpt == b.Rcpt && a.Detail == b.Detail
}

func TestResolveAsksOnce(t *testing.T) {
	rows := &table{rows: map[string]*auth.User{"u@d": {Name: "u@d", Home: "/h"}}, asked: map[string]int{}}
	u := newUsers(t, rows, "")
	for _, rcpt := range []string{"u@d", "u+a@d", "u+b@d", "gone@d", "gone@d", "away@d", "away@d"} {
		u.Resolve(context.Background(), rcpt)
	}
	want := map[string]int{"u@d": 1, "gone@d": 1, "away@d": 2} // an error is no answer
	if !reflect.DeepEqual(rows.asked, want) {
		t.Errorf("asked %v; want %v", rows.asked, want)
	}
}

// A cached row belongs to all who ask: none may change it.
func TestMailboxesShareNothing(t *testing.T) {
	values := []string{"u@d", "/h", "", "1", "1", "*:storage=1G"}
	a, _ := unpack(values)
	b, _ := unpack(values)
	a.Quota = append(a.Quota, "*:ignore")
	a.Home = "/other"
	if len(b.Quota) != 1 || b.Home != "/h" || len(values) != 6 {
		t.Errorf("b = %+v, values = %q", b, values)
	}
}

func TestHomesRefuse(t *testing.T) {
	for _, setting := range []string{"relative/%n", "/home/../%n", "/home/%x", "/home/%", ""} {
		if _, err := NewHomes(setting); err == nil {
			t.Errorf("NewHomes(%q): no error", setting)
		}
	}
	h, err := NewHomes("/home/%d/%n")
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"..@d", "a@..", ".@d", "a/b@d", "a", "@d", "a@", "a\x00@d"} {
		if got, err := h.of(user); err == nil {
			t.Errorf("home of %q = %q; want an error", user, got)
		}
	}
}

// Whatever a recipient is called, it has the home of a user in the userdb, or the
// one that mail_home makes below its fixed part.
func FuzzHome(f *testing.F) {
	for _, s := range []string{"u@d", "../x@d", "a/../b@d", "@", "a@b/../c", "..@.."} {
		f.Add(s)
	}
	h, err := NewHomes("/home/vmail/%d/%n")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, user string) {
		home, err := h.of(user)
		if err != nil {
			return
		}
		if parts := strings.Split(home, "/"); len(parts) != 5 || !strings.HasPrefix(home, "/home/vmail/") || checkHome(home) != nil {
			t.Fatalf("home of %q = %q", user, home)
		}
	})
}
