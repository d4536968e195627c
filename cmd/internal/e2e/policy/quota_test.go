package policy

import (
	"bufio"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"dovepost/cmd/internal/stack"
)

func owner(info os.FileInfo) (uid, gid int) {
	st := info.Sys().(*syscall.Stat_t)
	return int(st.Uid), int(st.Gid)
}

// more are aliases beside those of the layouts whose table of aliases is called so: several
// levels, a circle, the same one twice, and an alias for one who is full and one who is not.
var more = map[string]string{
	"chain1@example.com":    "chain2@example.com",
	"chain2@example.com":    "chain3@example.com",
	"chain3@example.com":    "postmaster@example.com",
	"circle1@example.com":   "circle2@example.com",
	"circle2@example.com":   "circle1@example.com",
	"twice@example.com":     "alice@example.com,postmaster@example.com",
	"both@example.com":      "alice@example.com,carol@example.net",
	"levels@example.com":    "chain1@example.com,both@example.com",
	"mixed@example.com":     "chain1@example.com,o'brien@example.com",
	"alice+vip@example.com": "carol@example.net", // what looks like an extension of somebody else
	"abroad@example.com":    "chain1@example.com,you@abroad.example",
	"unknown@example.com":   "chain1@example.com,nosuchuser@example.com",
}

func moreSQL(columns, values string) string {
	sql := ""
	for _, address := range slices.Sorted(maps.Keys(more)) {
		sql += fmt.Sprintf("INSERT INTO alias (address, goto%s) VALUES ('%s', '%s'%s);\n", columns, address, strings.ReplaceAll(more[address], "'", "''"), values)
	}
	return sql
}

// TestQuotaRefusesWhatWouldBounce fills the mailboxes of alice and carol, and asks smtpd about every
// address of the cast: what policyd refuses at RCPT must be what the delivery, past policyd,
// bounces for all who get it, and nothing else.
func TestQuotaRefusesWhatWouldBounce(t *testing.T) {
	for layout, sql := range map[string]string{
		"seed": moreSQL("", ""), "postfixadmin": moreSQL(", domain", ", 'example.com'"), "vimbadmin": moreSQL(", Domain_id", ", 1"), "ispmail": "", "modoboa": "",
	} {
		if (layout == "ispmail" || layout == "modoboa") && os.Getenv("DOVEPOST_LONG") == "" {
			continue
		}
		t.Run(layout, func(t *testing.T) {
			t.Parallel()
			s := newMailsite(t, layout, sql, "", "--rules=quota")
			for _, user := range []string{"alice@example.com", "carol@example.net"} {
				if ends := s.deliver(user); len(ends) != 1 || ends[0] != "sent 2.0.0" {
					t.Fatalf("mail for %s: %q", user, ends)
				}
				s.fill(user)
			}
			cast := slices.Clone(s.cast)
			if sql != "" {
				cast = append(cast, slices.Sorted(maps.Keys(more))...)
				cast = append(cast, "chain1+x@example.com", "MIXED@Example.com", "chain1@alias.example")
			}
			time.Sleep(2100 * time.Millisecond) // older than that policyd's memory is not
			refused := map[string]bool{}
			c := s.dial(0)
			for _, recipient := range cast {
				reply := c.rcpt("sender@abroad.example", recipient)
				switch {
				case strings.HasPrefix(reply, "552 5.2.2 <"+recipient+">: Recipient address rejected: Quota exceeded"):
					refused[recipient] = true
				case reply[0] != '2' && !strings.Contains(reply, "User unknown in virtual"):
					t.Errorf("%s: %s", recipient, reply)
				}
			}
			c.quit()
			for _, recipient := range cast {
				ends := s.deliver(recipient)
				full := len(ends) > 0
				for _, end := range ends {
					full = full && end == "bounced 5.2.2"
				}
				if full != refused[recipient] {
					t.Errorf("%s: refused %v; delivered: %q", recipient, refused[recipient], ends)
				}
			}
			t.Logf("%s: %d of %d refused: %q", layout, len(refused), len(cast), slices.Sorted(maps.Keys(refused)))
			want := []string{"alice@example.com", "alice+news@example.com", "postmaster@example.com", "carol+a+b@example.net", "anybody@example.net", "any+ext@example.net", "Alice@Example.COM", "alice@alias.example"}
			if sql != "" {
				want = append(want, "chain1@example.com", "levels@example.com", "twice@example.com", "chain1+x@example.com", "both@example.com")
			}
			for _, recipient := range want {
				if !refused[recipient] {
					t.Errorf("%s is not refused", recipient)
				}
			}
		})
	}
}

