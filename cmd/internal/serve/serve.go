// Package serve is the one accept loop of all daemons.
//
// It bounds the number of connections by not accepting more (clients wait in the
// kernel's backlog, which Postfix and Dovecot take better than a refusal), backs
// off when Accept fails, keeps a panic inside its connection, and drains: it wakes
// readers that wait between two requests and lets the others finish.
package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"dovepost/cmd/internal/loop"
)

// A Handler serves one connection.
type Handler interface {
	// ServeConn returns when the connection is done: nil for a good end. It need
	// not close c. When ctx ends, whatever is in flight has to be given up.
	//
	// c offers the methods of [Conn] beyond net.Conn.
	ServeConn(ctx context.Context, c net.Conn) error
}

// HandlerFunc makes a Handler of a function.
type HandlerFunc func(ctx context.Context, c net.Conn) error

// ServeConn calls f.
func (f HandlerFunc) ServeConn(ctx context.Context, c net.Conn) error { return f(ctx, c) }

// ErrDraining is what SetIdle(true) says while the server drains: the handler
// takes its leave and returns.
var ErrDraining = errors.New("shutting down")

// How long handlers have, after the end of their context, to answer what is
// pending before their connections are closed.
const farewell = 2 * time.Second

// Bounds of the pause after a failed Accept.
const (
	minBackoff = 5 * time.Millisecond
	maxBackoff = time.Second
)

// Server serves the connections of any number of listeners with one Handler.
// Set the fields before the first Serve.
type Server struct {
	Handler  Handler
	MaxConns int             // connections at a time; 0 means no bound
	Loop     *loop.Loop      // runs the handlers; nil: each has a goroutine
	Log      *slog.Logger    // nil: slog.Default()
	OnConn   func(delta int) // called with +1 and -1; may be nil

	once   sync.Once
	slots  chan struct{} // nil when unbounded
	ctx    context.Context
	cancel context.CancelFunc
	drain  chan struct{} // closed when draining starts
	loops  sync.WaitGroup

	mu        sync.Mutex // guards the fields below
	draining  bool
	conns     map[*Conn]struct{}
	listeners map[net.Listener]struct{}
	empty     chan struct{} // closed when draining and the last connection has gone
}

func (s *Server) init() {
	s.once.Do(func() {
		if s.Log == nil {
			s.Log = slog.Default()
		}
		if s.MaxConns > 0 {
			s.slots = make(chan struct{}, s.MaxConns)
		}
		s.ctx, s.cancel = context.WithCancel(context.Background())
		s.drain = make(chan struct{})
		s.empty = make(chan struct{})
		s.conns = make(map[*Conn]struct{})
		s.listeners = make(map[net.Listener]struct{})
	})
}

// Serve accepts connections of ln until Shutdown is called (then it returns nil)
// or ln is closed by somebody else (then it returns the error). It closes ln.
func (s *Server) Serve(ln net.Listener) error {
	s.init()
	defer ln.Close()
	if !s.addListener(ln) {
		return nil
	}
	defer s.loops.Done()

	backoff := minBackoff
	for {
		if !s.acquire() {
			return nil
		}
		c, err := ln.Accept()
		if err == nil {
			backoff = minBackoff
			s.start(c)
			continue
		}
		s.release()
		switch {
		case s.isDraining():
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept on %s: %w", ln.Addr(), err)
		}
		// Out of descriptors or memory, or a client that left the backlog: none of
		// them is a reason to stop, and all of them a reason not to spin.
		s.Log.Error("accept", "listener", ln.Addr().String(), "err", err, "pause", backoff)
		select {
		case <-time.After(backoff):
		case <-s.drain:
			return nil
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// Shutdown stops accepting, wakes the handlers that wait between two requests
// and waits until all connections have gone. When ctx ends first, it ends the
// context of the handlers, gives them a moment to answer what is pending, closes
// their connections and returns ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.init()
	s.startDrain()
	defer s.cancel()
	defer s.loops.Wait()

	select {
	case <-s.empty:
		return nil
	case <-ctx.Done():
	}
	s.cancel()
	select {
	case <-s.empty:
	case <-time.After(farewell):
		s.mu.Lock()
		for c := range s.conns {
			c.Conn.Close()
		}
		s.mu.Unlock()
		<-s.empty
	}
	return ctx.Err()
}

// Conns returns the number of open connections.
func (s *Server) Conns() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

func (s *Server) addListener(ln net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	s.listeners[ln] = struct{}{}
	s.loops.Add(1)
	return true
}

// acquire waits for a free place; false means that the server drains.
func (s *Server) acquire() bool {
	if s.slots == nil {
		return !s.isDraining()
	}
	select {
	case s.slots <- struct{}{}:
		return true
	default:
	}
	s.Log.Warn("connection limit reached, new clients wait", "limit", s.MaxConns)
	select {
	case s.slots <- struct{}{}:
		return true
	case <-s.drain:
		return false
	}
}

func (s *Server) release() {
	if s.slots != nil {
		<-s.slots
	}
}

func (s *Server) isDraining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

func (s *Server) startDrain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return
	}
	s.draining = true
	close(s.drain)
	for ln := range s.listeners {
		ln.Close()
	}
	for c := range s.conns {
		c.startDrain()
	}
	if len(s.conns) == 0 {
		close(s.empty)
	}
}

// start serves nc in a goroutine of its own. It owns one slot.
func (s *Server) start(nc net.Conn) {
	nc = s.adopt(nc)
	c := &Conn{Conn: nc}
	s.mu.Lock()
	if s.draining && len(s.conns) == 0 { // empty is closed: Shutdown may have returned
		s.mu.Unlock()
		s.release()
		nc.Close()
		return
	}
	s.conns[c] = struct{}{}
	if s.draining { // accepted while Shutdown began: it is served once and then told
		c.startDrain()
	}
	s.mu.Unlock()
	if s.OnConn != nil {
		s.OnConn(+1)
	}
	if looped, ok := nc.(*loop.Conn); ok {
		looped.Serve(func() { s.serve(c) })
	} else {
		go s.serve(c)
	}
}

// adopt gives a connection to the Loop, if there is one.
func (s *Server) adopt(nc net.Conn) net.Conn {
	if s.Loop == nil {
		return nc
	}
	c, err := s.Loop.Adopt(nc)
	if err != nil {
		s.Log.Warn("a connection gets a goroutine", "remote", nc.RemoteAddr(), "err", err)
		return nc
	}
	return c
}

func (s *Server) serve(c *Conn) {
	defer func() {
		if r := recover(); r != nil {
			s.Log.Error("panic in a connection", "remote", remote(c), "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
		}
		c.Conn.Close()
		if s.OnConn != nil {
			s.OnConn(-1)
		}
		s.release()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, c)
		if s.draining && len(s.conns) == 0 {
			close(s.empty)
		}
	}()
	if err := s.Handler.ServeConn(s.ctx, c); err != nil {
		s.Log.Debug("connection ended", "remote", remote(c), "err", err)
	}
}

func remote(c net.Conn) string {
	if a := c.RemoteAddr(); a != nil {
		return a.String()
	}
	return ""
}
