package postconf

import (
	"fmt"
	"slices"
	"strings"
)

// Switch returns the shell commands that have Postfix ask the maps of the plan. Lines
// that begin with # say what stays as it is. A reload of Postfix must follow.
func (p *Plan) Switch() []string {
	var lines []string
	for _, n := range p.Notes {
		lines = append(lines, "# "+n.String())
	}
	var kept []string
	for _, e := range p.edits {
		var keep []string
		value := e.replace(func(piece piece) (string, bool) {
			name := keepPrefix + piece.name
			if !piece.switched && !slices.Contains(kept, name) && p.config.main[name] != piece.tables {
				kept = append(kept, name)
				keep = append(keep, quote(name+" = "+piece.tables))
			}
			return piece.text, !piece.switched
		})
		if value == e.raw {
			continue
		}
		set := p.postconf("-e", keep)
		if e.service == "" {
			set = p.postconf("-e", append(keep, quote(e.parameter+" = "+value)))
		}
		all := []string{set}
		if e.service != "" {
			if len(keep) == 0 {
				all = nil
			}
			all = append(all, p.service(e, value))
		}
		if e.why != "" {
			lines = append(lines, "# "+where(e.service, e.parameter)+" stays as it is: "+e.why+". Then:")
			for i := range all {
				all[i] = "#" + all[i]
			}
		}
		lines = append(lines, all...)
	}
	return lines
}

// Back returns the shell commands that have Postfix ask MySQL itself again.
func (p *Plan) Back() []string {
	var lines, names []string
	for _, e := range p.edits {
		value := e.replace(func(piece piece) (string, bool) {
			if name := keepPrefix + piece.name; !slices.Contains(names, name) {
				names = append(names, name)
			}
			if piece.not {
				return "!" + piece.tables, true
			}
			return piece.tables, true
		})
		switch {
		case e.service != "":
			lines = append(lines, p.service(e, value))
		case !e.set, value == defaults[e.parameter] && e.pieces[0].switched:
			lines = append(lines, p.postconf("-X", []string{e.parameter}))
		default:
			lines = append(lines, p.postconf("-e", []string{quote(e.parameter + " = " + value)}))
		}
	}
	if len(names) > 0 {
		lines = append(lines, p.postconf("-X", names))
	}
	return lines
}

// replace returns the value with other texts for its pieces.
func (e *edit) replace(with func(piece) (text string, change bool)) string {
	var b strings.Builder
	end := 0
	for _, p := range e.pieces {
		b.WriteString(e.raw[end:p.start])
		if text, change := with(p); change {
			b.WriteString(text)
		} else {
			b.WriteString(e.raw[p.start:p.end])
		}
		end = p.end
	}
	b.WriteString(e.raw[end:])
	return b.String()
}

// service returns the command that sets a parameter of a service. postconf(1) takes no
// blanks there, and a list needs none.
func (p *Plan) service(e *edit, value string) string {
	var words []string
	for _, t := range tokenize(value, listSeparators) {
		if strings.ContainsAny(t.text, spaces) {
			return fmt.Sprintf("# By hand, in master.cf: %s = %s", where(e.service, e.parameter), value)
		}
		words = append(words, t.text)
	}
	return p.postconf("-P", []string{quote(e.service + "/" + e.parameter + "=" + strings.Join(words, ","))})
}

// postconf returns a command with arguments that are quoted already.
func (p *Plan) postconf(option string, args []string) string {
	command := "postconf " + option
	if p.config.Dir != "/etc/postfix" {
		command += " -c " + quote(p.config.Dir)
	}
	return command + " " + strings.Join(args, " ")
}

// quote quotes a word for a shell, where it needs that.
func quote(s string) string {
	plain := func(r rune) bool { return nameLen(string(r)) == 1 || strings.ContainsRune("/.-:,@%+=", r) }
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
