package rules

import (
	"context"
	"errors"
	"strings"

	"dovepost/policy"
)

// Sender says who may send as whom. A client that has logged in may use the addresses that
//
//   - are his login, with an extension or without, in whatever way login names are written. An
//     address that is in a table as a whole is nobody's extension, as with joe and joe-anne where - is a
//     recipient_delimiter;
//   - smtpd_sender_login_maps gives him, which is searched as Postfix does: the address, the same
//     without its extension, @domain; and the grants of policyd's own table;
//   - lead to his mailbox, through any number of aliases and of domains that stand for others.
//
// It has no opinion of clients that have not logged in, unless Local is set.
type Sender struct {
	Logins  Logins
	Aliases bool          // an alias of the mailbox is enough
	Null    bool          // whoever has logged in may send as the null sender
	Local   policy.Action // for a client without a login that sends as an address of a domain of ours; zero: no opinion
	Exempt  *Clients      // whom Local is not for: relays and programs of ours
}

// Logins knows which names belong together.
type Logins interface {
	// Account returns the name of the account that a login is for; ok is false if no account can
	// have such a name.
	Account(login string) (name string, ok bool)
	// Base returns an address without its extension; the whole, where it has none or is itself known.
	Base(ctx context.Context, address string) (string, error)
	// Owners returns the logins that may use an address by the tables. None is no error.
	Owners(ctx context.Context, address string) ([]string, error)
	// Reaches reports whether mail for address comes to the account: because it is the address
	// of the account, or, with aliases, by them.
	Reaches(ctx context.Context, address, account string, aliases bool) (bool, error)
	// Local reports whether the domain of an address is one of ours.
	Local(ctx context.Context, address string) (bool, error)
}

var errLogin = errors.New("no account can have such a login name")

// Decide implements policy.Decider.
func (s *Sender) Decide(ctx context.Context, r *policy.Request) (policy.Action, error) {
	switch r.State {
	case "MAIL", "RCPT", "DATA", "END-OF-MESSAGE":
	default:
		return policy.Dunno, nil
	}
	switch {
	case r.SASLUsername == "":
		return s.stranger(ctx, r)
	case r.Sender == "":
		if s.Null {
			return policy.Dunno, nil
		}
		return notOwned(r), nil
	}
	yes, err := s.may(ctx, r.SASLUsername, r.Sender)
	if yes || err != nil {
		return policy.Dunno, err
	}
	return notOwned(r), nil
}

// notOwned words the refusal as Postfix does. At RCPT Postfix puts the recipient before it.
func notOwned(r *policy.Request) policy.Action {
	return policy.Action{Word: "553", Text: "5.7.1 <" + r.Sender + ">: Sender address rejected: not owned by user " + r.SASLUsername}
}

// stranger decides about a client without a login.
func (s *Sender) stranger(ctx context.Context, r *policy.Request) (policy.Action, error) {
	if r.Sender == "" || s.Local.IsDunno() || s.Exempt.has(r.ClientAddress, r.ClientName) {
		return policy.Dunno, nil
	}
	ours, err := s.Logins.Local(ctx, r.Sender)
	if !ours || err != nil {
		return policy.Dunno, err
	}
	return s.Local, nil
}

// may reports whether a login may use an address. What costs nothing comes first.
func (s *Sender) may(ctx context.Context, login, sender string) (bool, error) {
	account, ok := s.Logins.Account(login)
	if !ok {
		return false, errLogin
	}
	his := func(address string) bool {
		return strings.EqualFold(address, login) || strings.EqualFold(address, account)
	}
	if his(sender) {
		return true, nil
	}
	if base, err := s.Logins.Base(ctx, sender); err != nil || his(base) {
		return err == nil, err
	}
	owners, err := s.Logins.Owners(ctx, sender)
	if err != nil {
		return false, err
	}
	for _, owner := range owners {
		name, ok := s.Logins.Account(owner)
		if strings.EqualFold(owner, login) || ok && name == account {
			return true, nil
		}
	}
	return s.Logins.Reaches(ctx, sender, account, s.Aliases)
}
