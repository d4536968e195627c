package policy

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func owner(info os.FileInfo) (uid, gid int) {
	st := info.Sys().(*syscall.Stat_t)
	return int(st.Uid), int(st.Gid)
}

// more are aliases beside those of the layouts whose table of aliases is called so: several
// levels, a circle, the same one twice, and an alias for one who is full and one who is not.
var more = map[string]string{
	"chain1@example.com":  "chain2@example.com",
	"chain2@example.com":  "chain3@example.com",
	"chain3@example.com":  "postmaster@example.com",
	"circle1@example.com": "circle2@example.com",
	"circle2@example.com": "circle1@example.com",
	"twice@example.com":   "alice@example.com,postmaster@example.com",
	"both@example.com":    "alice@example.com,carol@example.net",
	"levels@example.com":  "chain1@example.com,both@example.com",
	"mixed@example.com":   "chain1@example.com,o'brien@example.com",
	"abroad@example.com":  "chain1@example.com,you@abroad.example",
	"unknown@example.com": "chain1@example.com,nosuchuser@example.com",
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
