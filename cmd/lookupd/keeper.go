package main

import (
	"errors"
	"io/fs"
	"log/slog"
	"time"

	"dovepost/lookup/cache"
)

// keepInterval is how old the file of the cache may be when the process dies.
const keepInterval = 5 * time.Minute

// keeper keeps a cache in a file. A nil keeper does nothing.
type keeper struct {
	cache *cache.Cache
	path  string
	log   *slog.Logger
	stop  chan struct{}
	done  chan struct{}
	asked uint64 // misses when the file was last written
}

// keep takes the answers from the file, if there is one, and begins to keep it up
// to date. What cannot be read is no obstacle: the database knows better.
func keep(c *cache.Cache, path string, log *slog.Logger) *keeper {
	if path == "" {
		return nil
	}
	switch n, err := c.ReadFile(path); {
	case err == nil:
		log.Info("cache read", "file", path, "answers", n)
	case !errors.Is(err, fs.ErrNotExist):
		log.Warn("the cache of the last run is not used", "err", err)
	}
	k := &keeper{cache: c, path: path, log: log, stop: make(chan struct{}), done: make(chan struct{})}
	go k.run()
	return k
}

func (k *keeper) run() {
	defer close(k.done)
	tick := time.NewTicker(keepInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			k.write()
		case <-k.stop:
			k.write()
			return
		}
	}
}

// write writes the file, unless nothing was asked since it did so.
func (k *keeper) write() {
	_, _, asked, _, _ := k.cache.Stats()
	if asked == k.asked {
		return
	}
	if err := k.cache.WriteFile(k.path); err != nil {
		k.log.Warn("the cache cannot be kept", "err", err)
		return
	}
	k.asked = asked
}

// close writes the file for the last time.
func (k *keeper) close() {
	if k == nil {
		return
	}
	close(k.stop)
	<-k.done
}
