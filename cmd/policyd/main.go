// Policyd answers Postfix's policy requests: may this mail come in?
//
//	policyd --access FILE --listen policy:unix:/var/spool/postfix/dovepost/policy,mode=0660,group=postfix
//
// In main.cf, behind reject_unauth_destination, so that policyd is asked only for
// mail that would otherwise be accepted:
//
//	smtpd_recipient_restrictions = permit_mynetworks, permit_sasl_authenticated,
//	    reject_unauth_destination,
//	    check_policy_service { unix:dovepost/policy, timeout=10s, default_action=DUNNO }
//
// With default_action=DUNNO a policyd that does not run does not stop mail; and
// whatever fails inside policyd is answered DUNNO, too. Clients that a word before
// it permits are not asked about: to judge logged-in clients as well, put it first.
//
// Rules are asked in turn, and the first that has an opinion decides. Without any
// rule the answer is always DUNNO.
//
// The rule access is a list of what is allowed and denied, of which the first line
// that matches decides:
//
//	# FIELD     PATTERN             ACTION
//	client      192.0.2.0/24        REJECT no mail from this network
//	sender      boss@example.org    DUNNO
//	sender      example.org         450 4.7.1 not today
//	recipient   info@               DUNNO
//	login       user@example.com    HOLD
//
// client takes an address or a network. sender and recipient take user@domain,
// domain (or @domain; not its subdomains), .domain (its subdomains), user@ (in any
// domain); <> is the null sender. login takes a login name, or @domain, .domain and
// user@ for names that are addresses. * is any client, sender, recipient or login.
// ACTION is one of access(5); DUNNO exempts, OK accepts and skips what
// smtpd_recipient_restrictions has behind policyd. Letters match in either case. A
// line that begins with a blank continues the one before; # begins a comment line.
//
// SIGHUP reads the list again, and keeps the old one when the new one is wrong.
// SIGTERM finishes what is being answered.
//
// Exit codes: 0, 64 (command line), 75 (try again), 78 (a setting or a file is wrong).
// See also access(5) and Postfix's SMTPD_POLICY_README.
package main

import (
	_ "embed"

	"dovepost/cmd/internal/daemon"
)

//go:embed main.go
var source string

func main() {
	p := &policyd{}
	daemon.Main(daemon.Program{
		Name:  "policyd",
		Doc:   daemon.Manual(source),
		Kinds: []string{"policy"},
		Flags: p.flags,
		Start: p.start,
	})
}
