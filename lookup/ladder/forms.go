package ladder

import (
	"iter"
	"net/netip"
	"strings"

	"dovepost/lookup/fold"
)

// A form is one key to ask for.
type form struct {
	key string // not folded yet
	// For Alias: the local part of the address without, and the extension that is
	// not part of key, with its delimiter. Neither is quoted or folded.
	local, ext string
}

// forms returns what to ask for, in the order of Postfix. A domain is asked for as it was
// written, in U-labels or in A-labels: Postfix does not convert them either, so a table has
// the form that clients use, or both.
func (l *Ladder) forms(key string) iter.Seq[form] {
	return func(yield func(form) bool) {
		w := &walk{Ladder: l, yield: yield}
		w.key(key)
	}
}

// walk hands out the forms until one is the last.
type walk struct {
	*Ladder
	yield func(form) bool
	last  string
	done  bool

	// For keys that are addresses:
	quoted   bool // ask for the quoted form
	unquoted bool // ask for the unquoted form where it differs, or instead
}

func (w *walk) try(f form) {
	if !w.done && f.key != "" && f.key != w.last {
		w.last = f.key
		w.done = !w.yield(f)
	}
}

// key hands out the forms of a whole key.
func (w *walk) key(key string) {
	at := strings.LastIndexByte(key, '@')
	switch {
	case w.kind == Address || w.kind == Alias:
		w.address(key)
	case w.kind == Transport && at >= 0:
		w.transport(key)
	case w.kind == AccessAddress && at >= 0:
		w.access(key)
	case w.kind == DomainParents, w.kind == AccessClient:
		w.host(key)
	default: // Domain, Exact; "*" in transport_maps, "<>" in access maps
		w.try(form{key: key})
	}
}

// address is mail_addr_find with its default strategy.
func (w *walk) address(key string) {
	a := w.split(key)
	w.full(a)
	if w.done {
		return
	}
	if a.at && len(w.local) > 0 && w.local[fold.String(a.domain)] {
		w.localpart(a.user+a.ext, form{local: a.user + a.ext})
		if a.ext != "" {
			w.localpart(a.user, form{local: a.user, ext: a.ext})
		}
	}
	if a.at {
		w.try(form{key: "@" + a.domain, local: a.user + a.ext})
	}
}

// transport is the search of transport(5).
func (w *walk) transport(key string) {
	a := w.split(key)
	w.full(a)
	w.parents(a.domain)
}

// access is the search of access(5) for an address.
func (w *walk) access(key string) {
	a := w.split(key)
	w.full(a)
	w.parents(a.domain)
	w.internal(a.user+a.ext+"@", form{})
	if a.ext != "" {
		w.internal(a.user+"@", form{})
	}
}

// full hands out user+ext@domain and user@domain.
func (w *walk) full(a address) {
	domain := a.domain
	if a.at {
		domain = "@" + domain
	}
	w.internal(a.user+a.ext+domain, form{local: a.user + a.ext})
	if a.ext != "" {
		w.internal(a.user+domain, form{local: a.user, ext: a.ext})
	}
}

// internal hands out an unquoted address in the forms that it is looked up in.
func (w *walk) internal(addr string, f form) { w.both(quote(addr), addr, f) }

// localpart hands out an unquoted local part in the forms that it is looked up in.
func (w *walk) localpart(local string, f form) { w.both(quoteLocal(local), local, f) }

func (w *walk) both(quoted, unquoted string, f form) {
	if w.quoted {
		f.key = quoted
		w.try(f)
	}
	if w.unquoted && (!w.quoted || quoted != unquoted) {
		f.key = unquoted
		w.try(f)
	}
}

// host hands out a host name and its parents, or an IP address and, for
// AccessClient, its networks.
func (w *walk) host(name string) {
	if _, err := netip.ParseAddr(name); err != nil {
		w.parents(name)
		return
	}
	w.try(form{key: name})
	separator := "."
	if strings.Contains(name, ":") {
		separator = ":"
	}
	for w.kind == AccessClient && !w.done {
		end := strings.LastIndex(name, separator)
		if end < 0 {
			return
		}
		name = name[:end]
		w.try(form{key: name})
	}
}

// maxLabels is more than a domain name can have (RFC 1035 2.3.4). What has more
// cannot be anybody's, and must not cost a query for each.
const maxLabels = 128

// parents hands out a domain and its parents.
func (w *walk) parents(domain string) {
	for n := 0; n < maxLabels && domain != "" && !w.done; n++ {
		w.try(form{key: domain})
		dot := strings.IndexByte(domain[1:], '.')
		if dot < 0 {
			return
		}
		domain = domain[1+dot:]
		if !w.dots {
			domain = domain[1:]
		}
	}
}

// An address is a mail address in internal form, that is without quoting:
// user+ext@domain, ext with its delimiter.
type address struct {
	user, ext, domain string
	at                bool // there is an @
}

// split takes an address apart. Postfix asks for the quoted form first and for the
// unquoted one after it where that is another key; what is no quoted form must be
// such a second request, and is taken as it is.
func (w *walk) split(key string) (a address) {
	addr := unquote(key)
	external := quote(addr) == key
	if !external {
		addr = key
	}
	w.quoted = external
	w.unquoted = !external || w.kind != Alias
	a.user = addr
	if at := strings.LastIndexByte(addr, '@'); at >= 0 {
		a.user, a.domain, a.at = addr[:at], addr[at+1:], true
	}
	if i := splitLocal(a.user, w.delimiter); i > 0 {
		a.user, a.ext = a.user[:i], a.user[i:]
	}
	return a
}

// splitLocal returns where the extension of a local part begins, or 0. Some
// addresses are never split: bounces would go astray.
func splitLocal(local, delimiters string) int {
	i := strings.IndexAny(local, delimiters)
	if i <= 0 {
		return 0
	}
	for _, name := range []string{"postmaster", "mailer-daemon", "double-bounce"} {
		if strings.EqualFold(local, name) {
			return 0
		}
	}
	if strings.Contains(delimiters, "-") {
		const owner, request = "owner-", "-request"
		if len(local) >= len(owner) && strings.EqualFold(local[:len(owner)], owner) {
			return 0
		}
		if n := len(local) - len(request); n > 0 && strings.EqualFold(local[n:], request) {
			return 0
		}
	}
	return i
}
