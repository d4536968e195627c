package postconf

import (
	"slices"
	"strings"
)

// Proxymap(8) reads the tables that proxy_read_maps names, mostly through the parameters
// that have them, and a process of Postfix that asks it for another one dies. After a switch
// there are processes for a while that still have the tables. So the tables
// remain in proxy_read_maps, both ways: before its default, or after what the site has there.
const (
	allowed = "proxy_read_maps"
	proxied = knob + "_tables"
)

// allow returns the commands that have proxymap read the tables after the switch, too.
func (p *Plan) allow() (lines []string) {
	if len(p.proxied) == 0 {
		return nil
	}
	slices.Sort(p.proxied)
	tables := strings.Join(slices.Compact(p.proxied), " ")
	if p.config.main[proxied] != tables {
		lines = append(lines, p.postconf("-e", []string{quote(proxied + " = " + tables)}))
	}
	switch raw, set := p.config.main[allowed]; {
	case !set:
		was := `"$(` + p.postconf("-dh", []string{allowed}) + `)"`
		lines = append(lines, p.postconf("-e", []string{quote(allowed+" = $"+proxied+" ") + was}))
	case !slices.Contains(strings.Fields(raw), "$"+proxied):
		lines = append(lines, p.postconf("-e", []string{quote(strings.TrimSpace(allowed+" = "+raw) + " $" + proxied)}))
	}
	return lines
}

// disallow returns the commands that undo allow.
func (p *Plan) disallow() []string {
	if _, set := p.config.main[proxied]; !set && len(p.proxied) == 0 {
		return nil
	}
	raw, set := p.config.main[allowed]
	back := p.postconf("-X", []string{allowed})
	if set && !strings.HasPrefix(raw, "$"+proxied+" ") {
		raw = strings.TrimSpace(strings.TrimSuffix(raw, "$"+proxied))
		back = p.postconf("-e", []string{quote(allowed + " = " + raw)})
	}
	return []string{back, p.postconf("-X", []string{proxied})}
}
