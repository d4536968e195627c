package main

import (
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/pflag"

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

func TestOctets(t *testing.T) {
	for in, want := range map[string]octets{"0": 0, "1234": 1234, "64M": 64 << 20, "64MiB": 64 << 20, " 2g ": 2 << 30, "10kb": 10 << 10, "7B": 7} {
		var got octets
		if err := got.Set(in); got != want || err != nil {
			t.Errorf("Set(%q) = %d, %v; want %d", in, got, err, want)
		}
		var again octets
		if again.Set(got.String()); again != got {
			t.Errorf("%d prints as %q", got, got.String())
		}
	}
	for _, in := range []string{"", "M", "-1", "1.5G", "1T", "99999999999999999999", "9999999999G", "x"} {
		if err := new(octets).Set(in); err == nil {
			t.Errorf("Set(%q) is no error", in)
		}
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
	got := manual(source)
	if !strings.HasPrefix(got, "Lookupd answers") || strings.Contains(got, "//") || strings.Contains(got, "package main") || !strings.Contains(got, "\n\tlookupd --mysql FILE") {
		t.Errorf("manual is %q", got)
	}
	for _, kind := range []string{"address", "alias", "domain", "domain-parents", "transport", "access-address", "access-client", "exact"} {
		if !strings.Contains(got, "\n\t"+kind+" ") {
			t.Errorf("the manual does not know the kind %s", kind)
		}
	}
}
