package maildir

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestElements(t *testing.T) {
	pp, fs, raw := &Location{}, &Location{Layout: FSLayout}, &Location{UTF8: true}
	tests := []struct {
		name, in string
		l        *Location
		sep      byte
		want     []string // nil: no mailbox can be called so
	}{
		{"it handles a plain name", "Work", pp, '/', []string{".Work"}},
		{"it handles levels", "Work/2026", pp, '/', []string{".Work.2026"}},
		{"it handles levels with dots", "Work.2026", pp, '.', []string{".Work.2026"}},
		{"it handles levels in LAYOUT=fs", "Work/2026", fs, '/', []string{"Work", "2026"}},
		{"it handles dots in LAYOUT=fs", "v1.2", fs, '/', []string{"v1.2"}},
		{"it handles UTF-8 and &", "Work/Café & Co", pp, '/', []string{".Work.Caf&AOk- &- Co"}},
		{"it handles what needs surrogates", "a😀b", pp, '/', []string{".a&2D3eAA-b"}},
		{"it handles the option UTF-8", "Café & Co", raw, '/', []string{".Café & Co"}},
		{"it keeps tildes inside", "a~b", pp, '/', []string{".a~b"}},
		{"it refuses dots within a level", "Foo.Bar", pp, '/', nil},
		{"it refuses a slash within a level", "Foo/Bar", pp, '.', nil},
		{"it refuses parents", "../../x", pp, '/', nil},
		{"it refuses parents between dots", "...", pp, '.', nil},
		{"it refuses parents in LAYOUT=fs", "a/../../x", fs, '/', nil},
		{"it refuses an absolute name", "/etc", fs, '/', nil},
		{"it refuses empty levels", "a//b", pp, '/', nil},
		{"it refuses an empty name", "", pp, '/', nil},
		{"it refuses a level at the end", "a/", pp, '/', nil},
		{"it refuses homes", "~root/x", fs, '/', nil},
		{"it refuses NUL", "a\x00b", pp, '/', nil},
		{"it refuses line ends", "a\nb", pp, '/', nil},
		{"it refuses control characters of Unicode", "a\u0085b", pp, '/', nil},
		{"it refuses what is not UTF-8", "a\xffb", pp, '/', nil},
		{"it refuses directories of a mailbox", "a/new", fs, '/', nil},
		{"it refuses hidden directories in LAYOUT=fs", ".git", fs, '/', nil},
		{"it refuses names of Dovecot's files", "dovecot-uidlist", fs, '/', nil},
		{"it refuses the name of the quota file", "maildirsize", fs, '/', nil},
		{"it refuses the name of the subscriptions", "subscriptions", fs, '/', nil},
		{"it refuses what no directory can be called", strings.Repeat("x", 255), pp, '/', nil},
		{"it refuses what is too long on disk only", strings.Repeat("é", 100), pp, '/', nil},
		{"it refuses what makes no path any more", strings.Repeat(strings.Repeat("x", 200)+"/", 15) + "x", fs, '/', nil},
		{"it refuses a thousand levels", strings.Repeat("a/", 999) + "a", fs, '/', nil},
	}
	for _, tt := range tests {
		got, err := tt.l.elements(tt.in, tt.sep)
		if !slices.Equal(got, tt.want) || (err == nil) != (tt.want != nil) {
			t.Errorf("%s: elements(%q) = %q, %v; want %q", tt.name, tt.in, got, err, tt.want)
		}
	}
}

