package postconf

import (
	"fmt"
	"strings"
	"testing"
)

func TestTables(t *testing.T) {
	c, err := Parse("/etc/postfix", `
virtual_maps = hash:/etc/postfix/virtual
dir = /etc/postfix/sql
canonical_maps = proxy:mysql:$dir/a.cf, mysql:$dir/b.cf hash:/x
	mysql:$dir/a.cf
virtual_mailbox_maps = ${dovepost?{socketmap:unix:dovepost/lookup:virtual_mailbox_maps}:{proxy:mysql:$dir/m.cf, proxy:mysql:$dir/n.cf}}
virtual_mailbox_domains = example.com !mysql:$dir/d.cf
relocated_maps = socketmap:unix:dovepost/lookup:relocated_maps
transport_maps = mysql:transport
dovepost = yes
`, "")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"virtual_alias_maps":      "hash:/etc/postfix/virtual()",
		"canonical_maps":          "mysql:/etc/postfix/sql/a.cf(/etc/postfix/sql/a.cf) mysql:/etc/postfix/sql/b.cf(/etc/postfix/sql/b.cf) hash:/x()",
		"virtual_mailbox_maps":    "mysql:/etc/postfix/sql/m.cf(/etc/postfix/sql/m.cf) mysql:/etc/postfix/sql/n.cf(/etc/postfix/sql/n.cf)",
		"virtual_mailbox_domains": "example.com() !mysql:/etc/postfix/sql/d.cf()",
		"relocated_maps":          "socketmap:unix:dovepost/lookup:relocated_maps()",
		"smtpd_sender_login_maps": "",
	} {
		all, err := c.Tables(name)
		var texts []string
		for _, table := range all {
			texts = append(texts, fmt.Sprintf("%s(%s)", table.Text, table.File))
		}
		if got := strings.Join(texts, " "); got != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	if all, err := c.Tables("transport_maps"); err == nil || !strings.Contains(err.Error(), "transport_maps: mysql:transport") {
		t.Errorf("a table without a file: %v, %v", all, err)
	}
	if words, err := c.Words("virtual_mailbox_domains"); err != nil || fmt.Sprint(words) != "[example.com]" {
		t.Errorf("words: %q, %v", words, err)
	}
}
