package rules

import (
	"context"
	"testing"
	"time"

	"dovepost/policy"
)

// Who asks about an instance whose decision came to nothing is not kept waiting.
func TestAPanicIsNoDecision(t *testing.T) {
	var s instances
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic has gone")
			}
		}()
		s.once(t.Context(), "i", func() (policy.Action, error) { panic("decide") })
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	got, err := s.once(ctx, "i", func() (policy.Action, error) { return policy.Action{Word: "HOLD"}, nil })
	if err != nil || got.Word != "HOLD" {
		t.Errorf("%v, %v; want a decision", got, err)
	}
}
