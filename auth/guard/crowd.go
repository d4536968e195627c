package guard

import (
	"container/list"
	"context"
	"errors"

	"dovepost/auth"
)

// maxCrowd bounds the attempts that wait for a place among those of their network.
const maxCrowd = 4096

// crowd are the attempts whose network has taken its places: an office that comes back
// all at once. Guarded by the gate's mu.
type crowd struct {
	queues map[sourceKey]*list.List // of turn; none is empty
	n      int
}

// places is how many attempts of a network may be under way. Those who are known have
// room left when the others have taken theirs.
func places(known bool) int {
	if known {
		return 2 * maxPerNetwork
	}
	return maxPerNetwork
}

// turn is closed when there may be a place.
type turn chan struct{}

// place counts an attempt that is under way as soon as there is a place for it, for
// which it waits as long as a penalty takes at most. What the others have learnt
// meanwhile holds for it, too. leave has to be called after nil.
func (g *Gate) place(ctx context.Context, a *attempt, r *auth.Request) error {
	err := g.enter(a)
	if !errors.Is(err, errCrowded) {
		return err
	}
	most := penaltyMost
	if forMTA(r) {
		most = maxMTAWait
	}
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for errors.Is(err, errCrowded) {
		if !g.await(ctx, sourceKey{a.network.id, a.known}) {
			return err
		}
		if g.begin(a, r); g.barred(a) {
			err = errSprayers
		} else {
			err = g.enter(a)
		}
	}
	if err != nil { // the place is another's
		g.mu.Lock()
		g.wake(a.network.id)
		g.mu.Unlock()
	}
	return err
}

// await waits until there may be a place. false: there is none in time, or too many wait.
func (g *Gate) await(ctx context.Context, key sourceKey) bool {
	g.mu.Lock()
	room := g.under[key.network] < places(key.known) // somebody has left since
	if room || g.crowd.n >= maxCrowd {
		g.mu.Unlock()
		return room
	}
	q := g.crowd.queues[key]
	if q == nil {
		q = list.New()
		g.crowd.queues[key] = q
	}
	t := make(turn)
	e := q.PushBack(t)
	g.crowd.n++
	g.mu.Unlock()

	g.delayed.Add(1)
	defer g.delayed.Add(-1)
	select {
	case <-t:
		return true
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-t:
		g.wake(key.network) // the next one's turn
	default:
		g.crowd.remove(key, e)
	}
	return false
}

// remove takes a turn out of its queue.
func (c *crowd) remove(key sourceKey, e *list.Element) {
	q := c.queues[key]
	q.Remove(e)
	c.n--
	if q.Len() == 0 {
		delete(c.queues, key)
	}
}

// wake gives the next one in a network his turn if there is a place for him, first those
// who are known there; g.mu is held.
func (g *Gate) wake(network id) {
	for _, key := range []sourceKey{{network, true}, {network, false}} {
		if q := g.crowd.queues[key]; q != nil && g.under[network] < places(key.known) {
			e := q.Front()
			g.crowd.remove(key, e)
			close(e.Value.(turn))
			return
		}
	}
}
