package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// TestTheFileOfContribHasEverySetting: each setting that there is, and none that is not, with a value that
// can be set.
func TestTheFileOfContribHasEverySetting(t *testing.T) {
	text, err := os.ReadFile("../../contrib/etc/policyd.cf")
	if err != nil {
		t.Fatal(err)
	}
	fs := pflag.NewFlagSet("policyd", pflag.ContinueOnError)
	new(policyd).flags(fs)
	var named []string
	for _, m := range regexp.MustCompile(`(?m)^#?([a-z][a-z0-9_]*) =(.*)$`).FindAllStringSubmatch(string(text), -1) {
		named = append(named, m[1])
		switch {
		case slices.Contains([]string{"max_connections", "drain_timeout", "log_level"}, m[1]): // of all daemons
		case fs.Lookup(m[1]) == nil:
			t.Errorf("%s: there is no such setting", m[1])
		case strings.TrimSpace(m[2]) != "":
			if err := fs.Set(m[1], strings.TrimSpace(m[2])); err != nil {
				t.Error(err)
			}
		}
	}
	fs.VisitAll(func(f *pflag.Flag) {
		if !f.Hidden && !slices.Contains(named, f.Name) {
			t.Errorf("%s is not named", f.Name)
		}
	})
}