// No name leads out of the tree, and what is made of a name leads back to it.
func FuzzElements(f *testing.F) {
	f.Add("Work/2026", byte('/'), false, false)
	f.Add("../../etc/passwd", byte('/'), true, false)
	f.Add("Café & Co.x", byte('.'), false, true)
	f.Add("a/&-/~x", byte('/'), true, true)
	f.Fuzz(func(t *testing.T, name string, sep byte, fs, utf8 bool) {
		if sep != '/' {
			sep = '.'
		}
		l := &Location{UTF8: utf8}
		if fs {
			l.Layout = FSLayout
		}
		elements, err := l.elements(name, sep)
		if err != nil {
			return
		}
		var back []string
		for _, e := range elements {
			if e == "" || e == "." || e == ".." || strings.ContainsAny(e, "/\x00\n") || len(e) > 255 {
				t.Fatalf("elements(%q, %c) = %q", name, sep, elements)
			}
			if e == "cur" || e == "new" || e == "tmp" || e == "maildirsize" || e == "subscriptions" || strings.HasPrefix(e, "dovecot") {
				t.Fatalf("elements(%q, %c) = %q, which belongs to the mailbox", name, sep, elements)
			}
			n, ok := l.mailboxName(e, sep)
			if !ok {
				t.Fatalf("elements(%q, %c) = %q, which is no mailbox", name, sep, elements)
			}
			back = append(back, n)
		}
		if got := strings.Join(back, string(sep)); got != name {
			t.Fatalf("elements(%q, %c) = %q, which is %q", name, sep, elements, got)
		}
	})
}

// dirs lists the directories new below the home that hold a message, and how many.
func delivered(t *testing.T, home string) map[string]int {
	t.Helper()
	got, drafts := messages(t, home)
	if len(drafts) > 0 {
		t.Errorf("left %q", drafts)
	}
	n := map[string]int{}
	for _, m := range got {
		n[filepath.Dir(m)]++
	}
	return n
}

func TestDetail(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	tests := []struct {
		name, detail string
		mail         string // after maildir:
		d            *Deliverer
		want         string
	}{
		{"it saves to INBOX without the setting", "Work", "~/Maildir", &Deliverer{Autocreate: true}, "Maildir/new"},
		{"it makes the mailbox", "Work", "~/Maildir", &Deliverer{SaveToDetail: true, Autocreate: true}, "Maildir/.Work/new"},
		{"it saves to INBOX if it may not make it", "Work", "~/Maildir", &Deliverer{SaveToDetail: true}, "Maildir/new"},
		{"it uses the mailbox that is there", "There", "~/Maildir", &Deliverer{SaveToDetail: true}, "Maildir/.There/new"},
		{"it mends the mailbox that is there", "Broken", "~/Maildir", &Deliverer{SaveToDetail: true}, "Maildir/.Broken/new"},
		{"it separates levels by dots", "a.b", "~/Maildir", &Deliverer{SaveToDetail: true, Autocreate: true}, "Maildir/.a.b/new"},
		{"it separates levels as it is told", "a/b", "~/Maildir", &Deliverer{SaveToDetail: true, Autocreate: true, Separator: '/'}, "Maildir/.a.b/new"},
		{"it separates levels by slashes in LAYOUT=fs", "a/b", "~/Maildir:LAYOUT=fs", &Deliverer{SaveToDetail: true, Autocreate: true}, "Maildir/a/b/new"},
		{"it knows INBOX in any case", "inbox", "~/Maildir", &Deliverer{SaveToDetail: true, Autocreate: true}, "Maildir/new"},
		{"it drops the prefix", "INBOX.Work", "~/Maildir", &Deliverer{SaveToDetail: true, Autocreate: true, Prefix: "INBOX."}, "Maildir/.Work/new"},
		{"it does not need the prefix", "Work", "~/Maildir", &Deliverer{SaveToDetail: true, Autocreate: true, Prefix: "INBOX."}, "Maildir/.Work/new"},
		{"it saves to INBOX what climbs", "../../x", "~/Maildir:LAYOUT=fs", &Deliverer{SaveToDetail: true, Autocreate: true}, "Maildir/new"},
		{"it saves to INBOX where only a parent is", "parent", "~/Maildir:LAYOUT=fs", &Deliverer{SaveToDetail: true}, "Maildir/new"},
		{"it saves to INBOX where a file is", "file", "~/Maildir", &Deliverer{SaveToDetail: true, Autocreate: true}, "Maildir/new"},
		{"it saves to INBOX where a link is", "link", "~/Maildir", &Deliverer{SaveToDetail: true}, "Maildir/new"},
		{"it saves to INBOX where a link is in LAYOUT=fs", "parent/link/x", "~/Maildir:LAYOUT=fs", &Deliverer{SaveToDetail: true, Autocreate: true}, "Maildir/new"},
		{"it finds INBOX elsewhere", "", "~/Maildir:INBOX=~/in/box", &Deliverer{}, "in/box/new"},
		{"it finds mailboxes beside INBOX", "Work", "~/Maildir:INBOX=~/in/box", &Deliverer{SaveToDetail: true, Autocreate: true}, "Maildir/.Work/new"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mb := mailbox(t)
			mb.Mail = "maildir:" + tt.mail
			for _, dir := range []string{".There/cur", ".There/new", ".There/tmp", ".Broken/cur", "parent/x/cur"} {
				makeDirs(t, mb.Home, "Maildir/"+dir)
			}
			err := errors.Join(os.WriteFile(mb.Home+"/Maildir/.file", nil, 0o600),
				os.Symlink(".There", mb.Home+"/Maildir/.link"), os.Symlink("x", mb.Home+"/Maildir/parent/link"))
			if err != nil {
				t.Fatal(err)
			}
			mb.Detail = tt.detail
			tt.d.Log = quiet
			for range 2 {
				if err := deliver(tt.d, mb, "Subject: x\n\n"); err != nil {
					t.Fatal(err)
				}
			}
			if got := delivered(t, mb.Home); len(got) != 1 || got[tt.want] != 2 {
				t.Errorf("delivered to %v; want 2 in %s", got, tt.want)
			}
			if _, err := os.Stat(mb.Home + "/Maildir/.Work/maildirfolder"); err != nil && tt.want == "Maildir/.Work/new" {
				t.Error(err)
			}
		})
	}
}

