package rules

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
)

// maxCountries bounds the networks of a file.
const maxCountries = 4 << 20

// Countries tells in which country a network is.
type Countries struct {
	networks map[netip.Prefix]string
	lengths  [2][]int // prefix lengths in use, IPv4 and IPv6, the longest first
}

// ReadCountries reads lines of a network and a country, with blanks or a comma between them:
//
//	192.0.2.0/24  DE
//
// # begins a comment. Of several networks that have an address the smallest counts. Errors tell the line.
func ReadCountries(r io.Reader) (*Countries, error) {
	c := &Countries{networks: map[netip.Prefix]string{}}
	names := map[string]string{} // one copy of each
	scan := bufio.NewScanner(r)
	scan.Buffer(nil, maxAccessLine)
	n := 0
	for scan.Scan() {
		n++
		line, _, _ := strings.Cut(scan.Text(), "#")
		words := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' || r == ',' || r == '\r' })
		if len(words) == 0 {
			continue
		}
		if len(words) != 2 || len(words[1]) > 64 {
			return nil, fmt.Errorf("line %d: want a network and a country", n)
		}
		network, err := parseNetwork(words[0])
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		name := strings.ToUpper(words[1])
		if names[name] == "" {
			names[name] = strings.Clone(name)
		}
		family := familyOf(network.Addr())
		c.lengths[family] = insert(c.lengths[family], network.Bits())
		if c.networks[network] = names[name]; len(c.networks) > maxCountries {
			return nil, fmt.Errorf("line %d: more than %d networks", n, maxCountries)
		}
	}
	if err := scan.Err(); err != nil {
		return nil, fmt.Errorf("line %d: %w", n+1, err)
	}
	for i := range c.lengths {
		slices.Sort(c.lengths[i])
		slices.Reverse(c.lengths[i])
	}
	return c, nil
}

// Of returns the country of an address; empty: it is not known.
func (c *Countries) Of(addr netip.Addr) string {
	addr = addr.Unmap().WithZone("")
	if !addr.IsValid() {
		return ""
	}
	for _, bits := range c.lengths[familyOf(addr)] {
		network, _ := addr.Prefix(bits)
		if country := c.networks[network]; country != "" {
			return country
		}
	}
	return ""
}
