package main

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"dovepost/cmd/internal/daemon"
	"dovepost/lookup/ladder"
)

func TestParseMap(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want mapSetting
		err  string
	}{
		{"virtual_alias_maps=alias:/etc/a.cf", mapSetting{"virtual_alias_maps", ladder.Alias, []string{"/etc/a.cf"}}, ""},
		{"x = alias : /etc/a.cf , /etc/b.cf", mapSetting{"x", ladder.Alias, []string{"/etc/a.cf", "/etc/b.cf"}}, ""},
		{"x=exact:/etc/a=b:c.cf", mapSetting{"x", ladder.Exact, []string{"/etc/a=b:c.cf"}}, ""},
		{"x=aliases:/etc/a.cf", mapSetting{}, "unknown kind"},
		{"x=/etc/a.cf", mapSetting{}, "want NAME=KIND:FILE"},
		{"x", mapSetting{}, "want NAME=KIND:FILE"},
		{"=alias:/etc/a.cf", mapSetting{}, "want NAME=KIND:FILE"},
		{"a b=alias:/etc/a.cf", mapSetting{}, "want NAME=KIND:FILE"},
		{"x=alias:", mapSetting{}, "a file is missing"},
		{"x=alias:/etc/a.cf,", mapSetting{}, "a file is missing"},
	} {
		got, err := parseMap(tt.in)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("parseMap(%q) = %v; want an error with %q", tt.in, err, tt.err)
			}
		} else if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("parseMap(%q) = %v, %v; want %v", tt.in, got, err, tt.want)
		}
	}
	s := settings{maps: []string{"x=alias:/a", "x=alias:/b"}}
	if _, err := s.parseMaps(); err == nil || !strings.Contains(err.Error(), "given twice") {
		t.Errorf("one name twice: %v", err)
	}
}

// The settings of Postfix, with Postfix's defaults, as the ladders see them.
func TestOptions(t *testing.T) {
	for _, tt := range []struct {
		args      string
		name      string
		kind      ladder.Kind
		propagate bool
		parents   ladder.ParentStyle
	}{
		{"", "virtual_alias_maps", ladder.Alias, true, ladder.BareParents},
		{"", "recipient_canonical_maps", ladder.Alias, true, ladder.BareParents},
		{"", "smtp_generic_maps", ladder.Alias, false, ladder.BareParents},
		{"--propagate_unmatched_extensions=generic", "smtp_generic_maps", ladder.Alias, true, ladder.BareParents},
		{"--propagate_unmatched_extensions=canonical", "virtual_alias_maps", ladder.Alias, false, ladder.BareParents},
		{"--propagate-unmatched-extensions=", "canonical_maps", ladder.Alias, false, ladder.BareParents},
		{"", "transport_maps", ladder.Transport, true, ladder.DotParents},
		{"", "relay_domains", ladder.DomainParents, true, ladder.BareParents},
		{"--parent_domain_matches_subdomains=smtpd_access_maps", "relay_domains", ladder.DomainParents, true, ladder.DotParents},
		{"--parent_domain_matches_subdomains=smtpd_access_maps", "check_helo_access", ladder.DomainParents, true, ladder.BareParents},
		{"--parent_domain_matches_subdomains=transport_maps", "transport_maps", ladder.Transport, true, ladder.BareParents},
		{"--parent_domain_matches_subdomains=transport_maps", "check_client_access", ladder.AccessClient, true, ladder.DotParents},
	} {
		var s settings
		fs := pflag.NewFlagSet("lookupd", pflag.ContinueOnError)
		fs.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
			return pflag.NormalizedName(strings.ReplaceAll(name, "-", "_"))
		})
		s.flags(fs)
		if err := fs.Parse(strings.Fields(tt.args)); err != nil {
			t.Fatal(err)
		}
		got := s.options(tt.name, tt.kind)
		if got.Propagate != tt.propagate || got.Parents != tt.parents || got.RecipientDelimiter != "" || len(got.LocalDomains) != 0 {
			t.Errorf("%s %s: %+v; want propagate %v, parents %v", tt.name, tt.args, got, tt.propagate, tt.parents)
		}
	}
}

func TestManual(t *testing.T) {
	got := daemon.Manual(source)
	if !strings.HasPrefix(got, "Lookupd answers") || strings.Contains(got, "//") || strings.Contains(got, "package main") || !strings.Contains(got, "\n\tlookupd --mysql FILE") {
		t.Errorf("manual is %q", got)
	}
	for _, kind := range []string{"address", "alias", "domain", "domain-parents", "transport", "access-address", "access-client", "exact"} {
		if !strings.Contains(got, "\n\t"+kind+" ") {
			t.Errorf("the manual does not know the kind %s", kind)
		}
	}
}

func TestFile(t *testing.T) {
	for _, tt := range []struct {
		setting, state string
		stale          time.Duration
		want           string
	}{
		{"", "", time.Hour, ""},
		{"", "/var/lib/x", time.Hour, "/var/lib/x/cache"},
		{"", "/var/lib/x:/var/lib/y", time.Hour, "/var/lib/x/cache"},
		{"", "x", time.Hour, ""},
		{"/f", "/var/lib/x", time.Hour, "/f"},
		{"none", "/var/lib/x", time.Hour, ""},
		{"/f", "/var/lib/x", 0, ""},
	} {
		t.Setenv("STATE_DIRECTORY", tt.state)
		s := settings{cacheFile: tt.setting, cacheStale: tt.stale}
		if got := s.file(); got != tt.want {
			t.Errorf("%q with %q: %q; want %q", tt.setting, tt.state, got, tt.want)
		}
	}
}
