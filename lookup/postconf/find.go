package postconf

import (
	"maps"
	"slices"
	"strings"

	"dovepost/lookup/ladder"
)

// mapText is what takes the place of tables in a parameter of a service or of main.cf.
func (f *finder) mapText(service, name, tables string, walked, not bool) string {
	text := f.endpoint + ":" + name
	if walked {
		text = wrapper + text + wrapperEnd
	}
	if service != "" { // there are no blanks in master.cf
		tables = commas(tables)
	}
	if text = choice(text, tables); not {
		text = "!" + text
	}
	return text
}

// derived are the parameters whose default is another one with tables, of which they
// ask other keys. The defaults of others ask the same keys, and follow.
var derived = []string{"virtual_alias_domains", "virtual_mailbox_domains", "relay_domains"}

// parameter finds the tables of a parameter that is a list of tables.
func (f *finder) parameter(s scope, service, name string) error {
	raw, set := s.raw(name)
	if raw == "" || !set && !slices.Contains(derived, name) {
		return nil
	}
	place := where(service, name)
	u, _ := useOf(name)
	if u.stays != "" {
		f.kept = append(f.kept, kept{place, raw})
	}
	all, err := f.elements(s, place, raw, isTables)
	if err != nil {
		return err
	}
	ours := slices.ContainsFunc(all, func(e element) bool { return len(e.files) > 0 })
	switch {
	case !ours:
		return nil
	case u.stays != "":
		f.note(place, "stays with mysql: "+u.stays)
		return nil
	}
	e := &edit{service: service, parameter: name, raw: raw, set: set}
	runs, pure := group(all, u.order)
	if !pure && slices.ContainsFunc(runs, func(r run) bool { return r.name != "" }) &&
		slices.ContainsFunc(runs, func(r run) bool { return r.name == "" }) {
		f.note(place, "has tables beside a map that stands for tables; write them into its braces instead")
	}
	for _, r := range runs {
		m := Map{Name: r.name, Parameter: name, Service: service, Kind: u.kind, Files: r.files, Switched: r.name != ""}
		// A list of domains costs no more, and others ask it for parents: relay_domains = $mydestination.
		walked := !pure && (u.order == byKey && u.kind != ladder.Exact || u.kind == ladder.Domain) || walkedByPostfix(s, name) ||
			f.walked && (u.kind == ladder.Address || u.kind == ladder.Alias)
		if m.Switched {
			walked = r.walked
		} else {
			m.Name = f.name(service, name)
		}
		if walked {
			m.Kind = ladder.Exact
		}
		f.add(m)
		p := piece{start: r.start, end: r.end, name: m.Name, switched: m.Switched, tables: r.tables, not: r.not}
		if p.text = raw[r.start:r.end]; !m.Switched {
			p.tables = strings.TrimPrefix(p.text, "!")
			p.text = f.mapText(service, m.Name, p.tables, walked, r.not)
		}
		e.pieces = append(e.pieces, p)
	}
	f.edits = append(f.edits, e)
	return nil
}

// run is a row of tables that one map stands for.
type run struct {
	element
	last int // the index of its last element
}

// group joins tables that stand side by side. pure: there is one run and nothing else.
func group(all []element, o order) (runs []run, pure bool) {
	others := 0
	for i, e := range all {
		switch {
		case e.nothing():
			continue
		case e.other || len(e.files) == 0:
			others++
			continue
		}
		n := len(runs)
		if n > 0 && e.name == "" && runs[n-1].name == "" && runs[n-1].last == i-1 && !e.not && !runs[n-1].not {
			runs[n-1].files = append(runs[n-1].files, e.files...)
			runs[n-1].end, runs[n-1].last = e.end, i
			continue
		}
		e.files = slices.Clone(e.files)
		runs = append(runs, run{e, i})
	}
	return runs, others == 0 && len(runs) == 1
}

