package guard

import (
	"context"
	"errors"
	"time"

	"dovepost/auth"
)

// Mechanisms returns list with the gate before each.
func (g *Gate) Mechanisms(list []auth.Mechanism) []auth.Mechanism {
	guarded := make([]auth.Mechanism, len(list))
	for i, m := range list {
		guarded[i] = mechanism{m, g}
	}
	return guarded
}

// errOutdated is told in the place of a refusal that is no proof. It is temporary.
var errOutdated = errors.New("the database does not answer, and the last known row does not let the user in")

type mechanism struct {
	auth.Mechanism
	gate *Gate
}

func (m mechanism) Start(r *auth.Request, v auth.Verifier) auth.Exchange {
	x := &exchange{gate: m.gate, r: r, v: v}
	x.inner = m.Mechanism.Start(r, x)
	return x
}

// exchange is an exchange of the mechanism inner, and the Verifier that it asks.
type exchange struct {
	gate *Gate
	r    *auth.Request
	v    auth.Verifier
	attempt
	inner   auth.Exchange
	entered bool
}

// Next is auth.Exchange's. A refusal is late by auth_failure_delay, and by the
// penalty where it has not been waited for before. When ctx ends it is told at once.
// Errors: besides the mechanism's, temporary ones.
func (x *exchange) Next(ctx context.Context, response []byte) ([]byte, *auth.Credentials, error) {
	if forMTA(x.r) {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, maxMTADelay)
		defer cancel()
	}
	defer x.leave()
	started := time.Now()
	challenge, row, err := x.inner.Next(ctx, response)
	switch {
	case row != nil:
		x.gate.passed(&x.attempt)
		x.leave()
		wait, _ := delayUntil(row, time.Now())
		if err := x.gate.hold(ctx, wait); err != nil {
			return nil, nil, err
		}
	case auth.Refused(err):
		err = x.refuse(ctx, err, started)
		if x.r.Stale {
			err = errOutdated // late, and counted, like any other
		}
	}
	return challenge, row, err
}

// refuse counts a refusal, and tells it late.
func (x *exchange) refuse(ctx context.Context, err error, started time.Time) error {
	refusal := &auth.Refusal{Err: err}
	if known := (*auth.Refusal)(nil); errors.As(err, &known) {
		if known.NoDelay { // counts as little as in Dovecot
			return err
		}
		*refusal = *known
	}
	if !x.begun { // the mechanism has not asked about the user
		x.gate.begin(&x.attempt, x.r)
	}
	refusal.Again = x.gate.failed(&x.attempt, err)
	if refusal.Again {
		x.gate.again.Add(1)
	}
	x.gate.hold(ctx, x.gate.delay.until(forMTA(x.r), started, x.wait))
	return refusal
}

// admit lets an attempt pass to the verifier when it has waited.
// An error is temporary.
func (x *exchange) admit(ctx context.Context) error {
	g := x.gate
	if !x.begun {
		g.begin(&x.attempt, x.r)
	}
	if x.entered {
		return nil // it has asked before in this step
	}
	if g.barred(&x.attempt) {
		g.refused.Add(1)
		return errSprayers
	}
	if err := g.place(ctx, &x.attempt, x.r); err != nil {
		g.refused.Add(1)
		return err
	}
	x.entered = true
	if x.wait > 0 {
		g.waits.Add(1)
	}
	if x.known {
		return nil
	}
	if err := g.hold(ctx, x.wait); err != nil {
		return err
	}
	x.wait = 0
	// Those who have waited together have learnt nothing from each other.
	if g.barred(&x.attempt) {
		g.refused.Add(1)
		return errSprayers
	}
	return nil
}

func (x *exchange) leave() {
	if x.entered {
		x.entered = false
		x.gate.leave(&x.attempt)
	}
}

// VerifyPlain is auth.Verifier's.
func (x *exchange) VerifyPlain(ctx context.Context, r *auth.Request, password []byte) (*auth.Credentials, error) {
	if err := x.admit(ctx); err != nil {
		return nil, err
	}
	x.sum = sumOf(x.account, password)
	return x.v.VerifyPlain(ctx, r, password)
}

// LookupCredentials is auth.Verifier's.
func (x *exchange) LookupCredentials(ctx context.Context, r *auth.Request, scheme string) (*auth.Credentials, error) {
	if err := x.admit(ctx); err != nil {
		return nil, err
	}
	return x.v.LookupCredentials(ctx, r, scheme)
}
