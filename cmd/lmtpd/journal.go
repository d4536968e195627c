package main

import (
	"errors"
	"log/slog"
	"syscall"
	"time"

	"dovepost/cmd/internal/daemon"
	"dovepost/lmtp/journal"
)

// journalPatience is how long the process before this one may keep its journal.
const journalPatience = 5 * time.Second

// openJournal opens the journal of deliveries. Where there is none mail is taken all the
// same: a message that is sent again may then come twice.
func (s *settings) openJournal(env *daemon.Env) *journal.Journal {
	path := daemon.StateFile(s.journal, "journal")
	if path == "" || env.Check {
		return nil
	}
	deadline := time.Now().Add(journalPatience)
	for {
		j, err := journal.Open(path, journal.Options{MaxSize: s.journalSize, Log: env.Log})
		if err == nil {
			return j
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) || time.Now().After(deadline) {
			env.Log.Error("no journal: a message that is sent again may come twice", slog.Any("err", err))
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
}
