package main

import (
	"strings"
	"testing"

	"dovepost/lmtp"
)

func TestAPanicInALookIsAnError(t *testing.T) {
	m := &mailboxes{slots: make(chan struct{}, 1)} // without a store
	for range 2 {
		if err := m.look(t.Context(), "key", &lmtp.Mailbox{User: "a@d"}, 1); err == nil || !strings.Contains(err.Error(), "panic") {
			t.Errorf("%v, want a panic", err)
		}
	}
	if len(m.slots) != 0 {
		t.Error("its place is not free again")
	}
}
