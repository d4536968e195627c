package maildir

import (
	"path"
	"strings"
	"testing"

	"dovepost/lmtp"
)

// What `doveadm mailbox path INBOX` of Dovecot 2.3.19 answers to these values of
// mail_location, for d@x.test; paths below the home and the doubled slash apart.
func TestLocationVariables(t *testing.T) {
	mb := &lmtp.Mailbox{User: "d@x.test", Home: "/home/x.test/d"}
	tests := []struct{ in, want string }{
		{"maildir:~/Maildir", "/home/x.test/d/Maildir"},
		{"maildir:/m/%d/%n", "/m/x.test/d"},
		{"Maildir:~/Maildir", "/home/x.test/d/Maildir"},
		{"maildir:/m/%Lu", "/m/d@x.test"},
		{"maildir:/m/%Ud", "/m/X.TEST"},
		{"maildir:/m/%1n/%n", "/m/d/d"},
		{"maildir:/m/%2.1u", "/m/x"},
		{"maildir:/m/%-2.1u", "/m/s"},
		{"maildir:/m/%-3.2d", "/m/es"},
		{"maildir:/m/%2.256Nu", "/m/05"},
		{"maildir:/m/%256Nu/%u", "/m/5/d@x.test"},
		{"maildir:/m/%0.100Nu/%u", "/m/4d/d@x.test"},
		{"maildir:/m/%Nu", "/m/59f78d05"},
		{"maildir:/m/%2.256Hu", "/m/24"},
		{"maildir:/m/%8.16Hu", "/m/00000004"},
		{"maildir:/m/%Hu", "/m/7b5aa24"},
		{"maildir:/m/%Mu", "/m/da2bb4a959f78d0592373f0d1ef3c547"},
		{"maildir:/m/%Ru", "/m/tset.x@d"},
		{"maildir:/m/%{user}/%{domain}/%{username}", "/m/d@x.test/x.test/d"},
		{"maildir:/m/%L{user}", "/m/d@x.test"},
		{"maildir:/m/%LUn", "/m/D"},
		{"maildir:%h/mail", "/home/x.test/d/mail"},
		{"maildir:/m/%05n", "/m/0000d"},
		{"maildir:/m/%0.03n", "/m/00d"},
		{"maildir:/m/%Dd", "/m/x,dc=test"},
		{"maildir:/m/%-3u", "/m/d@x"},
		{"maildir:/m/%.3u", "/m/d@x"},
		{"maildir:/m/%0.-3u", "/m/d@x.t"},
		{"maildir:/m/%Xn", "/m/0"},
		{"maildir:/m/%%/%n", "/m/%/d"},
		{"maildir:/m/%Ld/%1n/%n", "/m/x.test/d/d"},
		{"maildir:/m/%2.26Hn/%n", "/m/16/d"},
		{"maildir:/m/%{if;%d;eq;x.test;mine;others}/%n", "/m/mine/d"},
		{"maildir:/m/%{md5:user}", "/m/da2bb4a959f78d0592373f0d1ef3c547"},
		{"maildir:/m/a::b:INBOX=/i/%n", "/i/d"},
		{"maildir:mail/%n", "/home/x.test/d/mail/d"},
		{"maildir:/m//%n/", "/m/d"},
		{"maildir:~/", "/home/x.test/d"},
		{"maildir:~/M:LAYOUT=fs", "/home/x.test/d/M"},
	}
	for _, tt := range tests {
		l, err := location(tt.in, mb, true)
		if err != nil {
			t.Errorf("%s: %v", tt.in, err)
		} else if l.Inbox != tt.want {
			t.Errorf("%s: %s; want %s", tt.in, l.Inbox, tt.want)
		}
	}
}

// What the same settings are in Dovecot 2.4.
func TestModernVariables(t *testing.T) {
	mb := &lmtp.Mailbox{User: "D@x.test", Home: "/home/x.test/d"}
	for in, want := range map[string]string{
		"maildir:/m/%{user | domain}/%{user | username | lower}": "/m/x.test/d",
		"maildir:%{home}/mail":         "/home/x.test/d/mail",
		"maildir:/m/%{user|lower|md5}": "/m/da2bb4a959f78d0592373f0d1ef3c547",
	} {
		l, err := location(in, mb, true)
		if err != nil {
			t.Errorf("%s: %v", in, err)
		} else if l.Root != want {
			t.Errorf("%s: %s; want %s", in, l.Root, want)
		}
	}
}

