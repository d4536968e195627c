package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/spf13/pflag"

	"dovepost/cmd/internal/daemon"
	"dovepost/cmd/internal/serve"
	"dovepost/lookup/cache"
	"dovepost/policy"
	"dovepost/policy/delegation"
	"dovepost/policy/notify"
)

// policyd is the program: settings, and the state that SIGHUP replaces.
type policyd struct {
	settings
	env   *daemon.Env
	on    []rule
	cache *cache.Cache // of what Postfix and the userdb know
	state atomic.Pointer[state]

	notifier *notify.Notifier // nil: nobody is told
	retiring sync.WaitGroup   // states that were replaced
	stop     chan struct{}    // closed at the end
}

func (p *policyd) flags(fs *pflag.FlagSet) { p.settings.flags(fs) }

func (p *policyd) start(ctx context.Context, env *daemon.Env) (*daemon.Service, error) {
	p.env = env
	if err := p.check(); err != nil {
		return nil, daemon.ConfigError(err)
	}
	var err error
	if p.on, err = p.ruleSettings.on(); err != nil {
		return nil, daemon.ConfigError(err)
	}
	if p.notifier, err = p.notifySettings.notifier(env.Log); err != nil {
		return nil, daemon.ConfigError(err)
	}
	p.cache = p.rows.New(p.lookupTimeout, env.Log)
	if err := p.reload(ctx); err != nil {
		return nil, err
	}
	env.Metrics.Cache("policy", p.cache.Stats)
	p.notifier.Start()
	p.stop = make(chan struct{})
	daemon.StandBack()
	go daemon.CollectGarbage(p.stop)
	if len(p.on) == 0 {
		env.Log.Warn("no rule is set: every answer is DUNNO")
	}
	return &daemon.Service{Handler: p.handler, Looped: true, Reload: p.reload, Close: p.close}, nil
}

// handler answers with the chain of the moment.
func (p *policyd) handler(kind string) (serve.Handler, error) {
	return &delegation.Handler{
		Decider: policy.Func(p.decide),
		Timeout: p.answerWithin,
		Log:     p.env.Log,
		Observe: p.env.Metrics.Observe(kind),
	}, nil
}

func (p *policyd) decide(ctx context.Context, r *policy.Request) (policy.Action, error) {
	for {
		if action, ok, err := p.state.Load().decide(ctx, r); ok {
			return action, err
		}
	}
}

// reload reads all files again and puts what they say into use. On an error all stays as it was.
func (p *policyd) reload(ctx context.Context) error {
	old := p.state.Load()
	s, err := p.build(ctx, old)
	if err != nil {
		return err
	}
	if p.env.Check {
		p.state.Store(s)
		return nil
	}
	for _, r := range s.chain {
		if r, ok := r.Decider.(counted).Decider.(starter); ok {
			r.Start()
		}
	}
	p.state.Store(s)
	s.pools.Use(2 * p.answerWithin)
	if old != nil {
		p.retiring.Go(func() {
			if err := old.retire(s); err != nil {
				p.env.Log.Warn("after the reload", "err", err)
			}
		})
	}
	return nil
}

func (p *policyd) close() error {
	close(p.stop)
	p.retiring.Wait()
	s := p.state.Load()
	err := s.retire(nil)
	p.notifier.Close()
	p.cache.Close()
	return errors.Join(err, s.pools.Close())
}
