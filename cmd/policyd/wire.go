package main

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/spf13/pflag"

	"dovepost/cmd/internal/daemon"
	"dovepost/cmd/internal/serve"
	"dovepost/policy"
	"dovepost/policy/delegation"
	"dovepost/policy/rules"
)

// policyd is the program: settings, and the chain that SIGHUP replaces.
type policyd struct {
	access    string
	delimiter string

	env   *daemon.Env
	chain atomic.Pointer[policy.Chain]
}

func (p *policyd) flags(fs *pflag.FlagSet) {
	fs.StringVar(&p.access, "access", "", "ask the allow and deny list in `FILE`")
	fs.StringVar(&p.delimiter, "recipient_delimiter", "", "`characters` that begin an address extension, as in main.cf")
}

func (p *policyd) start(ctx context.Context, env *daemon.Env) (*daemon.Service, error) {
	p.env = env
	if err := p.reload(ctx); err != nil {
		return nil, daemon.ConfigError(err)
	}
	if len(*p.chain.Load()) == 0 {
		env.Log.Warn("no rule is set: every answer is DUNNO")
	}
	return &daemon.Service{Handler: p.handler, Reload: p.reload}, nil
}

// handler answers with the chain of the moment.
func (p *policyd) handler(kind string) (serve.Handler, error) {
	return &delegation.Handler{
		Decider: policy.Func(func(ctx context.Context, r *policy.Request) (policy.Action, error) {
			return p.chain.Load().Decide(ctx, r)
		}),
		Log:     p.env.Log,
		Observe: p.env.Metrics.Observe(kind),
	}, nil
}

// reload reads the rules' files. On an error the old chain stays.
func (p *policyd) reload(context.Context) error {
	var chain policy.Chain
	if p.access != "" {
		list, err := readAccess(p.access, p.delimiter)
		if err != nil {
			return err
		}
		p.env.Log.Info("access list read", "file", p.access, "rules", list.Len())
		chain = append(chain, policy.Rule{Name: "access", Decider: list})
	}
	p.chain.Store(&chain)
	return nil
}

func readAccess(path, delimiter string) (*rules.Access, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	list, err := rules.ReadAccess(f, delimiter)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return list, nil
}
