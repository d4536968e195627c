package rules

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"dovepost/policy"
)

// instanceOf tells messages apart, also those of several mail servers.
func instanceOf(q *policy.Request) string {
	if q.Instance == "" {
		return ""
	}
	return fmt.Sprintf("%s %s %s %d %s", q.Instance, q.QueueID, q.ClientAddress, q.ClientPort, q.SASLUsername)
}

// instances remembers what was answered about the messages of the last while.
type instances struct {
	mu      sync.Mutex // guards answers
	answers generations[*answer]
}

// answer is on its way until done is closed.
type answer struct {
	done   chan struct{}
	action policy.Action
	err    error
}

const maxInstances = 4096 // in each of two generations

// once returns what decide returned for the instance, now or before. What stops a message is not
// remembered: nothing was counted then, and after END-OF-MESSAGE the client may give it again as the same instance.
func (s *instances) once(ctx context.Context, instance string, decide func() (policy.Action, error)) (policy.Action, error) {
	if instance == "" || len(instance) > 4096 {
		return decide()
	}
	s.mu.Lock()
	a, ok := s.answers.get(instance)
	if ok {
		s.mu.Unlock()
		select {
		case <-a.done:
			return a.action, a.err
		case <-ctx.Done():
			return policy.Dunno, ctx.Err()
		}
	}
	a = &answer{done: make(chan struct{}), err: errUndecided}
	s.answers.put(instance, a, maxInstances)
	s.mu.Unlock()
	defer func() { // also when decide panics
		if a.err != nil || stops(a.action.Word) {
			s.mu.Lock()
			s.answers.delete(instance)
			s.mu.Unlock()
		}
		close(a.done)
	}()
	a.action, a.err = decide()
	return a.action, a.err
}

var errUndecided = errors.New("no decision")
