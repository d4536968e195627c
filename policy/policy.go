// Package policy is the vocabulary of access policy: what Postfix asks a policy
// server, and what it may be told.
//
// A policy decides about mail that would otherwise be accepted; it must never be
// the reason that mail stops. So the zero Action is DUNNO, an error does not
// refuse anything by itself, and every rule states what happens when it fails.
//
// This package knows no wire and no database. The protocol is in
// policy/delegation, the rules in policy/rules.
package policy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
)

// Request is one question of Postfix: the attributes of SMTPD_POLICY_README. A
// field that Postfix did not send, or that it does not know yet, is zero. All text
// is as the SMTP client sent it: not folded, not resolved, any octet but LF.
type Request struct {
	State    string // protocol_state: CONNECT, EHLO, HELO, MAIL, RCPT, DATA, END-OF-MESSAGE, VRFY, ETRN
	Protocol string // protocol_name: SMTP or ESMTP
	Instance string // the same for all requests of one message
	QueueID  string // empty before the first accepted recipient
	Context  string // policy_context
	Stress   string // "yes" while Postfix is overloaded

	ClientAddress     netip.Addr // invalid where the client has no IP address
	ClientPort        uint16
	ClientName        string // verified, or "unknown"
	ReverseClientName string // from the PTR record, or "unknown"
	ServerAddress     netip.Addr
	ServerPort        uint16
	HeloName          string

	Sender         string // empty is the null sender
	Recipient      string // empty outside RCPT when the message has several
	RecipientCount int    // in DATA and END-OF-MESSAGE
	Size           int64  // octets: what MAIL announced; in END-OF-MESSAGE the real size
	ETRNDomain     string

	SASLMethod   string
	SASLUsername string // empty: the client did not log in
	SASLSender   string

	CertSubject, CertIssuer, CertFingerprint, CertPubkeyFingerprint string // xtext

	EncryptionProtocol string // "TLSv1.3"; empty without TLS
	EncryptionCipher   string
	EncryptionKeysize  int

	CompatibilityLevel, MailVersion string // Postfix 3.8 and later
	TLSSNI                          string // Postfix 3.12 and later
}

// ErrAway is wrapped by the error of a rule that could not ask what it must, because that
// is known to be away. Whoever found it out has told the log.
var ErrAway = errors.New("not asked")

// A Decider answers requests.
type Decider interface {
	// Decide returns what is to be done. The Action holds also when there is an
	// error: it is then what the Decider wants done when it fails, usually the
	// zero Action, and the error is for the log.
	Decide(ctx context.Context, r *Request) (Action, error)
}

// Func makes a Decider of a function.
type Func func(ctx context.Context, r *Request) (Action, error)

// Decide calls f.
func (f Func) Decide(ctx context.Context, r *Request) (Action, error) { return f(ctx, r) }

// Rule is one Decider of a Chain.
type Rule struct {
	Name string // for the log: "access", "quota" ...
	Decider
	OnError Action // done instead of whatever the Decider returned with an error
}

// Chain asks its rules in turn until one has an opinion.
type Chain []Rule

// Decide returns the first Action that is not DUNNO, and the name of its rule in it. PREPEND,
// WARN, INFO, BCC, REDIRECT and FILTER let mail go on, in Postfix as here: the rules that are left are
// asked, and what they decide goes first. Postfix takes one action only: of several of these the first, but
// WARN and INFO give way to the others. A rule that fails counts as
// its OnError; its error is returned beside the result, wrapped with the rule's
// name. When ctx has ended, the rules that are left count as failed, too.
func (c Chain) Decide(ctx context.Context, r *Request) (Action, error) {
	var failures []error
	var remark Action
	for _, rule := range c {
		action, err := rule.decide(ctx, r)
		if err != nil {
			failures = append(failures, fmt.Errorf("rule %s: %w", rule.Name, err))
		}
		if action.IsDunno() {
			continue
		}
		action.Rule = rule.Name
		if !action.isRemark() {
			return action, errors.Join(failures...)
		}
		if remark.IsDunno() || remark.isNote() && !action.isNote() {
			remark = action
		}
	}
	return remark, errors.Join(failures...)
}

func (rule *Rule) decide(ctx context.Context, r *Request) (Action, error) {
	if err := ctx.Err(); err != nil {
		return rule.OnError, err
	}
	action, err := rule.Decide(ctx, r)
	if err != nil {
		return rule.OnError, err
	}
	return action, nil
}