// TestQuotaLooksAtTheSize announces sizes, and sends a message that was not announced.
func TestQuotaLooksAtTheSize(t *testing.T) {
	s := newMailsite(t, "seed", "", "message_size_limit = 0\n", "--rules=quota", "--quota_max_mail_size=2G", "--quota_full_tempfail")
	c := s.dial(0)
	rcpt := func(size, recipient string) string {
		t.Helper()
		c.want("250", c.ask("RSET"))
		c.want("250", c.ask("MAIL FROM:<sender@abroad.example>"+size))
		return c.ask("RCPT TO:<" + recipient + ">")
	}
	for _, tt := range []struct{ size, recipient, want string }{
		{"", "alice@example.com", "250 "},
		{" SIZE=1000000", "alice@example.com", "250 "},
		// Half of what is announced may be ends of lines, and a tenth of the limit is the grace: as lmtpd has it.
		{" SIZE=2000000000", "alice@example.com", "250 "},
		{" SIZE=3000000000", "alice@example.com", "452 4.2.2 <alice@example.com>: Recipient address rejected: Quota exceeded"},
		{" SIZE=3000000000", "team@example.com", "250 "}, // bob has no limit
		{" SIZE=4000000000", "bob@example.com", "250 "},
		{" SIZE=5000000000", "bob@example.com", "552 5.2.3 <bob@example.com>: Recipient address rejected: Message size"},
		{" SIZE=5000000000", "team@example.com", "552 5.2.3 "},
		{" SIZE=5000000000", "you@abroad.example", "250 "},
	} {
		if got := rcpt(tt.size, tt.recipient); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s with%s: %s; want %s", tt.recipient, tt.size, got, tt.want)
		}
	}
}

// TestQuotaAtTheEndOfTheMessage sends messages whose size was not announced.
func TestQuotaAtTheEndOfTheMessage(t *testing.T) {
	s := newMailsite(t, "seed", "", "smtpd_end_of_data_restrictions = policyd\n", "--rules=quota", "--quota_max_mail_size=2K")
	c := s.dial(0)
	send := func(octets int, recipients ...string) string {
		t.Helper()
		c.want("250", c.ask("RSET"))
		c.want("250", c.ask("MAIL FROM:<sender@abroad.example>"))
		for _, r := range recipients {
			c.want("250", c.ask("RCPT TO:<"+r+">"))
		}
		c.want("354", c.ask("DATA"))
		must(t, c.PrintfLine("Subject: test\r\n\r\n%s.", strings.Repeat("a line of sixteen\r\n", octets/19)))
		return c.read()
	}
	if got := send(3000, "bob@example.com"); got[0] != '2' {
		t.Errorf("3000 octets: %s", got)
	}
	if got := send(6000, "bob@example.com"); !strings.HasPrefix(got, "552 5.2.3 ") {
		t.Errorf("6000 octets: %s", got)
	}
	if got := send(6000, "bob@example.com", "you@abroad.example"); got[0] != '2' {
		t.Errorf("6000 octets for somebody else, too: %s", got)
	}
}

