package delegation

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"dovepost/policy"
)

// An outage is told once, by whoever finds it out, and not with each request.
func TestLogOfFailures(t *testing.T) {
	away := fmt.Errorf("rule greylist: mysql: %w: %w", policy.ErrAway, errors.New("connection refused"))
	for _, tt := range []struct {
		name   string
		action policy.Action
		err    error
		want   string
	}{
		{"one that is known", policy.Dunno, errors.Join(away), ""},
		{"two that are known", policy.Dunno, errors.Join(away, away), ""},
		{"one that is known and one that is not", policy.Dunno, errors.Join(away, errors.New("rule quota: no rights")), "level=WARN"},
		{"one that is not known", policy.Dunno, errors.New("panic: x"), "level=WARN"},
		{"one that is known and decides", policy.Action{Word: "DEFER"}, errors.Join(away), "level=WARN"},
	} {
		t.Run("it handles "+tt.name, func(t *testing.T) {
			var out bytes.Buffer
			result := ""
			h := &Handler{Log: slog.New(slog.NewTextHandler(&out, nil)), Observe: func(r string, _ time.Duration) { result = r }}
			h.account(&policy.Request{State: "RCPT"}, tt.action, tt.err, 0)
			if got := out.String(); (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("log %q, want %q", got, tt.want)
			}
			if result != "error" {
				t.Errorf("observed as %q, want error", result)
			}
		})
	}
}