// A colon in a name makes no option, and no driver.
func TestLocationOfOddNames(t *testing.T) {
	l, err := location("maildir:/m/%u:LAYOUT=fs", &lmtp.Mailbox{User: "d:LAYOUT=maildir++:INBOX=@x", Home: "/h"}, true)
	if want := "/m/d:LAYOUT=maildir++:INBOX=@x"; err != nil || l.Root != want || l.Inbox != want || l.Layout != FSLayout {
		t.Errorf("%+v, %v", l, err)
	}
}

func TestLocation(t *testing.T) {
	const home = "/home/x.test/d"
	tests := []struct {
		name, in string
		want     Location
	}{
		{"it handles the name that old guides print", "Maildir",
			Location{Root: home + "/Maildir", Inbox: home + "/Maildir", Control: home + "/Maildir", Subscriptions: "subscriptions"}},
		{"it handles home_mailbox of Postfix", "Maildir/",
			Location{Root: home + "/Maildir", Inbox: home + "/Maildir", Control: home + "/Maildir", Subscriptions: "subscriptions"}},
		{"it handles a bare absolute Maildir", "/srv/d/Maildir/",
			Location{Root: "/srv/d/Maildir", Inbox: "/srv/d/Maildir", Control: "/srv/d/Maildir", Subscriptions: "subscriptions"}},
		{"it handles all options", "maildir:/srv/d:INBOX=~/in:CONTROL=/c/d:INDEX=/i/%u:LAYOUT=fs:UTF-8:SUBSCRIPTIONS=subs",
			Location{Root: "/srv/d", Inbox: home + "/in", Control: "/c/d", Layout: FSLayout, UTF8: true, Subscriptions: "subs"}},
		{"it handles index places that are no paths", "maildir:/srv/d:INDEX=MEMORY:LAYOUT=maildir++",
			Location{Root: "/srv/d", Inbox: "/srv/d", Control: "/srv/d", Subscriptions: "subscriptions"}},
		{"it takes a percent sign of the userdb as it is", "maildir:/srv/%d/100%",
			Location{Root: "/srv/%d/100%", Inbox: "/srv/%d/100%", Control: "/srv/%d/100%", Subscriptions: "subscriptions"}},
	}
	for _, tt := range tests {
		got, err := location(tt.in, &lmtp.Mailbox{User: "d@x.test", Home: home + "/"}, false)
		if err != nil || *got != tt.want {
			t.Errorf("%s: location(%q) = %+v, %v; want %+v", tt.name, tt.in, got, err, tt.want)
		}
	}
}

