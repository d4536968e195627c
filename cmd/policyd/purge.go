package main

import (
	"context"
	"log/slog"
	"time"
)

const (
	purgeInterval = time.Minute
	purgeRows     = 1000 // of a statement
	purgeRounds   = 60   // statements of an interval: more rows than can come in
)

// purger deletes what a rule has no use for any more, in small bites, so that no request
// waits for it for long.
type purger struct {
	rule  string
	purge func(ctx context.Context) (more bool, err error)
	log   *slog.Logger

	cancel context.CancelFunc // nil before start
	done   chan struct{}
}

func (p *purger) start() {
	var ctx context.Context
	ctx, p.cancel = context.WithCancel(context.Background())
	p.done = make(chan struct{})
	go func() {
		defer close(p.done)
		tick := time.NewTicker(purgeInterval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			for range purgeRounds {
				more, err := p.purge(ctx)
				if err != nil && ctx.Err() == nil {
					p.log.Warn("expired rows are not deleted", "rule", p.rule, "err", err)
				}
				if err != nil || !more {
					break
				}
			}
		}
	}()
}

// stop ends what start began, if it did.
func (p *purger) stop() {
	if p != nil && p.cancel != nil {
		p.cancel()
		<-p.done
	}
}
