package policy

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The limits of a site's own tables, by mysql_table(5) files, and a file of countries.
func TestLimitsFromMapsAndCountriesFromAFile(t *testing.T) {
	d := newDatabase(t)
	d.exec(`CREATE TABLE site_limits (who VARCHAR(255) PRIMARY KEY, own VARCHAR(255), total VARCHAR(255));
		INSERT INTO site_limits VALUES ('one@example.com', '1 message/1h', NULL), ('@example.com', '3 messages/1h', NULL),
		('free@example.com', 'unlimited', NULL), ('@sum.example', 'unlimited', '2 messages/1h'), ('wrong@example.com', 'many', NULL);
		GRANT SELECT ON site_limits TO dovepost_policyd@localhost, dovepost_policyd@127.0.0.1;`)
	limits := func(column string) string {
		return d.table(server.Addr(), "SELECT "+column+" FROM site_limits WHERE who = '%s' AND "+column+" IS NOT NULL")
	}
	countries := filepath.Join(t.TempDir(), "countries")
	must(t, os.WriteFile(countries, []byte("# network country\n198.18.0.0/16 DE\n198.19.0.0/16,AT\n203.0.113.0/24 FR\n198.18.99.0/24 CH\n"), 0o644))
	p := prepare(t)
	p.start("--rules=rate,shield", "--mysql="+d.file(server.Addr()), "--rate_limits=0 messages/1h",
		"--rate_limits_maps=proxy:mysql:"+limits("own"), "--rate_total_limits_maps="+limits("total"),
		"--shield_country_file="+countries, "--shield_countries=2", "--shield_networks=0", "--shield_regions=0", "--shield_action=450 4.7.1 held")
	send := func(address, login string) string {
		t.Helper()
		c := p.postfix.dial(t, address, login)
		defer c.quit()
		return c.send(login, "x@example.com")
	}
	for _, tt := range []struct {
		login  string
		pass   int
		refuse string
	}{
		{"One@example.com", 1, overLimit},
		{"other@example.com", 3, overLimit},
		{"wrong@example.com", 3, overLimit}, // limits that make no sense are the domain's
		{"free@example.com", 6, ""},
		{"stranger@else.example", 0, "450 4.7.1 <END-OF-MESSAGE>: End-of-data rejected: sending limit of this account reached"},
		{"first@sum.example", 0, ""},
		{"second@sum.example", 1, "450 4.7.1 <DATA>: Data command rejected: sending limit of this domain reached"},
	} {
		for range tt.pass {
			if got := send("198.18.0.1", tt.login); !strings.HasPrefix(got, "250") {
				t.Errorf("%s: %s", tt.login, got)
			}
		}
		want := strings.Replace(tt.refuse, "<END-OF-MESSAGE>: End-of-data", "<DATA>: Data command", 1)
		if got := send("198.18.0.1", tt.login); want != "" && !strings.HasPrefix(got, want) {
			t.Errorf("%s, after %d messages: %s; want %s", tt.login, tt.pass, got, want)
		}
	}
	for i, address := range []string{"198.18.0.1", "198.19.0.1", "198.18.7.1", "192.0.2.1", "203.0.113.1", "198.18.0.1"} {
		want := "250"
		if i >= 4 { // the third country; 192.0.2.1 is in none
			want = "450 4.7.1 <x@example.com>: Recipient address rejected: held"
		}
		c := p.postfix.dial(t, address, "free@example.com")
		if got := c.rcpt("free@example.com", "x@example.com"); !strings.HasPrefix(got, want) {
			t.Errorf("from %s: %s; want %s", address, got, want)
		}
		c.quit()
	}
	eventually(t, "the reason", "sends from 3 countries within 1h0m0s", func() string {
		return fmt.Sprint(strings.Join(d.query("SELECT reason FROM shield_accounts"), ";"))
	})
}
