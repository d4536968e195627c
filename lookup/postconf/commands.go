package postconf

import (
	"fmt"
	"slices"
	"strings"
)

// Switch returns the shell commands that have Postfix ask the maps of the plan; the last
// one is what makes the difference. Lines that begin with # say what stays as it is. A
// reload of Postfix must follow.
func (p *Plan) Switch() []string {
	var lines []string
	for _, n := range p.Notes {
		lines = append(lines, "# "+n.String())
	}
	value := func(e *edit) string { return e.replace(func(piece piece) string { return piece.text }) }
	switched := slices.ContainsFunc(p.edits, func(e *edit) bool { return e.why == "" || value(e) == e.raw })
	if switched {
		lines = append(lines, p.allow()...)
	}
	for _, e := range p.edits {
		value := value(e)
		if value == e.raw {
			continue
		}
		command := p.set(e, value)
		if e.why != "" {
			lines = append(lines, "# "+where(e.service, e.parameter)+" stays as it is: "+e.why+". Then:")
			command = "#" + command
		}
		lines = append(lines, command)
	}
	if switched && !p.on {
		lines = append(lines, p.postconf("-e", []string{quote(knob + " = yes")}))
	}
	return lines
}

// set returns the command that sets the value of e.
func (p *Plan) set(e *edit, value string) string {
	if e.service != "" {
		return p.service(e, value)
	}
	return p.postconf("-e", []string{quote(e.parameter + " = " + value)})
}

// Back returns the shell commands that have Postfix ask MySQL itself again.
func (p *Plan) Back() []string {
	var lines []string
	for _, e := range p.edits {
		value := e.replace(func(piece piece) string {
			if piece.not {
				return "!" + piece.tables
			}
			return piece.tables
		})
		if !e.set || e.service == "" && value == defaults[e.parameter] && e.pieces[0].switched {
			lines = append(lines, p.postconf("-X", []string{e.parameter}))
		} else {
			lines = append(lines, p.set(e, value))
		}
	}
	if len(lines) == 0 {
		return nil
	}
	lines = append(lines, p.disallow()...)
	return append(lines, p.postconf("-X", []string{knob}))
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
	blank := func(t token) bool { return strings.ContainsAny(t.text, spaces) }
	if slices.ContainsFunc(tokenize(value, listSeparators), blank) || slices.ContainsFunc(tokenize(e.raw, listSeparators), blank) || strings.Contains(e.service, "=") {
		return fmt.Sprintf("# By hand, in master.cf: %s = %s", where(e.service, e.parameter), value)
	}
	return p.postconf("-P", []string{quote(e.service + "/" + e.parameter + "=" + commas(value))})
}

// commas writes a list without blanks.
func commas(list string) string {
	var words []string
	for _, t := range tokenize(list, listSeparators) {
		words = append(words, t.text)
	}
	return strings.Join(words, ",")
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
