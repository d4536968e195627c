package rules

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"dovepost/policy"
)

// registry is rules.Logins in memory: accounts are in small letters, mail is of domain d.
type registry struct {
	owners  map[string]string // address: logins; "!" is an error
	aliases map[string]string // address: accounts that get its mail
}

func (g registry) Account(login string) (string, bool) {
	return strings.ToLower(login), login != "" && !strings.Contains(login, " ")
}

func (g registry) Base(_ context.Context, address string) (string, error) {
	switch user, ext, _ := strings.Cut(strings.TrimSuffix(address, "@d"), "+"); {
	case ext == "broken":
		return "", errBroken
	case ext != "" && ext != "vip":
		return user + "@d", nil
	}
	return address, nil
}

func (g registry) Owners(_ context.Context, address string) ([]string, error) {
	if g.owners[address] == "!" {
		return nil, errBroken
	}
	return strings.Fields(g.owners[address]), nil
}

func (g registry) Reaches(_ context.Context, address, account string, aliases bool) (bool, error) {
	to := g.aliases[address]
	if to == "!" {
		return false, errBroken
	}
	return aliases && slices.Contains(strings.Fields(to), account), nil
}

func (g registry) Local(_ context.Context, address string) (bool, error) {
	if strings.HasSuffix(address, "@broken") {
		return false, errBroken
	}
	return strings.HasSuffix(address, "@d"), nil
}

func TestSenderHandles(t *testing.T) {
	logins := registry{
		owners:  map[string]string{"info@d": "b@d A@D", "only@d": "b@d", "away@d": "!", "wild@d": "@d *@d"},
		aliases: map[string]string{"team@d": "a@d b@d", "list@d": "b@d", "lost@d": "!"},
	}
	local := policy.Action{Word: "REJECT", Text: "log in first"}
	exempt, err := ParseNetworks("192.0.2.0/24")
	if err != nil {
		t.Fatal(err)
	}
	const no = "553 5.7.1 <%>: Sender address rejected: not owned by user a@d"
	for _, tt := range []struct {
		name, login, sender, want string
		err                       error
	}{
		{"one's own address", "a@d", "a@d", "DUNNO", nil},
		{"capitals in the sender", "a@d", "A@D", "DUNNO", nil},
		{"capitals in the login", "A@d", "a@d", "DUNNO", nil},
		{"an extension", "a@d", "a+shop@d", "DUNNO", nil},
		{"what looks like an extension, and is an address of its own", "a@d", "a+vip@d", no, nil},
		{"an extension of which nobody can say whose it is", "a@d", "a+broken@d", "DUNNO", errBroken},
		{"somebody else's address", "a@d", "b@d", no, nil},
		{"an extension of somebody else", "a@d", "b+a@d", no, nil},
		{"an address elsewhere", "a@d", "boss@elsewhere", no, nil},
		{"a table", "a@d", "info@d", "DUNNO", nil},
		{"a table without him", "a@d", "only@d", no, nil},
		{"a table with domains for logins, which are none", "a@d", "wild@d", no, nil},
		{"an alias", "a@d", "team@d", "DUNNO", nil},
		{"an alias of others", "a@d", "list@d", no, nil},
		{"a table that is away", "a@d", "away@d", "DUNNO", errBroken},
		{"aliases without an end", "a@d", "lost@d", "DUNNO", errBroken},
		{"a login that nobody can have", "a d", "a@d", "DUNNO", errLogin},
		{"the null sender", "a@d", "", "DUNNO", nil},
		{"a sender without a domain", "a@d", "a", no, nil},
		{"a line break", "a@d", "x\ny@d", strings.ReplaceAll(no, "%", "x y@d"), nil},
		{"no login", "", "a@elsewhere", "DUNNO", nil},
		{"no login and an address of ours", "", "a@d", "REJECT log in first", nil},
		{"no login and the null sender", "", "", "DUNNO", nil},
		{"no login, and nobody knows", "", "a@broken", "DUNNO", errBroken},
	} {
		s := &Sender{Logins: logins, Aliases: true, Null: true, Local: local, Exempt: exempt}
		r := &policy.Request{State: "RCPT", SASLUsername: tt.login, Sender: tt.sender, ClientAddress: netip.MustParseAddr("198.51.100.1")}
		got, err := s.Decide(t.Context(), r)
		if want := strings.ReplaceAll(tt.want, "%", tt.sender); got.String() != want || !errors.Is(err, tt.err) {
			t.Errorf("it handles %s: %v, %v; want %s, %v", tt.name, got, err, want, tt.err)
		}
		if r.State = "CONNECT"; true {
			if got, err := s.Decide(t.Context(), r); err != nil || !got.IsDunno() {
				t.Errorf("%s before there is a sender: %v, %v", tt.name, got, err)
			}
		}
	}
}

func TestSenderSettings(t *testing.T) {
	logins := registry{aliases: map[string]string{"team@d": "a@d"}}
	ask := func(s *Sender, login, sender, client string) string {
		s.Logins = logins
		got, err := s.Decide(t.Context(), &policy.Request{State: "RCPT", SASLUsername: login, Sender: sender, ClientAddress: netip.MustParseAddr(client)})
		if err != nil {
			t.Error(err)
		}
		return got.Kind()
	}
	exempt, _ := ParseNetworks("192.0.2.0/24")
	for _, tt := range []struct {
		name                  string
		rule                  *Sender
		login, sender, client string
		want                  string
	}{
		{"no aliases", &Sender{}, "a@d", "team@d", "198.51.100.1", "5xx"},
		{"aliases", &Sender{Aliases: true}, "a@d", "team@d", "198.51.100.1", "dunno"},
		{"no null sender", &Sender{}, "a@d", "", "198.51.100.1", "5xx"},
		{"no opinion about strangers", &Sender{}, "", "a@d", "198.51.100.1", "dunno"},
		{"a relay of ours", &Sender{Local: policy.Action{Word: "REJECT"}, Exempt: exempt}, "", "a@d", "192.0.2.1", "dunno"},
		{"no relay of ours", &Sender{Local: policy.Action{Word: "REJECT"}, Exempt: exempt}, "", "a@d", "198.51.100.1", "reject"},
		{"a relay of ours that logs in", &Sender{Exempt: exempt}, "a@d", "b@d", "192.0.2.1", "5xx"},
	} {
		if got := ask(tt.rule, tt.login, tt.sender, tt.client); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}