// classes finds the tables in the site's own classes of restrictions.
func (f *finder) classes(s scope) error {
	list, err := s.value("smtpd_restriction_classes")
	if err != nil {
		return err
	}
	for _, t := range tokenize(list, listSeparators) {
		if err := f.walk(s, "", t.text, ""); err != nil {
			return err
		}
	}
	return nil
}

// restrictions finds the tables of access restrictions.
func (f *finder) restrictions(s scope, service string, names []string) error {
	for _, name := range names {
		if err := f.walk(s, service, name, restrictions[name]); err != nil {
			return err
		}
	}
	return nil
}

// walk finds the access tables in a list of restrictions, and in the parameters that
// it refers to as a whole. bare is the check that a table without one stands for.
func (f *finder) walk(s scope, service, name, bare string) error {
	place := where(service, name)
	if slices.Contains(f.visited, place) {
		return nil
	}
	f.visited = append(f.visited, place)
	raw, set := s.raw(name)
	all, err := f.elements(s, place, raw, f.isDefined)
	if err != nil {
		return err
	}
	e := &edit{service: service, parameter: name, raw: raw, set: set}
	check := ""
	for _, t := range all {
		switch {
		case t.nothing():
		case check == "" && f.isDefined(t.text):
			inner, _ := macroName(t.text)
			if err := f.walk(scope{Config: f.config}, "", inner, bare); err != nil {
				return err
			}
			continue
		case len(t.files) > 0:
			if check == "" {
				check = bare
			}
			kind, known := checks[check]
			if !known || len(t.files) > 1 || t.not {
				f.note(place, t.text+" stays as it is: no access check before it")
				break
			}
			e.pieces = append(e.pieces, f.access(check, kind, t))
		}
		if check = ""; t.other {
			if lower := strings.ToLower(t.expanded); checks[lower] != "" {
				check = lower
			}
		}
	}
	if len(e.pieces) > 0 {
		f.edits = append(f.edits, e)
	}
	return nil
}

// access adds the map of one access table. Equal checks of equal tables share one.
func (f *finder) access(check string, kind ladder.Kind, t element) piece {
	m := Map{Name: t.name, Parameter: check, Kind: kind, Files: t.files, Switched: t.name != ""}
	p := piece{start: t.start, end: t.end, switched: m.Switched, tables: t.tables, text: t.text}
	if !m.Switched {
		key := check + " " + t.text
		if m.Name = f.shared[key]; m.Name == "" {
			m.Name = f.name("", check)
			f.shared[key] = m.Name
		}
		p.tables = t.text
		p.text = f.mapText("", m.Name, p.tables, false, false)
	}
	p.name = m.Name
	f.add(m)
	return p
}

func (f *finder) add(m Map) {
	if !slices.ContainsFunc(f.Maps, func(o Map) bool { return o.Name == m.Name }) {
		f.Maps = append(f.Maps, m)
	}
}

// unknown notes what names tables in MySQL in a place that is not known, unless another
// value refers to it.
func (f *finder) unknown() {
	for _, name := range slices.Sorted(maps.Keys(f.config.main)) {
		value := f.config.main[name]
		_, known := useOf(name)
		if known || harmless[name] || slices.Contains(f.visited, name) || !mentions(value) {
			continue
		}
		if !f.referred(name) {
			f.keep(name, value, "stays with mysql: "+noKeys)
		}
	}
}

// referred reports whether a value refers to a parameter.
func (f *finder) referred(name string) bool {
	refers := func(value string) bool {
		for _, form := range []string{"$" + name, "${" + name, "$(" + name} {
			for rest := value; ; {
				_, after, found := strings.Cut(rest, form)
				if !found {
					break
				}
				if nameLen(after) == 0 {
					return true
				}
				rest = after
			}
		}
		return false
	}
	for _, value := range f.config.main {
		if refers(value) {
			return true
		}
	}
	for _, s := range f.config.Services {
		if slices.ContainsFunc(s.Overrides, func(o Setting) bool { return refers(o.Value) }) {
			return true
		}
	}
	return false
}
