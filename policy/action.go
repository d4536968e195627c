package policy

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Action is what Postfix is told: a word of access(5) and what follows it. The
// zero Action is DUNNO: no opinion.
type Action struct {
	Word string // as in access(5): "REJECT", "452", "HOLD" ...; empty is DUNNO
	Text string // the reply's text, or the word's argument; may be empty
	Rule string // which rule of a Chain said so; for the log
}

// Dunno is the Action without an opinion.
var Dunno = Action{}

// ErrAction is wrapped by the errors of ParseAction.
var ErrAction = errors.New("not an action of access(5)")

// maxText bounds the text of an action in octets. An SMTP reply line has 512.
const maxText = 400

// argument says what must follow a word.
type argument int

const (
	optional argument = iota
	none
	address
	destination // transport:nexthop
	header      // Name: value
)

var words = map[string]argument{
	"DUNNO":           none,
	"OK":              none,
	"REJECT":          optional,
	"DEFER":           optional,
	"DEFER_IF_REJECT": optional,
	"DEFER_IF_PERMIT": optional,
	"HOLD":            optional,
	"DISCARD":         optional,
	"WARN":            optional,
	"INFO":            optional,
	"BCC":             address,
	"REDIRECT":        address,
	"FILTER":          destination,
	"PREPEND":         header,
}

// ParseAction reads an action as access(5) writes it: "REJECT no spam", "452 4.2.2
// mailbox full", "dunno". Postfix would answer 451 to all mail for a word that it
// does not know, so such a word is an error here, as is a missing argument.
func ParseAction(text string) (Action, error) {
	text = oneLine(text)
	word, rest, _ := strings.Cut(text, " ")
	a := Action{Word: strings.ToUpper(word), Text: clean(rest)}
	if err := a.check(); err != nil {
		return Action{}, err
	}
	if a.IsDunno() {
		return Action{}, nil
	}
	return a, nil
}

// check tells whether Postfix would understand a.
func (a Action) check() error {
	if a.Word == "" {
		return fmt.Errorf("%w: it is empty", ErrAction)
	}
	if isReplyCode(a.Word) {
		return a.checkStatus()
	}
	want, known := words[a.Word]
	if !known {
		return fmt.Errorf("%w: %.40q", ErrAction, a.Word)
	}
	ok := true
	switch want {
	case none:
		ok = a.Text == ""
	case address:
		ok = strings.Contains(a.Text, "@") && !strings.Contains(a.Text, " ")
	case destination:
		transport, _, found := strings.Cut(a.Text, ":")
		ok = found && transport != ""
	case header:
		name, _, found := strings.Cut(a.Text, ":")
		ok = found && name != "" && !strings.Contains(name, " ")
	}
	if !ok {
		return fmt.Errorf("%w: %s with %.60q", ErrAction, a.Word, a.Text)
	}
	return nil
}

// checkStatus wants the class of an enhanced status code to be that of the reply
// code. Postfix puts one in front where there is none.
func (a Action) checkStatus() error {
	status, _, _ := strings.Cut(a.Text, " ")
	class, detail, dotted := strings.Cut(status, ".")
	if !dotted || len(class) != 1 || strings.Trim(detail, "0123456789.") != "" {
		return nil
	}
	if class[0] != a.Word[0] {
		return fmt.Errorf("%w: %s with status %s", ErrAction, a.Word, status)
	}
	return nil
}

// isReplyCode reports whether word is 4NN or 5NN.
func isReplyCode(word string) bool {
	return len(word) == 3 && (word[0] == '4' || word[0] == '5') && strings.Trim(word, "0123456789") == ""
}

// IsDunno reports whether a has no opinion.
func (a Action) IsDunno() bool { return a.Word == "" || strings.EqualFold(a.Word, "DUNNO") }

// Kind returns what sort of action a is, one of a small set: dunno, 4xx, 5xx, reject,
// hold and so on, as the word is.
func (a Action) Kind() string {
	if a.IsDunno() {
		return "dunno"
	}
	word, _, _ := strings.Cut(a.String(), " ")
	if word[0] <= '9' {
		return word[:1] + "xx"
	}
	return strings.ToLower(word)
}

// isRemark reports whether a is done without deciding whether the mail comes in.
func (a Action) isRemark() bool {
	switch strings.ToUpper(a.Word) {
	case "PREPEND", "WARN", "INFO", "BCC", "REDIRECT", "FILTER":
		return true
	}
	return false
}

// isNote reports whether a only writes to the log.
func (a Action) isNote() bool {
	return strings.EqualFold(a.Word, "WARN") || strings.EqualFold(a.Word, "INFO")
}

// String returns a as it goes to Postfix: never empty, one line of valid UTF-8,
// and always a word that Postfix knows: what is not an action becomes DUNNO.
func (a Action) String() string {
	if a.IsDunno() {
		return "DUNNO"
	}
	a = Action{Word: strings.ToUpper(a.Word), Text: clean(a.Text)}
	if a.check() != nil {
		return "DUNNO"
	}
	if a.Text == "" {
		return a.Word
	}
	return a.Word + " " + a.Text
}

// oneLine makes text fit for one line: valid UTF-8, blanks for control characters,
// none at its ends.
func oneLine(text string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError:
			return '?'
		case r < ' ' || r >= 0x7f && r < 0xa0:
			return ' '
		}
		return r
	}, text))
}

// clean is oneLine, cut to maxText octets.
func clean(text string) string {
	text = oneLine(text)
	if len(text) > maxText {
		end := maxText
		for !utf8.RuneStart(text[end]) {
			end--
		}
		text = strings.TrimSpace(text[:end])
	}
	return text
}
