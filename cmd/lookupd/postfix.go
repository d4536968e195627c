package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"dovepost/cmd/internal/daemon"
	"dovepost/lookup"
	"dovepost/lookup/mysql"
	"dovepost/lookup/postconf"
)

// unitEndpoint is where the unit listens, below the queue directory.
const unitEndpoint = "socketmap:unix:dovepost/lookup"

// endpoint returns how Postfix reaches the first socketmap listener: a socket below
// the queue directory by its path in there, which is right in a chroot, too.
func (s *settings) endpoint(c *postconf.Config) (string, error) {
	queue, err := c.Value("queue_directory")
	if err != nil {
		return "", err
	}
	values, err := s.fs.GetStringArray("listen")
	if err != nil {
		return "", err
	}
	endpoint := ""
	for _, value := range values {
		l, err := daemon.ParseListen(value)
		switch {
		case err != nil:
			return "", err
		case l.Kind != "socketmap":
			continue
		case l.Network != "unix":
			endpoint = "socketmap:inet:" + l.Address
		default:
			endpoint = "socketmap:unix:" + l.Address
			if below, err := filepath.Rel(queue, l.Address); err == nil && filepath.IsLocal(below) {
				return "socketmap:unix:" + below, nil
			}
		}
	}
	if endpoint == "" {
		endpoint = unitEndpoint
	}
	return endpoint, nil
}

// plan reads main.cf and finds the tables in it. Those that cannot be served stay as they are,
// unless Postfix asks for them already.
func (s *settings) plan() (*postconf.Config, *postconf.Plan, error) {
	c, err := postconf.Read(s.postfix)
	if err != nil {
		return nil, nil, err
	}
	endpoint, err := s.endpoint(c)
	if err != nil {
		return nil, nil, err
	}
	p, err := c.Find(endpoint)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", s.postfix, err)
	}
	site, err := s.parseMaps()
	if err != nil {
		return nil, nil, err
	}
	for _, m := range slices.Clone(p.Maps) {
		if _, own := site[m.Name]; own || m.Switched {
			continue
		}
		for _, path := range m.Files {
			err := readable(path)
			if errors.Is(err, fs.ErrPermission) {
				return nil, nil, err // root, who prints the commands, may read it, and would switch
			}
			if err != nil {
				p.Leave(m.Name, err.Error())
				break
			}
		}
	}
	return c, p, nil
}

// readable tells why the file of a table cannot be served.
func readable(path string) error {
	f, err := mysql.ReadFile(path)
	if err == nil {
		_, err = mysql.NewTable(f, nil)
	}
	return err
}

// withMainCf returns the settings, those that main.cf has, too, from there unless
// they were set for lookupd.
func (s *settings) withMainCf(c *postconf.Config) (settings, error) {
	merged := *s
	for name, to := range map[string]*string{
		"recipient_delimiter":              &merged.delimiter,
		"propagate_unmatched_extensions":   &merged.propagate,
		"parent_domain_matches_subdomains": &merged.parents,
	} {
		if s.fs.Changed(name) {
			continue
		}
		var err error
		if *to, err = c.Value(name); err != nil {
			return merged, err
		}
	}
	if !s.fs.Changed("local_domains") {
		domains, err := c.LocalDomains()
		if err != nil {
			return merged, err
		}
		merged.localDomains = strings.Join(domains, " ")
	}
	return merged, merged.check()
}

// postfixMaps adds the maps that main.cf names, but for those that the site has itself.
func (b *builder) postfixMaps(site map[string]mapSetting) error {
	c, p, err := b.plan()
	if err != nil {
		return err
	}
	if b.settings, err = b.withMainCf(c); err != nil {
		return fmt.Errorf("%s: %w", b.postfix, err)
	}
	for _, n := range p.Notes {
		b.env.Log.Warn("main.cf", "note", n.String())
	}
	var broken error
	served := 0
	for _, m := range p.Maps {
		if _, own := site[m.Name]; own {
			continue
		}
		err := b.files(mapSetting{m.Name, m.Kind, m.Files}, m.Parameter)
		if err == nil {
			served++
			continue
		}
		err = fmt.Errorf("map %s: %w", m.Name, err)
		if broken = err; b.state.pools.Strict() {
			return err
		}
		b.env.Log.Error("a file is wrong: all keys of its map are a temporary error", "err", err)
		b.state.maps[m.Name] = lookup.Func(func(context.Context, string) ([]string, error) { return nil, err })
	}
	b.asked = p.Asked
	if served == 0 {
		return broken
	}
	return nil
}

// unserved finds maps that Postfix asks for and that there are not: all that it does
// with them would wait for ever.
func (b *builder) unserved() error {
	for _, name := range slices.Sorted(maps.Keys(b.asked)) {
		if b.state.maps[name] == nil {
			return fmt.Errorf("%s: %s asks for the map %s, and neither main.cf nor --map says which tables that is",
				b.postfix, b.asked[name], name)
		}
	}
	return nil
}

// print answers --print_main_cf.
func (l *lookupd) print(w io.Writer, _ *slog.Logger) (done bool, err error) {
	switch l.printMainCf {
	case "":
		return false, nil
	case "all", "switch", "back":
	default:
		return false, daemon.ConfigError(fmt.Errorf("print_main_cf: %q is not all, switch or back", l.printMainCf))
	}
	if l.postfix == "" {
		return false, daemon.ConfigError(errors.New("print_main_cf: there is no --postfix"))
	}
	_, p, err := l.plan()
	if err != nil {
		return false, daemon.ConfigError(err)
	}
	if l.printMainCf == "back" {
		_, err = fmt.Fprintln(w, strings.Join(p.Back(), "\n"))
		return true, err
	}
	lines := append([]string{"# To have Postfix ask lookupd, which must be running:"}, p.Switch()...)
	lines = append(lines, "# Then: postfix reload")
	if l.printMainCf == "all" {
		lines = append(lines, "#", "# To go back:")
		for _, line := range p.Back() {
			lines = append(lines, "#"+strings.TrimPrefix(line, "#"))
		}
		lines = append(lines, "# Then: postfix reload")
	}
	_, err = fmt.Fprintln(w, strings.Join(lines, "\n"))
	return true, err
}
