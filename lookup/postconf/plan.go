package postconf

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"dovepost/lookup/ladder"
)

// Map is one map to serve: what Postfix asks under Name, and of which files.
type Map struct {
	Name string
	// Parameter is where it stands: a parameter of Postfix, or the check of an access table.
	Parameter string
	// Service is the service of master.cf that has the parameter, such as
	// submission/inet; empty for main.cf.
	Service string
	Kind    ladder.Kind
	// Files are mysql_table(5) files, in the order in which they are asked.
	Files []string
	// Switched: Postfix already asks the socketmap.
	Switched bool
}

// Note says why something stays as it is.
type Note struct{ Where, Why string }

func (n Note) String() string { return n.Where + ": " + n.Why }

// Plan is what there is to serve, and how to have Postfix ask for it.
type Plan struct {
	Maps  []Map
	Notes []Note
	// Asked are maps that Postfix asks lookupd for although their tables are not known:
	// the name, and where it stands.
	Asked map[string]string

	config   *Config // as it is without the knob
	on       bool    // the knob is set
	endpoint string
	edits    []*edit
	proxied  []string // the tables that are asked for through proxymap(8)
}

// knob is the parameter that says whether Postfix asks lookupd; see the package's comment.
const knob = "dovepost"

// edit is a value to change.
type edit struct {
	service   string // empty: main.cf
	parameter string
	raw       string // as it stands
	set       bool   // in a file, not a default
	pieces    []piece
	why       string // not empty: it must not be done, and why
}

// piece is a part of a value that names tables.
type piece struct {
	start, end int
	name       string // of the map
	tables     string // as they stood before the switch
	not        bool   // with a ! before them
	switched   bool
	text       string // what stands in their place then
}

