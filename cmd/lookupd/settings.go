package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"dovepost/cmd/internal/daemon"
	"dovepost/lookup/ladder"
)

// settings are the flags of lookupd.
type settings struct {
	fs            *pflag.FlagSet
	postfix       string
	printMainCf   string
	maps          []string
	mysql         string
	mysqlConns    int
	delimiter     string
	propagate     string
	parents       string
	localDomains  string
	lookupTimeout time.Duration
	cacheFresh    time.Duration
	cacheSize     int64
	cacheStale    time.Duration
	cacheFile     string
}

func (s *settings) flags(fs *pflag.FlagSet) {
	s.fs = fs
	fs.StringVar(&s.postfix, "postfix", "", "serve the tables in MySQL that main.cf and master.cf in `DIR` name")
	fs.StringVar(&s.printMainCf, "print_main_cf", "", "print the commands that have Postfix ask lookupd (`switch`), those that go back, or all, then exit")
	fs.Lookup("print_main_cf").NoOptDefVal = "all"
	fs.StringArrayVar(&s.maps, "map", nil, "serve `NAME=KIND:FILE[,FILE...]`, repeatable")
	fs.StringVar(&s.mysql, "mysql", "", "serve the built-in tables from the server of `FILE`")
	fs.IntVar(&s.mysqlConns, "mysql_max_connections", 8, "connections to each MySQL server")
	fs.StringVar(&s.delimiter, "recipient_delimiter", "", "`characters` that begin an address extension")
	fs.StringVar(&s.propagate, "propagate_unmatched_extensions", "canonical, virtual", "which alias maps put an extension back: canonical, generic, virtual")
	fs.StringVar(&s.parents, "parent_domain_matches_subdomains", "relay_domains, smtpd_access_maps", "where example.com stands for its subdomains, too, instead of .example.com; also: transport_maps")
	fs.StringVar(&s.localDomains, "local_domains", "", "`domains` whose addresses are looked up as bare user names, too")
	daemon.DurationVar(fs, &s.lookupTimeout, "lookup_timeout", 5*time.Second, "how long a lookup may take before the answer is \"try again later\"")
	daemon.DurationVar(fs, &s.cacheFresh, "cache_fresh", 2*time.Second, "how long an answer is given again without asking")
	daemon.SizeVar(fs, &s.cacheSize, "cache_size", 64<<20, "bound of the cache in octets")
	daemon.DurationVar(fs, &s.cacheStale, "cache_stale", 24*time.Hour, "how old an answer may be that is given while the database does not answer; 0: none is")
	fs.StringVar(&s.cacheFile, "cache_file", "", "`FILE` that keeps answers over a restart; default: cache in $STATE_DIRECTORY; none: no file")
}

// words splits a list as Postfix does.
func words(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) })
}

// classes are those that propagate_unmatched_extensions has in Postfix. Only three
// of them concern tables that lookupd can serve.
var classes = []string{"canonical", "virtual", "alias", "forward", "include", "generic"}

// check finds settings that cannot be right.
func (s *settings) check() error {
	for _, w := range words(s.propagate) {
		if !slices.Contains(classes, w) {
			return fmt.Errorf("propagate_unmatched_extensions: unknown class %q", w)
		}
	}
	switch {
	case s.mysqlConns < 1:
		return fmt.Errorf("mysql_max_connections: %d is less than 1", s.mysqlConns)
	case s.lookupTimeout <= 0 || s.lookupTimeout > 90*time.Second:
		return fmt.Errorf("lookup_timeout: %v is not between 0 and 90s: Postfix waits for 100s", s.lookupTimeout)
	case s.cacheFresh < 0:
		return fmt.Errorf("cache_fresh: %v is negative", s.cacheFresh)
	case s.cacheStale < 0:
		return fmt.Errorf("cache_stale: %v is negative", s.cacheStale)
	case s.cacheFile != "" && s.cacheFile != "none" && !filepath.IsAbs(s.cacheFile):
		return fmt.Errorf("cache_file: %q is not an absolute path", s.cacheFile)
	}
	return nil
}

// options are the settings as the ladder of a parameter sees them.
func (s *settings) options(name string, kind ladder.Kind) ladder.Options {
	o := ladder.Options{
		RecipientDelimiter: s.delimiter,
		LocalDomains:       words(s.localDomains),
		Parents:            ladder.DotParents,
	}
	class := "virtual"
	switch {
	case strings.HasSuffix(name, "canonical_maps"):
		class = "canonical"
	case strings.HasSuffix(name, "generic_maps"):
		class = "generic"
	}
	o.Propagate = slices.Contains(words(s.propagate), class)

	parameter := "smtpd_access_maps"
	switch {
	case kind == ladder.Transport:
		parameter = "transport_maps"
	case slices.Contains(ownParents, name):
		parameter = name
	case kind == ladder.DomainParents && !strings.Contains(name, "access"):
		parameter = "relay_domains"
	}
	if slices.Contains(words(s.parents), parameter) {
		o.Parents = ladder.BareParents
	}
	return o
}

// ownParents are the parameters that parent_domain_matches_subdomains can list, beside
// transport_maps and the access maps.
var ownParents = []string{"relay_domains", "fast_flush_domains", "mynetworks", "permit_mx_backup_networks"}

// A mapSetting is one --map.
type mapSetting struct {
	name  string
	kind  ladder.Kind
	files []string
}

// parseMaps reads all --map values, by name.
func (s *settings) parseMaps() (map[string]mapSetting, error) {
	all := map[string]mapSetting{}
	for _, value := range s.maps {
		m, err := parseMap(value)
		if err != nil {
			return nil, err
		}
		if _, twice := all[m.name]; twice {
			return nil, fmt.Errorf("map %s: given twice; the files of one map are separated by commas", m.name)
		}
		all[m.name] = m
	}
	return all, nil
}

// parseMap reads NAME=KIND:FILE[,FILE...].
func parseMap(value string) (m mapSetting, err error) {
	name, rest, ok := strings.Cut(value, "=")
	kind, files, ok2 := strings.Cut(rest, ":")
	m.name = strings.TrimSpace(name)
	if !ok || !ok2 || m.name == "" || strings.ContainsAny(m.name, " \t:") {
		return m, fmt.Errorf("map %q: want NAME=KIND:FILE[,FILE...]", value)
	}
	if m.kind, err = ladder.ParseKind(strings.TrimSpace(kind)); err != nil {
		return m, fmt.Errorf("map %s: %w", m.name, err)
	}
	for file := range strings.SplitSeq(files, ",") {
		if file = strings.TrimSpace(file); file == "" {
			return m, fmt.Errorf("map %q: a file is missing", value)
		}
		m.files = append(m.files, file)
	}
	return m, nil
}

// file returns where the cache is kept over a restart, or nothing.
func (s *settings) file() string {
	if s.cacheStale == 0 {
		return ""
	}
	return daemon.StateFile(s.cacheFile, "cache")
}
