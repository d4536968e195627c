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
	var kept []string // parameters that hold tables
	for _, e := range p.edits {
		var set []string
		for _, piece := range e.pieces {
			name := keepPrefix + piece.name
			if slices.Contains(kept, name) {
				continue
			}
			if e.why == "" || piece.switched {
				kept = append(kept, name)
			}
			if !piece.switched && p.config.main[name] != piece.tables {
				set = append(set, quote(name+" = "+piece.tables))
			}
		}
		value := e.replace(func(piece piece) string { return piece.text })
		if value == e.raw {
			continue
		}
		commands := p.change(e, value, set)
		if e.why != "" {
			lines = append(lines, "# "+where(e.service, e.parameter)+" stays as it is: "+e.why+". Then:")
			for i := range commands {
				commands[i] = "#" + commands[i]
			}
		}
		lines = append(lines, commands...)
	}
	return append(lines, p.refer(kept)...)
}

// change returns the commands that set parameters, quoted already, and the value of e.
func (p *Plan) change(e *edit, value string, set []string) []string {
	if e.service == "" {
		return []string{p.postconf("-e", append(set, quote(e.parameter+" = "+value)))}
	}
	if len(set) == 0 {
		return []string{p.service(e, value)}
	}
	return []string{p.postconf("-e", set), p.service(e, value)}
}

// refer returns the command that makes parameters used ones.
func (p *Plan) refer(names []string) []string {
	if len(names) == 0 {
		return nil
	}
	all := "$" + strings.Join(names, " $")
	var set []string
	if p.config.main[keepAll] != all {
		set = append(set, quote(keepAll+" = "+all))
	}
	if value := p.config.main[host]; !strings.Contains(value, reference) {
		set = append(set, quote(host+" = "+strings.TrimSpace(value+" "+reference)))
	}
	if len(set) == 0 {
		return nil
	}
	return []string{p.postconf("-e", set)}
}

// Back returns the shell commands that have Postfix ask MySQL itself again.
func (p *Plan) Back() []string {
	var lines, names []string
	for _, e := range p.edits {
		value := e.replace(func(piece piece) string {
			if name := keepPrefix + piece.name; !slices.Contains(names, name) {
				names = append(names, name)
			}
			if piece.not {
				return "!" + piece.tables
			}
			return piece.tables
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
	if len(names) == 0 {
		return nil
	}
	names = append(names, keepAll)
	switch value := strings.TrimSpace(strings.Replace(p.config.main[host], reference, "", 1)); value {
	case "":
		names = append(names, host)
	default:
		lines = append(lines, p.postconf("-e", []string{quote(host + " = " + value)}))
	}
	return append(lines, p.postconf("-X", names))
}

// replace returns the value with other texts for its pieces.
func (e *edit) replace(with func(piece) string) string {
	var b strings.Builder
	end := 0
	for _, p := range e.pieces {
		b.WriteString(e.raw[end:p.start])
		b.WriteString(with(p))
		end = p.end
	}
	b.WriteString(e.raw[end:])
	return b.String()
}

// service returns the command that sets a parameter of a service. postconf(1) takes no
// blanks there, and a list needs none.
func (p *Plan) service(e *edit, value string) string {
	var words []string
	blank := func(t token) bool { return strings.ContainsAny(t.text, spaces) }
	tokens := tokenize(value, listSeparators)
	if slices.ContainsFunc(tokens, blank) || slices.ContainsFunc(tokenize(e.raw, listSeparators), blank) || strings.Contains(e.service, "=") {
		return fmt.Sprintf("# By hand, in master.cf: %s = %s", where(e.service, e.parameter), value)
	}
	for _, t := range tokens {
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
