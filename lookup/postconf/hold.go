package postconf

import (
	"slices"
	"strings"
)

// kept is a value that stays with MySQL.
type kept struct{ place, value string }

// keep notes that a value stays with MySQL, and why.
func (f *finder) keep(place, value, why string) {
	f.note(place, why)
	f.kept = append(f.kept, kept{place, value})
}

// hold keeps also the parameters that such values are made of: with alias_maps =
// $virtual_alias_maps a switch would give local(8) the socketmap, which it does not take.
func (f *finder) hold() {
	for _, e := range f.edits {
		if e.why != "" {
			f.kept = append(f.kept, kept{where(e.service, e.parameter), e.raw})
		}
	}
	for i := 0; i < len(f.kept); i++ {
		macros := map[string]bool{}
		f.macros(f.kept[i].value, macros)
		for _, e := range f.edits {
			if e.service == "" && e.why == "" && macros[e.parameter] {
				e.why = f.kept[i].place + " refers to it and stays with mysql: write the tables out there first"
				f.kept = append(f.kept, kept{e.parameter, e.raw})
			}
		}
	}
}

// macros adds the parameters that a value refers to, by way of others, too.
func (f *finder) macros(value string, to map[string]bool) {
	for rest, found := value, true; ; {
		if _, rest, found = strings.Cut(rest, "$"); !found {
			return
		}
		rest = strings.TrimLeft(rest, "{("+spaces)
		if name := rest[:nameLen(rest)]; name != "" && !to[name] {
			to[name] = true
			raw, _ := scope{Config: f.config}.raw(name)
			f.macros(raw, to)
		}
	}
}

// deliverers are the parameters that name a transport.
var deliverers = []string{"virtual_transport", "local_transport", "mailbox_transport", "fallback_transport", "relay_transport", "default_transport"}

// deliveredByVirtual keeps virtual_mailbox_maps for virtual(8), where that delivers.
func (f *finder) deliveredByVirtual() {
	keep := func(place, transport string) {
		for _, e := range f.edits {
			if e.parameter == "virtual_mailbox_maps" && f.isVirtual(transport) {
				e.why = place + " is " + transport + ", and virtual(8) takes no socketmap: have mail delivered by LMTP first"
			}
		}
	}
	for _, name := range deliverers {
		if value, err := f.config.Value(name); err == nil {
			keep(name, value)
		}
	}
	for _, s := range f.config.Services {
		for _, o := range s.Overrides {
			if value, err := (scope{f.config, s.Overrides}).value(o.Name); err == nil && slices.Contains(deliverers, o.Name) {
				keep(where(s.Name, o.Name), value)
			}
		}
	}
}

// isVirtual reports whether a transport, with or without a destination, is served by virtual(8).
func (f *finder) isVirtual(transport string) bool {
	name, _, _ := strings.Cut(transport, ":")
	command := name
	for _, s := range f.config.Services {
		if s.Name == name+"/unix" {
			command = s.Command
		}
	}
	return command == "virtual"
}
