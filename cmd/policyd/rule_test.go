package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/spf13/pflag"

	"dovepost/cmd/internal/daemon"
	"dovepost/policy"
)

// fake is a rule that says how it is used.
type fake struct {
	called string
	fails  error
	said   policy.Action

	mu  sync.Mutex
	log []string // guarded by mu
}

func (f *fake) name() string         { return f.called }
func (f *fake) flags(*pflag.FlagSet) {}
func (f *fake) add(s string)         { f.mu.Lock(); f.log = append(f.log, s); f.mu.Unlock() }
func (f *fake) history() string      { f.mu.Lock(); defer f.mu.Unlock(); return strings.Join(f.log, " ") }

func (f *fake) build(context.Context, *builder) (policy.Decider, error) {
	if f.fails != nil {
		return nil, f.fails
	}
	f.add("build")
	return decider{f, f.said}, nil
}

type decider struct {
	*fake
	said policy.Action
}

func (d decider) Decide(context.Context, *policy.Request) (policy.Action, error) {
	if d.said.Word == "ERROR" {
		return policy.Dunno, errors.New("broken")
	}
	return d.said, nil
}
func (d decider) Start()       { d.add("start") }
func (d decider) Close() error { d.add("close"); return nil }

// with makes a policyd of rules.
func with(t *testing.T, order string, rules ...rule) *policyd {
	t.Helper()
	p := &policyd{}
	fs := pflag.NewFlagSet("policyd", pflag.ContinueOnError)
	p.flags(fs)
	p.all, p.order = rules, order
	for _, r := range rules {
		action := "DUNNO"
		p.onError[r.name()] = &action
	}
	return p
}

func env() *daemon.Env {
	return &daemon.Env{Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Metrics: daemon.NewMetrics("policyd")}
}

func TestTheOrderOfTheRulesIsTheSetting(t *testing.T) {
	a, b := &fake{called: "a", said: policy.Action{Word: "HOLD"}}, &fake{called: "b", said: policy.Action{Word: "REJECT"}}
	for order, want := range map[string]string{"a, b": "HOLD", "b,a": "REJECT", "b": "REJECT", "\ta": "HOLD", "": "DUNNO"} {
		p := with(t, order, a, b)
		if _, err := p.start(t.Context(), env()); err != nil {
			t.Fatal(err)
		}
		if got, err := p.decide(t.Context(), &policy.Request{}); err != nil || got.String() != want {
			t.Errorf("rules = %s: %v, %v; want %s", order, got, err, want)
		}
	}
	for order, want := range map[string]string{"a, c": `no rule "c"`, "a b a": "a twice"} {
		if _, err := with(t, order, a, b).start(t.Context(), env()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("rules = %s: %v, want %s", order, err, want)
		}
	}
}

func TestARuleThatFailsHasItsAction(t *testing.T) {
	p := with(t, "a", &fake{called: "a", said: policy.Action{Word: "ERROR"}})
	*p.onError["a"] = "450 4.3.0 not now"
	if _, err := p.start(t.Context(), env()); err != nil {
		t.Fatal(err)
	}
	if got, err := p.decide(t.Context(), &policy.Request{}); err == nil || got.String() != "450 4.3.0 not now" {
		t.Errorf("%v, %v", got, err)
	}
	p = with(t, "a", &fake{called: "a"})
	*p.onError["a"] = "PERHAPS"
	if _, err := p.start(t.Context(), env()); err == nil || !strings.Contains(err.Error(), "a_on_error") {
		t.Errorf("a_on_error = PERHAPS: %v", err)
	}
}

func TestAReloadIsAllOrNothing(t *testing.T) {
	a, b := &fake{called: "a"}, &fake{called: "b", said: policy.Action{Word: "HOLD"}}
	p := with(t, "a, b", a, b)
	service, err := p.start(t.Context(), env())
	if err != nil {
		t.Fatal(err)
	}
	a.said, b.said, b.fails = policy.Action{Word: "REJECT"}, policy.Dunno, errors.New("a wrong file")
	if err := p.reload(t.Context()); !errors.Is(err, b.fails) {
		t.Errorf("a reload with a wrong file: %v", err)
	}
	if got, _ := p.decide(t.Context(), &policy.Request{}); got.String() != "HOLD" {
		t.Errorf("after a reload that failed: %v, want HOLD", got)
	}
	if got := a.history(); got != "build start build close" {
		t.Errorf("rule a: %s", got)
	}
	b.fails = nil
	if err := p.reload(t.Context()); err != nil {
		t.Error(err)
	}
	if got, _ := p.decide(t.Context(), &policy.Request{}); got.String() != "REJECT" {
		t.Errorf("after a good reload: %v, want REJECT", got)
	}
	if err := service.Close(); err != nil {
		t.Error(err)
	}
	if got := b.history(); got != "build start build start close close" {
		t.Errorf("rule b: %s", got)
	}
}

func TestRequestsDuringReloads(t *testing.T) {
	a := &fake{called: "a", said: policy.Action{Word: "HOLD"}}
	p := with(t, "a", a)
	service, err := p.start(t.Context(), env())
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				if got, err := p.decide(t.Context(), &policy.Request{}); err != nil || got.Word != "HOLD" {
					t.Errorf("%v, %v", got, err)
				}
			}
		})
	}
	for range 100 {
		if err := p.reload(t.Context()); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	if err := service.Close(); err != nil {
		t.Error(err)
	}
	if starts, closes := strings.Count(a.history(), "start"), strings.Count(a.history(), "close"); starts != 101 || closes != 101 {
		t.Errorf("%d started, %d closed", starts, closes)
	}
}
