package store

import (
	"context"
	"sync"
	"testing"
	"time"
)

// a server that takes its time is asked once and answers, with all connections in use and
// although the pool looks after them meanwhile.
func TestSlowServer(t *testing.T) {
	_, pool := table(t, cfFile(t, usersQuery+account(socket())), 4)
	const slow = 2 * time.Second
	before := executed(t)
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			if _, err := pool.Query(context.Background(), "SELECT SLEEP(?)", int64(slow/time.Second)); err != nil {
				t.Error(err)
			}
		})
	}
	clients.Wait()
	if n := executed(t) - before; n != 4 {
		t.Errorf("%d questions were asked, want 4", n)
	}
	if n := pool.Stats().OpenConnections; n > 5 {
		t.Errorf("%d connections, want at most 5", n)
	}
}

// what the network has lost is asked for again as soon as the server can be reached, and
// not when the time of the question is over.
func TestLostQueries(t *testing.T) {
	p := newProxy(t, db.Addr())
	_, pool := table(t, cfFile(t, usersQuery+account(p.Addr().String())), 4)
	for _, lasts := range []time.Duration{0, 300 * time.Millisecond, 1500 * time.Millisecond} {
		var clients sync.WaitGroup
		for range 4 { // fills the pool
			clients.Go(func() { pool.Query(context.Background(), "SELECT SLEEP(0.1)") })
		}
		clients.Wait()
		p.mode.Store("hang")
		for range 4 {
			clients.Go(func() {
				if rows, err := pool.Query(context.Background(), "SELECT 1"); err != nil || rows.Values[0][0].String != "1" {
					t.Errorf("%v: got %v, %v", lasts, rows, err)
				}
			})
		}
		for pool.Stats().InUse < 4 {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(100*time.Millisecond + lasts) // all are on their way and lost
		p.mode.Store("pass")
		back := time.Now()
		clients.Wait()
		t.Logf("lost for %v: answers %v after that", lasts, time.Since(back).Round(time.Millisecond))
		if took := time.Since(back); took > 8*time.Second { // of the 20 s that a question has
			t.Errorf("lost for %v: answers after %v, want 2s", lasts, took)
		}
	}
}