// makeDirs makes the directories of rel below home, which belong to the owner.
func makeDirs(t *testing.T, home, rel string) {
	t.Helper()
	if err := as(owner(), owner(), func() error { return os.MkdirAll(home+"/"+rel, 0o700) }); err != nil {
		t.Fatal(err)
	}
}

func TestSubscribe(t *testing.T) {
	tests := []struct{ name, detail, mail, before, want string }{
		{"it begins a file", "Wörk/2026", "~/Maildir", "", "V\t2\n\nW&APY-rk\t2026\n"},
		{"it adds to a file", "b", "~/Maildir", "V\t2\n\na\n", "V\t2\n\na\nb\n"},
		{"it keeps what is there", "a", "~/Maildir", "V\t2\n\na\nc\td\n", "V\t2\n\na\nc\td\n"},
		{"it keeps version 1", "b/c", "~/Maildir", "a\n", "a\nb.c\n"},
		{"it keeps version 1 in LAYOUT=fs", "b/c", "~/Maildir:LAYOUT=fs", "a\n", "a\nb/c\n"},
		{"it mends the last line", "b", "~/Maildir", "V\t2\n\na", "V\t2\n\na\nb\n"},
		{"it finds the control directory", "b", "~/x:CONTROL=~/Maildir", "V\t2\n\n", "V\t2\n\nb\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mb := mailbox(t)
			mb.Mail, mb.Detail = "maildir:"+tt.mail, tt.detail
			file := mb.Home + "/Maildir/subscriptions"
			if tt.before != "" {
				makeDirs(t, mb.Home, "Maildir")
				err := as(owner(), owner(), func() error { return os.WriteFile(file, []byte(tt.before), 0o600) })
				if err != nil {
					t.Fatal(err)
				}
			}
			d := &Deliverer{SaveToDetail: true, Autocreate: true, Autosubscribe: true, Separator: '/'}
			for range 2 { // the second finds the mailbox and asks for nothing
				if err := deliver(d, mb, "x\n"); err != nil {
					t.Fatal(err)
				}
			}
			if got, err := os.ReadFile(file); err != nil || string(got) != tt.want {
				t.Errorf("subscriptions %q, %v; want %q", got, err, tt.want)
			}
			if _, err := os.Stat(file + ".lock"); err == nil {
				t.Error("the lock is left")
			}
		})
	}
}
