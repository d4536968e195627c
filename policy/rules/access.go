package rules

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"dovepost/policy"
)

// Bounds of an access list.
const (
	maxAccessLine = 4096     // octets of one logical line
	maxAccessFile = 64 << 20 // octets
)

// Access is an ordered list of what is allowed and denied. The first line that
// matches a request decides:
//
//	# FIELD     PATTERN             ACTION
//	client      192.0.2.0/24        REJECT no mail from this network
//	sender      <>                  DUNNO
//	sender      boss@example.com    OK
//	sender      .example.org        450 4.7.1 not today
//	recipient   info@               DUNNO
//	login       user@example.com    HOLD
//
// FIELD and PATTERN are
//
//	client              an address or a network, 192.0.2.1, 2001:db8::/32
//	sender, recipient   user@domain; domain or @domain (not its subdomains);
//	                    .domain (its subdomains only); user@ (in any domain);
//	                    <> (the null sender)
//	login               a login name; for names that are addresses also @domain, .domain, user@
//	any of them         * is whatever there is: any client, sender (not the null
//	                    sender), recipient, or logged-in client
//
// ACTION is one of access(5). DUNNO exempts: the list then has no opinion. Letters
// match in either case. A line that begins with a blank continues the one before,
// a line whose first character is # is a comment.
type Access struct {
	delimiter string
	rules     int
	fields    map[string]map[string]entry // field -> pattern in small letters
	networks  map[netip.Prefix]entry
	lengths   [2][]int // prefix lengths in use, IPv4 and IPv6
}

// entry is what one line says.
type entry struct {
	line   int // 0: no line
	action policy.Action
}

// before returns the one of two entries that comes first in the file.
func (e entry) before(other entry) entry {
	if other.line == 0 || e.line != 0 && e.line < other.line {
		return e
	}
	return other
}

func newAccess(delimiter string) *Access {
	return &Access{
		delimiter: delimiter,
		fields:    map[string]map[string]entry{"client": {}, "sender": {}, "recipient": {}, "login": {}},
		networks:  map[netip.Prefix]entry{},
	}
}

