package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// known makes what policyd knows of a main.cf whose tables are text files in DIR.
func known(t *testing.T, main string, tables map[string]string) *addresses {
	t.Helper()
	dir := t.TempDir()
	tables["main.cf"] = "myhostname = mail.d\n" + strings.ReplaceAll(main, "DIR", dir)
	tables["master.cf"] = ""
	for name, text := range tables {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b := &builder{settings: &settings{postfix: dir, delimiter: "+-"}}
	a, err := b.addresses()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestCanonicalMapsOfRecipients(t *testing.T) {
	tables := func() map[string]string {
		return map[string]string{"canonical": "a@d b@d\n", "recipients": "b@d c@d\n"}
	}
	// Postfix asks recipient_canonical_maps first, so a@d is b@d in the end, and b@d is c@d.
	for classes, want := range map[string]string{
		"": "b@d c@d",
		"canonical_classes = header_sender, envelope_recipient\n":                               "b@d c@d",
		"canonical_classes = header_sender, header_recipient\n":                                 "a@d c@d",
		"recipient_canonical_classes = header_recipient\n":                                      "b@d b@d",
		"canonical_classes = envelope_sender\nrecipient_canonical_classes = header_recipient\n": "a@d b@d",
	} {
		a := known(t, "recipient_canonical_maps = texthash:DIR/recipients\ncanonical_maps = texthash:DIR/canonical\n"+classes, tables())
		var got []string
		for _, address := range []string{"a@d", "b@d"} {
			for target, err := range a.Expand(t.Context(), address) {
				if err != nil {
					t.Error(err)
				}
				got = append(got, target)
			}
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%q: %s, want %s", classes, s, want)
		}
	}
}

func TestAliasesInMainCF(t *testing.T) {
	a := known(t, "virtual_alias_maps = inline:{ { list@d = a@d, b@d }, info@d=a@d } texthash:DIR/aliases\n", map[string]string{"aliases": "x@d list@d\n"})
	var got []string
	for target, err := range a.Expand(t.Context(), "X@d") {
		if err != nil {
			t.Error(err)
		}
		got = append(got, target)
	}
	if s := strings.Join(got, " "); s != "a@d b@d" {
		t.Errorf("x@d is %q, want a@d b@d", s)
	}
}

func TestBaseOfAnAddress(t *testing.T) {
	a := known(t, "virtual_mailbox_domains = d\nvirtual_mailbox_maps = texthash:DIR/boxes\nvirtual_alias_maps = texthash:DIR/aliases\n"+
		"smtpd_sender_login_maps = texthash:DIR/owners\n",
		map[string]string{"boxes": "joe@d x\nJoe-Anne@d x\n", "aliases": "joe-team@d boss@d\n", "owners": "joe+press@d boss@d\n"})
	for address, want := range map[string]string{
		"joe@d": "joe@d", "joe+shop@d": "joe@d", "joe-shop@d": "joe@d", "joe-Anne@D": "joe-Anne@D", "joe-anne@e": "joe@e",
		"joe-team@d": "joe-team@d", "joe+press@d": "joe+press@d", "joe-anne+x@d": "joe@d", "joe": "joe",
	} {
		if got, err := a.Base(t.Context(), address); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", address, got, err, want)
		}
	}
}
