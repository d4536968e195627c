package maildir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dovepost/lmtp"
)

func TestSplitFlags(t *testing.T) {
	tests := []struct {
		name     string
		flags    []string
		letters  string
		keywords []string
	}{
		{"none", nil, "", nil},
		{"all in their order", []string{`\Seen`, `\Deleted`, `\Draft`, `\Answered`, `\Flagged`}, "DFRST", nil},
		{"any case, once", []string{`\SEEN`, `\seen`, "$Junk", "$junk"}, "S", []string{"$Junk"}},
		{"what is the server's", []string{`\Recent`, `\Noselect`, `\`}, "", nil},
		{"what is no keyword", []string{"", "a b", "a(", "a{", "a%", "a*", `a"`, `a\`, "a]", "a\n", "ä", strings.Repeat("x", 51)}, "", nil},
		{"long keywords", []string{strings.Repeat("x", 50)}, "", []string{strings.Repeat("x", 50)}},
	}
	for _, tt := range tests {
		letters, keywords := splitFlags(tt.flags)
		if letters != tt.letters || !slices.Equal(keywords, tt.keywords) {
			t.Errorf("it handles %s: %q, %q; want %q, %q", tt.name, letters, keywords, tt.letters, tt.keywords)
		}
	}
}

func TestParseKeywords(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"a file", "0 $Junk\n1 custom\n", "0 $Junk\n1 custom\n"},
		{"a gap", "0 a\n25 z\n", "0 a\n25 z\n"},
		{"no file", "", ""},
		{"numbers beyond", "26 x\n-1 x\n99999999999 x\n0x1 x\n", ""},
		{"what is no line", "\nx\n0\n0 \n 0 x\n", ""},
		{"a name twice", "0 a\n1 A\n", "0 a\n"},
		{"a number twice", "0 a\n0 b\n", "0 b\n"},
		{"no line end", "0 a\n1 b", "0 a\n1 b\n"},
	}
	for _, tt := range tests {
		k := parseKeywords([]byte(tt.in))
		if got := string(k.append(nil)); got != tt.want {
			t.Errorf("it handles %s: %q; want %q", tt.name, got, tt.want)
		}
	}
}

// What is written reads the same, a name that is added keeps the letters of all others, and each
// letter stands for one name.
func FuzzKeywords(f *testing.F) {
	f.Add([]byte("0 $Junk\n1 custom\n"), "new")
	f.Add([]byte("25 z\n3 c\nx\n"), "Z")
	f.Add([]byte(""), "$Forwarded")
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		k := parseKeywords(data)
		if again := parseKeywords(k.append(nil)); again != k {
			t.Fatalf("%q is written as %q", data, k.append(nil))
		}
		if !isKeyword(name) {
			return
		}
		before := k
		i := k.add(name)
		for j, old := range before {
			if old != "" && k[j] != old {
				t.Fatalf("adding %q to %q changes letter %d", name, data, j)
			}
		}
		switch again := parseKeywords(k.append(nil)); {
		case i < 0 && slices.Contains(before[:], ""):
			t.Fatalf("no letter for %q in %q", name, data)
		case i >= 0 && (again != k || again.index(name) != i):
			t.Fatalf("%q added to %q reads %q", name, data, again.append(nil))
		}
	})
}

// tags is a filter that keeps mail with flags.
func tags(flags ...string) says { return says(lmtp.Verdict{Flags: flags}) }

func readKeywords(t *testing.T, dir string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, keywordsName))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(text)
}

// The files are where Dovecot has them, for each layout.
func TestKeywordsPlace(t *testing.T) {
	for _, tt := range []struct{ mail, box, dir string }{
		{"maildir:~/Maildir", "INBOX", "Maildir"},
		{"maildir:~/Maildir", "A.B", "Maildir/.A.B"},
		{"maildir:~/Maildir:LAYOUT=fs", "A/B", "Maildir/A/B"},
		{"maildir:~/Maildir:INBOX=~/In", "INBOX", "In"},
		{"maildir:~/Maildir:CONTROL=~/c", "INBOX", "c/.INBOX"},
		{"maildir:~/Maildir:CONTROL=~/c", "A.B", "c/.A.B"},
		{"maildir:~/Maildir:LAYOUT=fs:CONTROL=~/c", "A/B", "c/A/B"},
		{"maildir:~/Maildir:LAYOUT=fs:CONTROL=~/c", "INBOX", "c/INBOX"},
	} {
		mb := mailbox(t)
		mb.Mail = tt.mail
		d := &Deliverer{Filter: says{File: []lmtp.Filing{{Mailbox: tt.box, Create: true, Flags: []string{"$Junk", `\Seen`}}}, Handled: true}}
		if err := deliver(d, mb, "x\n"); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(mb.Home, tt.dir)
		if got := readKeywords(t, dir); got != "0 $Junk\n" {
			t.Errorf("%s of %s: %q", tt.box, tt.mail, got)
		}
		if _, err := os.Stat(filepath.Join(dir, uidlistLock)); err == nil {
			t.Errorf("%s of %s: the lock is left", tt.box, tt.mail)
		}
		got, _ := messages(t, mb.Home)
		if len(got) != 1 || !strings.HasSuffix(got[0], ":2,Sa") || filepath.Base(filepath.Dir(got[0])) != "cur" {
			t.Errorf("%s of %s: %q", tt.box, tt.mail, got)
		}
	}
}