// ReadAccess reads an access list. delimiter holds the characters that begin an
// address extension, as Postfix's recipient_delimiter; user+ext@domain then also
// matches what is said of user@domain. Errors tell the line.
func ReadAccess(r io.Reader, delimiter string) (*Access, error) {
	a := newAccess(delimiter)
	scan := bufio.NewScanner(io.LimitReader(r, maxAccessFile+1))
	scan.Buffer(make([]byte, 0, maxAccessLine), maxAccessLine)
	var (
		logical  string
		start, n int
		total    int
	)
	flush := func() error {
		if logical == "" {
			return nil
		}
		err := a.add(start, logical)
		logical = ""
		if err != nil {
			return fmt.Errorf("line %d: %w", start, err)
		}
		return nil
	}
	for scan.Scan() {
		n++
		line := scan.Text()
		if total += len(line) + 1; total > maxAccessFile {
			return nil, fmt.Errorf("line %d: file is larger than %d octets", n, maxAccessFile)
		}
		text := strings.TrimSpace(line)
		switch {
		case text == "" || text[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			if logical == "" {
				return nil, fmt.Errorf("line %d: begins with white space but continues nothing", n)
			}
			if logical += " " + text; len(logical) > maxAccessLine {
				return nil, fmt.Errorf("line %d: longer than %d octets", n, maxAccessLine)
			}
		default:
			if err := flush(); err != nil {
				return nil, err
			}
			logical, start = text, n
		}
	}
	if err := scan.Err(); err != nil {
		return nil, fmt.Errorf("line %d: %w", n+1, err)
	}
	return a, flush()
}

// Len returns the number of rules.
func (a *Access) Len() int { return a.rules }

// add stores one logical line.
func (a *Access) add(line int, text string) error {
	words := strings.Fields(text)
	if len(words) < 3 {
		return errors.New("want FIELD PATTERN ACTION")
	}
	return a.addRule(line, words[0], words[1], strings.Join(words[2:], " "))
}

// addRule stores what a line or a row says.
func (a *Access) addRule(line int, field, pattern, text string) error {
	action, err := policy.ParseAction(text)
	if err != nil {
		return err
	}
	patterns, known := a.fields[strings.ToLower(field)]
	if !known {
		return fmt.Errorf("unknown field %.40q", field)
	}
	field, pattern = strings.ToLower(field), strings.ToLower(pattern)
	if pattern == "" {
		return errors.New("the pattern is empty")
	}
	e := entry{line, action}
	a.rules++
	if field == "client" && pattern != "*" {
		return a.addNetwork(pattern, e)
	}
	if err := checkPattern(field, pattern); err != nil {
		return err
	}
	if !strings.Contains(pattern, "@") && pattern[0] != '.' && pattern != "*" && pattern != "<>" && field != "login" {
		pattern = "@" + pattern
	}
	patterns[pattern] = patterns[pattern].before(e)
	return nil
}

func checkPattern(field, pattern string) error {
	at := strings.LastIndexByte(pattern, '@')
	switch {
	case pattern == "<>" && field != "sender":
		return fmt.Errorf("<> is for senders, not for %s", field)
	case pattern == "@" || pattern == ".":
		return fmt.Errorf("pattern %q is no address", pattern)
	case strings.ContainsRune(pattern, '*') && pattern != "*":
		return fmt.Errorf("pattern %.60q: * stands alone", pattern)
	case pattern[0] == '.' && at >= 0:
		return fmt.Errorf("pattern %.60q: neither a domain nor an address", pattern)
	}
	return nil
}

func (a *Access) addNetwork(pattern string, e entry) error {
	network, err := parseNetwork(pattern)
	if err != nil {
		return err
	}
	if _, again := a.networks[network]; !again {
		family := familyOf(network.Addr())
		a.lengths[family] = insert(a.lengths[family], network.Bits())
	}
	a.networks[network] = a.networks[network].before(e)
	return nil
}

// parseNetwork reads an address or a network whose host part is zero.
func parseNetwork(text string) (netip.Prefix, error) {
	if !strings.Contains(text, "/") {
		addr, err := netip.ParseAddr(text)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%.60q is neither an address nor a network", text)
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	network, err := netip.ParsePrefix(text)
	if err != nil || network.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%.60q is neither an address nor a network", text)
	}
	if network.Masked() != network {
		return netip.Prefix{}, fmt.Errorf("%s has bits beyond its prefix length: is it %s?", network, network.Masked())
	}
	return network, nil
}

func familyOf(addr netip.Addr) int {
	if addr.Is4() {
		return 0
	}
	return 1
}

func insert(lengths []int, n int) []int {
	for _, have := range lengths {
		if have == n {
			return lengths
		}
	}
	return append(lengths, n)
}

// Decide returns the action of the first line that matches, or DUNNO. It never fails.
func (a *Access) Decide(_ context.Context, r *policy.Request) (policy.Action, error) {
	return a.find(r).action, nil
}

// Find implements AccessList. It never fails.
func (a *Access) Find(_ context.Context, r *policy.Request) (action policy.Action, found bool, err error) {
	e := a.find(r)
	return e.action, e.line != 0, nil
}

// find returns the first line that matches.
func (a *Access) find(r *policy.Request) entry {
	found := a.client(r.ClientAddress)
	if knowsSender(r) {
		found = found.before(a.address("sender", r.Sender, isNullSender(r)))
	}
	if r.Recipient != "" {
		found = found.before(a.address("recipient", r.Recipient, false))
	}
	if r.SASLUsername != "" {
		found = found.before(a.address("login", r.SASLUsername, false))
	}
	return found
}

// knowsSender reports whether MAIL may have come.
func knowsSender(r *policy.Request) bool {
	return r.State != "CONNECT" && r.State != "EHLO" && r.State != "HELO"
}

// isNullSender reports whether the sender is the null sender, and not one that is not known yet.
func isNullSender(r *policy.Request) bool {
	return r.Sender == "" && knowsSender(r) && r.State != "ETRN" && r.State != "VRFY"
}

func (a *Access) client(addr netip.Addr) entry {
	found := a.fields["client"]["*"]
	if !addr.IsValid() {
		return found
	}
	addr = addr.Unmap().WithZone("")
	for _, bits := range a.lengths[familyOf(addr)] {
		if network, err := addr.Prefix(bits); err == nil {
			found = found.before(a.networks[network])
		}
	}
	return found
}

// address looks an address up in all the forms that a pattern may have. null says
// whether an empty address is the null sender.
func (a *Access) address(field, address string, null bool) entry {
	patterns := a.fields[field]
	if len(patterns) == 0 {
		return entry{}
	}
	if address == "" {
		if null {
			return patterns["<>"]
		}
		return entry{}
	}
	address = strings.ToLower(address)
	found := patterns["*"].before(patterns[address])
	local, domain := address, ""
	if at := strings.LastIndexByte(address, '@'); at >= 0 {
		local, domain = address[:at], address[at+1:]
	}
	found = found.before(patterns[local+"@"])
	if ext := strings.IndexAny(local, a.delimiter); ext > 0 {
		base := local[:ext]
		found = found.before(patterns[base+"@"+domain]).before(patterns[base+"@"])
	}
	if domain != "" {
		found = found.before(patterns["@"+domain])
	}
	for rest := domain; ; {
		dot := strings.IndexByte(rest, '.')
		if dot < 0 {
			return found
		}
		found = found.before(patterns[rest[dot:]])
		rest = rest[dot+1:]
	}
}
