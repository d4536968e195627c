package main

import (
	"context"
	"time"

	"dovepost/auth"
	"dovepost/auth/guard"
)

// maxAppPasswords bounds the app passwords of a user that one login is compared with,
// and so what a wrong password costs.
const maxAppPasswords = 10

// findAppPasswords are the guard's AppPasswords.
func (a *authd) findAppPasswords(ctx context.Context, r *auth.Request) (found guard.AppPasswords, err error) {
	query := a.state.Load().appPasswords
	if query == nil {
		return found, nil
	}
	ctx, cancel := context.WithTimeout(ctx, a.lookupTimeout)
	defer cancel()
	list, cached, stale, err := query.AppPasswords(ctx, r)
	if err != nil {
		return found, err
	}
	found.Cached, found.Stale = cached, stale
	now := time.Now()
	for i := range list {
		if !list[i].Allows(r.Service, now) {
			continue
		}
		if len(found.List) == maxAppPasswords {
			a.env.Log.Warn("more app passwords than are looked at", "user", r.User, "service", r.Service, "limit", maxAppPasswords)
			break
		}
		found.List = append(found.List, guard.AppPassword{Name: list[i].Name, Password: list[i].Password})
	}
	return found, nil
}