// Find finds all tables in MySQL. endpoint is how Postfix reaches lookupd:
// socketmap:unix:dovepost/lookup.
//
// What cannot be replaced is no error but a Note. Errors: a value that cannot be expanded.
func (c *Config) Find(endpoint string) (*Plan, error) {
	// Without the knob all values are those that name tables.
	native := *c
	native.main = maps.Clone(c.main)
	delete(native.main, knob)
	f := &finder{Plan: &Plan{Asked: map[string]string{}, config: &native, on: c.main[knob] != "", endpoint: endpoint},
		used: map[string]bool{}, shared: map[string]string{}}
	c = &native
	literal := f.reserve()
	main := scope{Config: c}
	var err error
	if f.walked, err = main.localInTables(); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(uses)) {
		for _, name := range both(name) {
			if err := f.parameter(main, "", name); err != nil {
				return nil, err
			}
		}
	}
	if err := f.restrictions(main, "", slices.Sorted(maps.Keys(restrictions))); err != nil {
		return nil, err
	}
	if err := f.classes(main); err != nil {
		return nil, err
	}
	for _, s := range c.Services {
		scope := scope{c, s.Overrides}
		for _, o := range s.Overrides {
			if _, ok := useOf(o.Name); ok {
				err = f.parameter(scope, s.Name, o.Name)
			} else if _, ok := restrictions[o.Name]; ok {
				err = f.restrictions(scope, s.Name, []string{o.Name})
			} else if mentions(o.Value) {
				f.keep(where(s.Name, o.Name), o.Value, noKeys)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	for name, place := range literal {
		if !slices.ContainsFunc(f.Maps, func(m Map) bool { return m.Name == name }) {
			f.Asked[name] = place
		}
	}
	f.unknown()
	f.deliveredByVirtual()
	f.hold()
	return f.Plan, nil
}

// Leave takes a map out of the plan that cannot be served: what has its tables stays as it is.
func (p *Plan) Leave(name, why string) {
	p.Maps = slices.DeleteFunc(p.Maps, func(m Map) bool { return m.Name == name })
	p.Notes = append(p.Notes, Note{name, "cannot be served: " + why})
	for _, e := range p.edits {
		if slices.ContainsFunc(e.pieces, func(piece piece) bool { return piece.name == name }) {
			e.why = "the map " + name + " cannot be served"
		}
	}
}

// both returns a parameter of lmtp(8) with its twin of smtp(8).
func both(name string) []string {
	if twin, ok := strings.CutPrefix(name, "lmtp_"); ok {
		return []string{name, "smtp_" + twin}
	}
	return []string{name}
}

// useOf returns what is known of a parameter with tables.
func useOf(name string) (use, bool) {
	lmtp := name
	if twin, ok := strings.CutPrefix(name, "smtp_"); ok {
		lmtp = "lmtp_" + twin
	}
	u, ok := uses[lmtp]
	return u, ok
}

// walkedByPostfix reports whether Postfix must go through the keys of a parameter
// itself: it searches for the sender's address, and for hosts exactly.
func walkedByPostfix(s scope, name string) bool {
	agent, found := strings.CutSuffix(name, "_sasl_password_maps")
	if !found {
		return false
	}
	value, err := s.value(agent + "_sender_dependent_authentication")
	return err == nil && strings.EqualFold(value, "yes")
}

// finder collects a plan.
type finder struct {
	*Plan
	used    map[string]bool   // names of maps
	shared  map[string]string // check and tables -> name
	visited []string          // parameters that restrictions were found in
	kept    []kept
	walked  bool // mydestination is in tables: see localInTables
}

func where(service, parameter string) string {
	if service == "" {
		return parameter
	}
	return service + "/" + parameter
}

func (f *finder) note(where, why string) {
	if n := (Note{where, why}); !slices.Contains(f.Notes, n) {
		f.Notes = append(f.Notes, n)
	}
}

// mentions reports whether a value may name a table in MySQL.
func mentions(value string) bool { return strings.Contains(value, "mysql:") }

// reserve marks the names that Postfix asks for already, or would with the knob. It returns
// the former, and where they stand.
func (f *finder) reserve() map[string]string {
	literal := map[string]string{}
	look := func(place, value string) {
		for _, t := range tokenize(value, listSeparators) {
			text := strings.TrimPrefix(t.text, "!")
			if name, tables, _, ok := splitChoice(text); ok {
				f.used[name] = true
				if check := strings.TrimSuffix(strings.TrimRight(name, "0123456789"), "_"); checks[check] != "" {
					f.shared[check+" "+tables] = name
				}
				if f.on {
					literal[name] = place
				}
			} else if name, _, ok := mapName(text); ok && strings.Contains(text, f.endpoint+":"+name) {
				f.used[name] = true
				literal[name] = place
			}
		}
	}
	for name, value := range f.config.main {
		look(name, value)
	}
	for _, s := range f.config.Services {
		for _, o := range s.Overrides {
			look(where(s.Name, o.Name), o.Value)
		}
	}
	return literal
}

// name returns a name for a map that no other has.
func (f *finder) name(service, parameter string) string {
	base := parameter
	if service != "" {
		base = strings.Map(func(r rune) rune {
			if nameLen(string(r)) == 0 {
				return '_'
			}
			return r
		}, service) + "_" + parameter
	}
	name := base
	for n := 2; f.used[name]; n++ {
		name = base + "_" + strconv.Itoa(n)
	}
	f.used[name] = true
	return name
}

// wrapper makes Postfix go through the keys itself: a union is asked as its first
// table is, and this one never answers.
const wrapper, wrapperEnd = "unionmap:{inline:{none@invalid.=x},", "}"

// mapName returns the name of the map if an element of a list is a socketmap, and whether
// Postfix goes through its keys.
func mapName(element string) (name string, walked, ok bool) {
	if inner, found := strings.CutPrefix(element, wrapper); found {
		element, walked = strings.TrimSuffix(inner, wrapperEnd), true
	}
	rest, found := strings.CutPrefix(element, "socketmap:")
	i := strings.LastIndexByte(rest, ':')
	if !found || i < 0 || i == len(rest)-1 || nameLen(rest[i+1:]) != len(rest[i+1:]) {
		return "", false, false
	}
	return rest[i+1:], walked, true
}

// choice is what has Postfix ask a map, or the tables that it stands for.
func choice(socketmap, tables string) string {
	return "${" + knob + "?{" + socketmap + "}:{" + tables + "}}"
}

// splitChoice returns the map and the tables of a choice.
func splitChoice(text string) (name, tables string, walked, ok bool) {
	if !strings.HasPrefix(text, "${"+knob+"?") {
		return "", "", false, false
	}
	m, n, err := parseMacro(text[1:])
	if err != nil || n != len(text)-1 {
		return "", "", false, false
	}
	name, walked, ok = mapName(strings.Trim(m.ifTrue, spaces))
	tables = strings.Trim(m.ifFalse, spaces)
	return name, tables, walked, ok && tables != ""
}

// tableFile returns the file of an element that is a table in MySQL.
func (f *finder) tableFile(element string) (path, why string, mysql bool) {
	path, mysql = strings.CutPrefix(strings.TrimPrefix(element, "proxy:"), "mysql:")
	switch {
	case !mysql:
		return "", "", false
	case strings.ContainsAny(path, "{}"):
		return "", element + " has a brace in the name of its file", true
	case strings.HasPrefix(path, "/"):
		return path, "", true
	case strings.HasPrefix(path, "."):
		queue, err := f.config.Value("queue_directory")
		if err != nil {
			return "", err.Error(), true
		}
		return filepath.Join(queue, path), "", true
	}
	return "", fmt.Sprintf("%s has its settings in main.cf; put them in a file, as mysql_table(5) says, and name that", element), true
}
