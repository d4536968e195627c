package maildir

import (
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"dovepost/lmtp"
	"dovepost/lmtp/journal"

	"golang.org/x/sys/unix"
)

// older makes all that the journal at path says older by d.
func older(t *testing.T, path string, d time.Duration) {
	t.Helper()
	records, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var changed strings.Builder
	for line := range strings.Lines(string(records)) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(fields) < 4 {
			continue
		}
		seconds, err := strconv.ParseInt(fields[2], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		fields[2] = strconv.FormatInt(seconds-int64(d.Seconds()), 10)
		rest := strings.Join(fields[1:], "\t")
		fmt.Fprintf(&changed, "%08x\t%s\n", crc32.Checksum([]byte(rest), crc32.MakeTable(crc32.Castagnoli)), rest)
	}
	if err := os.WriteFile(path, []byte(changed.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Postfix uses its short queue ids again. Where nothing in a message tells it from the one of yesterday, it
// is not taken for that; sent again soon it is.
func TestNameUsedAgain(t *testing.T) {
	for _, tt := range []struct {
		name  string
		dated bool
		age   time.Duration
		want  int
	}{
		{"a message that is sent again", true, 5 * 24 * time.Hour, 1},
		{"a message that is sent again very late", true, 7 * 24 * time.Hour, 2},
		{"a message without a date that is sent again", false, time.Hour, 1},
		{"the message of today", false, 24 * time.Hour, 2},
	} {
		t.Run("it handles "+tt.name, func(t *testing.T) {
			mb := mailbox(t)
			path := filepath.Join(t.TempDir(), "journal")
			for i := range 2 {
				j, err := journal.Open(path, journal.Options{Log: quiet})
				if err != nil {
					t.Fatal(err)
				}
				d := &Deliverer{Journal: j, Log: quiet}
				env := &lmtp.Envelope{Queue: "5D0F1", Dated: tt.dated}
				if err := d.Deliver(t.Context(), env, []*lmtp.Mailbox{mb}, lmtp.Text("all is well\n"))[0]; err != nil {
					t.Fatal(err)
				}
				if err := j.Close(); err != nil {
					t.Fatal(err)
				}
				if i == 0 {
					older(t, path, tt.age)
				}
			}
			if got, _ := messages(t, mb.Home); len(got) != tt.want {
				t.Errorf("%q; want %d", got, tt.want)
			}
		})
	}
}

// An address that occurs twice, as with another ORCPT, gets two copies; sent again, no more.
func TestSameAddressTwice(t *testing.T) {
	mb := mailbox(t)
	d := &Deliverer{Journal: openJournal(t, filepath.Join(t.TempDir(), "journal")), Log: quiet}
	for _, when := range []string{"first", "again"} {
		for i, err := range deliverAll(d, []*lmtp.Mailbox{mb, mb}, "x\n") {
			if err != nil {
				t.Errorf("%s: copy %d: %v", when, i+1, err)
			}
		}
		if got, _ := messages(t, mb.Home); len(got) != 2 {
			t.Errorf("%s: %q; want two messages", when, got)
		}
	}
}

// A message for more recipients than the process may have files is delivered to all of them.
func TestManyRecipients(t *testing.T) {
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	open, err := os.ReadDir("/proc/self/fd") // other tests have left some
	if err != nil {
		t.Fatal(err)
	}
	few := old
	few.Cur = min(old.Cur, uint64(len(open))+1000)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
	first := mailbox(t)
	var to []*lmtp.Mailbox
	for i := range 500 {
		mb := *first
		mb.Rcpt, mb.Home = fmt.Sprintf("u%d@example.com", i), fmt.Sprintf("%s/u%d", first.Home, i)
		to = append(to, &mb)
	}
	for i, err := range deliverAll(&Deliverer{Log: quiet}, to, "x\n") {
		if err != nil {
			t.Fatalf("recipient %d: %v", i+1, err)
		}
	}
	if got, _ := messages(t, first.Home); len(got) != len(to) {
		t.Errorf("%d messages; want %d", len(got), len(to))
	}
}
