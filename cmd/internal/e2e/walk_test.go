package e2e

import (
	"testing"

	"dovepost/cmd/internal/stack"
	"dovepost/cmd/internal/stack/walk"
)

// TestWalk goes along every arrow of the flow chart.
func TestWalk(t *testing.T) {
	if err := walk.Run(mail, reporter(t)); err != nil {
		t.Fatal(err)
	}
}

// TestWalkNative goes the same way with the database clients of Postfix and
// Dovecot, beside the other stack: the walk expects nothing of dovepost that
// they would not do.
func TestWalkNative(t *testing.T) {
	options := walk.Options(stack.Native)
	// Dovecot makes a client that failed wait for up to 15 s; that is not what is looked at.
	options.DovecotConf = []string{
		"service anvil {\n  unix_listener anvil-auth-penalty {\n    mode = 0\n  }\n}",
	}
	s, err := stack.Start(options)
	if err != nil {
		t.Fatal(err)
	}
	if err := walk.Run(s, reporter(t)); err != nil {
		t.Fatalf("%v\nlogs are in %s (stopped: %v)", err, s.Dir, s.Halt())
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
}

func reporter(t *testing.T) walk.Reporter {
	return func(arrow, asked, answered string) { t.Logf("%s | %s | %s", arrow, asked, answered) }
}
