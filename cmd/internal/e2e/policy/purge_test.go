package policy

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dovepost/lmtp"
	"dovepost/lmtp/filter/submission"
	"dovepost/lookup/mysql"
	"dovepost/policy/notify"
	"dovepost/policy/rules"
	"dovepost/policy/sqldb"
)

// The greylist deletes what has expired, a few rows at a time, and nothing else; and what has
// expired begins anew also while it is still there.
func TestGreylistPurge(t *testing.T) {
	d := newDatabase(t)
	f, err := mysql.ReadFile(d.file(server.Addr()))
	must(t, err)
	pool := mysql.OpenPool(f.Config(), 2)
	t.Cleanup(func() { pool.Close() })
	b := sqldb.NewBreaker(pool, time.Second, slog.Default())
	t.Cleanup(b.Close)
	g := sqldb.NewGreylist(sqldb.New(pool, b))
	d.exec(`INSERT INTO greylist WITH RECURSIVE numbers AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM numbers WHERE n < 100)
			SELECT UNHEX(LEFT(SHA2(n, 256), 32)), '192.0.2.0/24', '', '', 0, 1, IF(n % 2, UNIX_TIMESTAMP() - 1, UNIX_TIMESTAMP() + 1000) FROM numbers;
		INSERT INTO greylist_networks VALUES ('192.0.2.0/24', 9, UNIX_TIMESTAMP() - 1), ('192.0.3.0/24', 9, UNIX_TIMESTAMP() + 1000);`)
	triplet := rules.GreylistTriplet{Key: "6b86b273ff34fce19d6b804eff5a3f57", Network: "192.0.2.0/24", Sender: "a", Recipient: "b"} // SHA2(1)
	must(t, g.Begin(t.Context(), triplet, time.Hour))
	facts, err := g.Facts(t.Context(), rules.GreylistQuestion{Key: triplet.Key, Network: triplet.Network, Recipients: []string{"b"}})
	must(t, err)
	// The row is of now, which was 0 and has expired; a second may have begun meanwhile.
	if age := facts.Now - facts.Triplet.Since; facts.Triplet.Passed || age < 0 || age > 600 || facts.Triplet.Expires != facts.Triplet.Since+3600 {
		t.Errorf("what has expired did not begin anew: %+v", facts)
	}
	for range 2 { // the second one finds no unpassed row, and does not count
		must(t, g.Pass(t.Context(), triplet, time.Hour))
	}
	if got := d.query("SELECT passes FROM greylist_networks WHERE network = '192.0.2.0/24'"); len(got) != 1 || got[0] != "1" {
		t.Errorf("an expired network has passed %q times; want 1", got)
	}
	for i, want := range []bool{true, true, true, true, false} {
		more, err := g.Purge(t.Context(), 12)
		must(t, err)
		if more != want {
			t.Errorf("purge %d: more is %v", i, more)
		}
	}
	if got := d.query("SELECT COUNT(*), SUM(expires > UNIX_TIMESTAMP()) FROM greylist; SELECT COUNT(*) FROM greylist_networks"); strings.Join(got, " ") != "51\t51 2" {
		t.Errorf("left are %q", got)
	}
}

// A notification goes through a real smtpd.
func TestNotification(t *testing.T) {
	p := &policyd{t: t, postfix: startPostfix(t)}
	// A line twice would have each process warn, postlogd too: of itself, in vain, when its socket is full of warnings.
	run(t, "/usr/sbin/postconf", "-c", filepath.Join(p.postfix.dir, "etc"), "-e", "header_checks = static:HOLD", "smtpd_recipient_restrictions =",
		"smtpd_data_restrictions =", "smtpd_end_of_data_restrictions =")
	p.postfix.reload(t)
	sender := &submission.SMTP{Addr: p.postfix.addr, Hello: "mail.example.com"}
	n := &notify.Notifier{From: "policyd <postmaster@mail.example.com>", To: "admin@example.com", Host: "mail.example.com", Log: slog.Default(),
		Send: func(ctx context.Context, text []byte) error {
			return sender.Send(ctx, "", "admin@example.com", lmtp.Text(text))
		}}
	n.Start()
	defer n.Close()
	must(t, n.Notify(t.Context(), "größer\nBcc: x@example.com", "line\n.\n..\n"+strings.Repeat("ä", 2000)+"\n"))
	var files []string
	waitFor(t, func() bool {
		files, _ = filepath.Glob(filepath.Join(p.postfix.spool(), "hold", "*"))
		return len(files) == 1
	})
	got := p.postfix.cat(t, filepath.Base(files[0]))
	for _, want := range []string{"To: admin@example.com\n", "Subject: =?utf-8?q?gr=C3=B6=C3=9Fer_Bcc:_x@example.com?=\n", "Auto-Submitted: auto-generated\n", "\nline\n.\n..\n=C3=A4"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}