func TestLocationRefused(t *testing.T) {
	const ok = "maildir:/srv/%d/%n"
	tests := []struct{ name, in, user, home string }{
		{"it refuses mbox", "mbox:~/mail", "d@x.test", "/home/d"},
		{"it refuses mdbox", "mdbox:~/mail", "d@x.test", "/home/d"},
		{"it refuses a bare mbox", "/var/mail/d", "d@x.test", "/home/d"},
		{"it refuses an empty location", "", "d@x.test", "/home/d"},
		{"it refuses an empty path", "maildir:", "d@x.test", "/home/d"},
		{"it refuses names that only Dovecot's index knows", "maildir:~/M:LAYOUT=index", "d@x.test", "/home/d"},
		{"it refuses DIRNAME", "maildir:~/M:LAYOUT=fs:DIRNAME=x", "d@x.test", "/home/d"},
		{"it refuses FULLDIRNAME", "maildir:~/M:LAYOUT=fs:FULLDIRNAME=x", "d@x.test", "/home/d"},
		{"it refuses another place of shared mailboxes", "maildir:~/M:ALT=/x", "d@x.test", "/home/d"},
		{"it refuses subscriptions elsewhere", "maildir:~/M:SUBSCRIPTIONS=../x", "d@x.test", "/home/d"},
		{"it refuses a file without a name", "maildir:~/M:SUBSCRIPTIONS=", "d@x.test", "/home/d"},
		{"it refuses sdbox", "sdbox:~/mail", "d@x.test", "/home/d"},
		{"it refuses a password in a path", "maildir:/m/%w", "d@x.test", "/home/d"},
		{"it refuses a slash that a hash has", "maildir:/m/%1u%1u", "..@x", "/home/d"},
		{"it refuses unknown options", "maildir:~/M:FOO=x", "d@x.test", "/home/d"},
		{"it refuses other homes", "maildir:~root/M", "d@x.test", "/home/d"},
		{"it refuses dots in the path", "maildir:~/../x", "d@x.test", "/home/d"},
		{"it refuses dots in INBOX", "maildir:~/M:INBOX=/i/./d", "d@x.test", "/home/d"},
		{"it refuses NUL", "maildir:~/M\x00", "d@x.test", "/home/d"},
		{"it refuses the root directory", "maildir:/", "d@x.test", "/home/d"},
		{"it refuses no home", "maildir:~/M", "d@x.test", ""},
		{"it refuses a relative home", "maildir:~/M", "d@x.test", "home/d"},
		{"it refuses a home that climbs", "maildir:~/M", "d@x.test", "/home/../etc"},
		{"it refuses NUL in the home", "maildir:~/M", "d@x.test", "/home/\x00d"},
		{"it refuses a home that is the root directory", "maildir:~/M", "d@x.test", "/"},
		{"it refuses a user that climbs", ok, "../../etc@x.test", "/home/d"},
		{"it refuses a user that is its parent", ok, "..@x.test", "/home/d"},
		{"it refuses a domain that is its parent", ok, "d@..", "/home/d"},
		{"it refuses a user without a name", ok, "@x.test", "/home/d"},
		{"it refuses a user without a domain", ok, "d", "/home/d"},
		{"it refuses a slash in a user", ok, "a/b@x.test", "/home/d"},
		{"it refuses a home that climbs, as a variable", "maildir:%h/M", "d@x.test", "/home/.."},
		{"it refuses unknown variables", "maildir:/m/%z", "d@x.test", "/home/d"},
		{"it refuses unknown long variables", "maildir:/m/%{foo}", "d@x.test", "/home/d"},
		{"it refuses an open brace", "maildir:/m/%{user", "d@x.test", "/home/d"},
		{"it refuses a percent sign at the end", "maildir:/m/%", "d@x.test", "/home/d"},
		{"it refuses huge widths", "maildir:/m/%099999999999u", "d@x.test", "/home/d"},
		{"it refuses long paths", "maildir:/m/" + strings.Repeat("x/", 3000), "d@x.test", "/home/d"},
	}
	for _, tt := range tests {
		if got, err := location(tt.in, &lmtp.Mailbox{User: tt.user, Home: tt.home}, true); err == nil {
			t.Errorf("%s: location(%q) of %q = %+v; want an error", tt.name, tt.in, tt.user, got)
		}
	}
	if err := CheckLocation("maildir:/srv/%d/%n:LAYOUT=fs"); err != nil {
		t.Error(err)
	}
	if CheckLocation("mbox:~/mail") == nil {
		t.Error("CheckLocation takes mbox")
	}
}

// Whatever the setting and the names are, the paths are absolute and clean, and a
// name cannot change the directories that the setting spells out.
func FuzzLocation(f *testing.F) {
	f.Add("maildir:/srv/%d/%n:CONTROL=/c/%2.256Nu/%Lu", "d@x.test", "/home/d", true)
	f.Add("maildir:~/Maildir:INBOX=~/in:LAYOUT=fs", "../..@..", "/home/../d", true)
	f.Add("Maildir", "a/b", "/", false)
	f.Add("maildir:%h/%-1.3{user}::x", "%u@%d", "/home/%u", true)
	f.Fuzz(func(t *testing.T, s, user, home string, variables bool) {
		l, err := location(s, &lmtp.Mailbox{User: user, Home: home}, variables)
		if err != nil {
			return
		}
		for _, p := range []string{l.Root, l.Inbox, l.Control} {
			if p != path.Clean(p) || p[0] != '/' || p == "/" || strings.Contains(p, "\x00") {
				t.Fatalf("location(%q) of %q, %q: %q", s, user, home, p)
			}
		}
		if got, err := location("maildir:/srv/a/%u/b", &lmtp.Mailbox{User: user, Home: home}, true); err == nil &&
			(path.Dir(path.Dir(got.Root)) != "/srv/a" || path.Base(got.Root) != "b") {
			t.Fatalf("user %q chose %q", user, got.Root)
		}
	})
}
