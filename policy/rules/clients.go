package rules

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"strings"
)

// Clients is a set of SMTP clients, read from lines of
//
//	192.0.2.1, 192.0.2.0/24, 2001:db8::/32    an address or a network
//	mail.example.com                          a client of that verified name
//	.example.com                              and of any name below that domain
//
// with comments after #. A nil Clients has none.
type Clients struct {
	networks map[netip.Prefix]bool
	lengths  [2][]int // prefix lengths in use, IPv4 and IPv6
	names    map[string]bool
}

// ParseNetworks reads addresses and networks as Postfix's mynetworks has them: separated by
// commas or blanks, IPv6 ones also as [::1]/128.
func ParseNetworks(text string) (*Clients, error) {
	c := newClients()
	for _, word := range strings.FieldsFunc(text, isSeparator) {
		if !strings.ContainsAny(word, ".:") {
			return nil, fmt.Errorf("%.60q is neither an address nor a network", word)
		}
		if err := c.addNetwork(strings.NewReplacer("[", "", "]", "").Replace(word)); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func newClients() *Clients {
	return &Clients{networks: map[netip.Prefix]bool{}, names: map[string]bool{}}
}

func isSeparator(r rune) bool { return strings.ContainsRune(" \t\r\n,", r) }

// ReadClients reads a list of clients. Errors tell the line.
func ReadClients(r io.Reader) (*Clients, error) {
	c := newClients()
	scan := bufio.NewScanner(io.LimitReader(r, maxAccessFile))
	scan.Buffer(make([]byte, 0, maxAccessLine), maxAccessLine)
	n := 0
	for scan.Scan() {
		n++
		line, _, _ := strings.Cut(scan.Text(), "#")
		for _, word := range strings.FieldsFunc(line, isSeparator) {
			if err := c.add(strings.ToLower(word)); err != nil {
				return nil, fmt.Errorf("line %d: %w", n, err)
			}
		}
	}
	if err := scan.Err(); err != nil {
		return nil, fmt.Errorf("line %d: %w", n+1, err)
	}
	return c, nil
}

// Len returns how many entries there are.
func (c *Clients) Len() int {
	if c == nil {
		return 0
	}
	return len(c.networks) + len(c.names)
}

func (c *Clients) add(word string) error {
	if strings.ContainsAny(word, "/:") || strings.Trim(word, "0123456789.") == "" {
		return c.addNetwork(word)
	}
	name := strings.TrimPrefix(word, ".")
	if !strings.Contains(name, ".") || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
		return fmt.Errorf("%.60q is no address, no network and no host name of two labels or more", word)
	}
	c.names[word] = true
	return nil
}

func (c *Clients) addNetwork(text string) error {
	network, err := parseNetwork(text)
	if err != nil {
		// Postfix's [::ffff:127.0.0.0]/104 is 127.0.0.0/8.
		mapped, failed := netip.ParsePrefix(text)
		if failed != nil || !mapped.Addr().Is4In6() || mapped.Bits() < 96 {
			return err
		}
		network = netip.PrefixFrom(mapped.Addr().Unmap(), mapped.Bits()-96).Masked()
	}
	family := familyOf(network.Addr())
	c.lengths[family] = insert(c.lengths[family], network.Bits())
	c.networks[network] = true
	return nil
}

// has reports whether a client is in the set. name is Postfix's client_name, which is
// "unknown" where name and address do not confirm each other.
func (c *Clients) has(client netip.Addr, name string) bool {
	if c == nil {
		return false
	}
	client = client.Unmap().WithZone("")
	if client.IsValid() {
		for _, bits := range c.lengths[familyOf(client)] {
			if network, err := client.Prefix(bits); err == nil && c.networks[network] {
				return true
			}
		}
	}
	if len(c.names) == 0 || name == "" || name == "unknown" {
		return false
	}
	name = strings.ToLower(name)
	if c.names[name] {
		return true
	}
	for {
		dot := strings.IndexByte(name, '.')
		if dot < 0 {
			return false
		}
		if c.names[name[dot:]] {
			return true
		}
		name = name[dot+1:]
	}
}