// TestQuotaNeedsToReadAndNothingElse runs policyd as the unit does: as the owner of the mail, in
// another group, without any right beside it, and with a mail store that is mounted read-only.
func TestQuotaNeedsToReadAndNothingElse(t *testing.T) {
	s := newMailsite(t, "seed", "", "", "--rules=quota")
	for _, user := range []string{"alice@example.com", "carol@example.net"} {
		s.deliver(user)
	}
	s.fill("alice@example.com")
	must(t, os.Chmod(s.dir+"/mail", 0o700))
	must(t, os.Chown(s.dir+"/mail", stack.MailUID, stack.MailUID))
	addr := freeAddr(t)
	cmd := exec.Command("unshare", "-m", "sh", "-c", `mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && ! touch "$1/x" 2>/dev/null && shift &&
		exec setpriv --reuid 5000 --regid 5003 --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs "$@"`,
		"sh", s.dir+"/mail", binaries()+"/policyd", "--rules=quota", "--postfix="+s.ConfigDir(), "--sql="+s.sql, "--listen=policy:inet:"+addr)
	cmd.Stderr = os.Stderr
	must(t, os.Chmod(binaries(), 0o755))
	must(t, cmd.Start())
	defer cmd.Wait()
	defer cmd.Process.Kill()
	var c net.Conn
	waitFor(t, func() bool {
		var err error
		c, err = net.Dial("tcp", addr)
		return err == nil
	})
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	r := bufio.NewReader(c)
	for recipient, want := range map[string]string{"alice@example.com": "action=552 5.2.2", "carol@example.net": "action=DUNNO", "o'brien@example.com": "action=DUNNO"} {
		fmt.Fprintf(c, "request=smtpd_access_policy\nprotocol_state=RCPT\nrecipient=%s\n\n", recipient)
		line, err := r.ReadString('\n')
		must(t, err)
		if !strings.HasPrefix(line, want) {
			t.Errorf("%s: %s", recipient, line)
		}
		_, err = r.ReadString('\n')
		must(t, err)
	}
}

// TestQuotaWithTheBuiltInTables asks two policyd, one with the files of main.cf and one with --mysql
// alone, about the cast: they say the same.
func TestQuotaWithTheBuiltInTables(t *testing.T) {
	s := newMailsite(t, "seed", moreSQL("", ""), "", "--rules=quota")
	for _, user := range []string{"alice@example.com", "carol@example.net"} {
		s.deliver(user)
		s.fill(user)
	}
	account := s.dir + "/mysql.cf"
	must(t, os.WriteFile(account, fmt.Appendf(nil, "hosts = inet:%s\nuser = %s\npassword = secret\ndbname = %[2]s\n", server.Addr(), s.users), 0o644))
	twin := s.dir + "/twin/policy"
	must(t, os.Mkdir(s.dir+"/twin", 0o755))
	d, err := stack.StartDaemon(binaries()+"/policyd", s.dir+"/twin", "policy", twin, "--rules=quota", "--mysql="+account, "--sql="+s.sql, "--recipient_delimiter=+")
	must(t, err)
	defer d.Stop()
	refused := 0
	for _, recipient := range append(slices.Sorted(maps.Keys(more)), s.cast...) {
		want := s.asks(s.Spool()+"/dovepost/policy", recipient)
		if got := s.asks(twin, recipient); got != want {
			t.Errorf("%s: %s, want %s", recipient, got, want)
		}
		if strings.HasPrefix(want, "action=552 5.2.2") {
			refused++
		}
	}
	if refused < 10 {
		t.Errorf("%d refused", refused)
	}
}

// asks asks policyd about a recipient, as smtpd does.
func (s *mailsite) asks(socket, recipient string) string {
	s.t.Helper()
	c, err := net.Dial("unix", socket)
	must(s.t, err)
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprintf(c, "request=smtpd_access_policy\nprotocol_state=RCPT\nrecipient=%s\n\n", recipient)
	line, err := bufio.NewReader(c).ReadString('\n')
	must(s.t, err)
	return strings.TrimSpace(line)
}