// The time of the file grows in whole seconds: by that Dovecot knows that it has changed.
func TestKeywordsTime(t *testing.T) {
	mb := mailbox(t)
	var last int64
	for i := range 5 {
		if err := deliver(&Deliverer{Filter: tags(fmt.Sprint("k", i))}, mb, "x\n"); err != nil {
			t.Fatal(err)
		}
		st := inode(t, mb.Home+"/Maildir/"+keywordsName)
		if st.Mtim.Sec <= last {
			t.Errorf("written at %d, after %d", st.Mtim.Sec, last)
		}
		last = st.Mtim.Sec
	}
}

// There are 26 letters; what gets none is delivered without.
func TestKeywordsEnd(t *testing.T) {
	mb := mailbox(t)
	var all []string
	for i := range 30 {
		all = append(all, fmt.Sprint("k", i))
	}
	for range 2 {
		if err := deliver(&Deliverer{Filter: tags(all...), Log: quiet}, mb, "x\n"); err != nil {
			t.Fatal(err)
		}
	}
	got, _ := messages(t, mb.Home)
	for _, name := range got {
		if !strings.HasSuffix(name, ":2,abcdefghijklmnopqrstuvwxyz") {
			t.Error(name)
		}
	}
	if k := readKeywords(t, mb.Home+"/Maildir"); strings.Count(k, "\n") != 26 {
		t.Errorf("%q", k)
	}
}

// Many deliveries at once agree on the letters.
func TestKeywordsAtOnce(t *testing.T) {
	mb := mailbox(t)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			own := *mb
			one := &Deliverer{Filter: tags(fmt.Sprint("k", i%8))}
			if err := deliver(one, &own, fmt.Sprintf("k%d\n", i%8)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	k := parseKeywords([]byte(readKeywords(t, mb.Home+"/Maildir")))
	got, _ := messages(t, mb.Home)
	if len(got) != 16 {
		t.Fatalf("%q", got)
	}
	for _, name := range got {
		text, err := os.ReadFile(mb.Home + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		_, flags, _ := strings.Cut(name, ":2,")
		if len(flags) != 1 || k[flags[0]-'a'] != strings.TrimSpace(string(text)) {
			t.Errorf("%q is marked %q in %q", text, flags, k.append(nil))
		}
	}
}

// writeLock makes a lock that the mailbox's owner can read, whatever the umask is.
func writeLock(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path, []byte(text), 0o666), os.Chmod(path, 0o666)); err != nil {
		t.Fatal(err)
	}
}

// A lock that nobody holds any more is removed; one that somebody holds makes the message wait.
func TestUidlistLock(t *testing.T) {
	mb := mailbox(t)
	if err := deliver(&Deliverer{}, mb, "x\n"); err != nil {
		t.Fatal(err)
	}
	lock := mb.Home + "/Maildir/" + uidlistLock
	hold := func(age time.Duration) {
		t.Helper()
		writeLock(t, lock, "1:elsewhere")
		when := time.Now().Add(-age)
		if err := os.Chtimes(lock, when, when); err != nil {
			t.Fatal(err)
		}
	}
	hold(lockStale + time.Minute)
	if err := deliver(&Deliverer{Filter: tags("a"), Log: quiet}, mb, "x\n"); err != nil {
		t.Errorf("a stale lock: %v", err)
	}
	hold(time.Second)
	if err := deliver(&Deliverer{Filter: tags("a"), Log: quiet}, mb, "x\n"); err != nil {
		t.Errorf("a lock, and nothing to write: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	waited := make(chan error, 1)
	go func() {
		waited <- (&Deliverer{Filter: tags("b"), Log: quiet}).Deliver(ctx, &lmtp.Envelope{}, []*lmtp.Mailbox{mb}, lmtp.Text("x\n"))[0]
	}()
	select {
	case err := <-waited:
		t.Fatalf("did not wait for the lock: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Error(err)
	}
	hold(time.Second)
	cancel()
	err := (&Deliverer{Filter: tags("c"), Log: quiet}).Deliver(ctx, &lmtp.Envelope{}, []*lmtp.Mailbox{mb}, lmtp.Text("x\n"))[0]
	if !temporary(err) {
		t.Errorf("a lock that stays: %v", err)
	}
	if got := readKeywords(t, mb.Home+"/Maildir"); got != "0 a\n1 b\n" {
		t.Errorf("keywords %q", got)
	}
}

// A lock is stale at once when its process has ended on this machine; what somebody elsewhere holds, or a
// process that is there, is not.
func TestLockOfTheDead(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		text  string
		stale bool
	}{
		{fmt.Sprintf("%d:%s", dead.Process.Pid, host), true},
		{fmt.Sprintf("%d:%s", os.Getpid(), host), true}, // of a process before this one, as in a container
		{fmt.Sprintf("%d:%s", os.Getppid(), host), false},
		{fmt.Sprintf("%d:elsewhere", dead.Process.Pid), false},
		{"-1:" + host, false},
		{"0:" + host, false},
		{"x:" + host, false},
		{"", false},
	} {
		mb := mailbox(t)
		if err := deliver(&Deliverer{}, mb, "x\n"); err != nil {
			t.Fatal(err)
		}
		writeLock(t, mb.Home+"/Maildir/"+uidlistLock, tt.text)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- (&Deliverer{Filter: tags("a"), Log: quiet}).Deliver(ctx, &lmtp.Envelope{}, []*lmtp.Mailbox{mb}, lmtp.Text("x\n"))[0]
		}()
		select {
		case err = <-done:
		case <-time.After(map[bool]time.Duration{true: 10 * time.Second, false: 100 * time.Millisecond}[tt.stale]):
			cancel()
			err = <-done
		}
		if cancel(); (err == nil) != tt.stale {
			t.Errorf("the lock %q: %v; stale %v", tt.text, err, tt.stale)
		}
	}
}
