// Package faultproxy stands between a client and a server and does what networks
// and servers do on bad days: refuse, hang, be slow, forget, and end in the middle
// of an answer. It is for tests.
package faultproxy

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// A Fault is what goes wrong, for connections that are open and for new ones.
type Fault struct {
	kind  kind
	delay time.Duration
	after int
}

type kind int

const (
	pass kind = iota
	refuse
	hang
	lose
	slow
	cut
)

// Pass lets everything through.
func Pass() Fault { return Fault{} }

// Refuse closes all connections and takes no new ones.
func Refuse() Fault { return Fault{kind: refuse} }

// Hang lets nothing through. What was sent meanwhile arrives later: a server whose
// disk does not answer, or a stopped process.
func Hang() Fault { return Fault{kind: hang} }

// Lose is a network that ends: nothing gets through, and what is sent never
// arrives, nor will anything on a connection that has lost octets.
func Lose() Fault { return Fault{kind: lose} }

// Slow delays each piece of an answer.
func Slow(delay time.Duration) Fault { return Fault{kind: slow, delay: delay} }

// Cut resets a connection when the server has sent that many octets more on it.
func Cut(after int) Fault { return Fault{kind: cut, after: after} }

// Proxy passes connections on.
type Proxy struct {
	network, addr     string // where it listens
	toNetwork, toAddr string

	mu       sync.Mutex // guards what follows
	fault    Fault
	changed  chan struct{} // closed when fault is no longer valid
	listener net.Listener  // nil: refuses
	conns    map[*conn]bool
	total    int
	closed   bool
	running  sync.WaitGroup
}

// conn is a connection of a client and the one to the server.
type conn struct {
	client, server net.Conn
	budget         int // for Cut; -1: not set yet
	lost           bool
}

// Listen starts a proxy that listens on a TCP or unix address and passes on to
// another one. The caller must Close it.
func Listen(network, addr, toNetwork, toAddr string) (*Proxy, error) {
	p := &Proxy{network: network, addr: addr, toNetwork: toNetwork, toAddr: toAddr, changed: make(chan struct{}), conns: map[*conn]bool{}}
	if err := p.listen(); err != nil {
		return nil, err
	}
	return p, nil
}

// Addr returns where the proxy listens, as net.Dial takes it.
func (p *Proxy) Addr() string { return p.addr }

// Total returns how many connections there have been.
func (p *Proxy) Total() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.total
}

// Open returns how many connections there are.
func (p *Proxy) Open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

// Set changes the fault. Open connections outlive every fault but Refuse, Cut and
// those that Lose took octets from.
func (p *Proxy) Set(f Fault) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
	close(p.changed)
	p.changed = make(chan struct{})
	for c := range p.conns {
		c.budget = -1
	}
	if f.kind != refuse {
		if p.listener != nil || p.closed {
			return nil
		}
		return p.listen()
	}
	p.refuse()
	return nil
}

// Close ends everything and waits for it.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	p.fault = Refuse()
	close(p.changed)
	p.changed = make(chan struct{})
	p.refuse()
	p.mu.Unlock()
	p.running.Wait()
	return nil
}

// refuse closes the listener and all connections. p.mu is held.
func (p *Proxy) refuse() {
	if p.listener != nil {
		p.listener.Close()
		p.listener = nil
	}
	for c := range p.conns {
		c.reset()
	}
}

// listen opens the listener. p.mu is held, or nobody knows of p yet.
func (p *Proxy) listen() error {
	if p.network == "unix" {
		os.Remove(p.addr)
	}
	l, err := net.Listen(p.network, p.addr)
	if err != nil {
		return err
	}
	p.listener, p.addr = l, l.Addr().String()
	p.running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.running.Go(func() { p.serve(c) })
		}
	})
	return nil
}

// serve passes one connection on.
func (p *Proxy) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial(p.toNetwork, p.toAddr)
	if err != nil {
		return
	}
	defer server.Close()
	c := &conn{client: client, server: server, budget: -1}
	p.mu.Lock()
	p.conns[c] = true
	p.total++
	refused := p.fault.kind == refuse
	p.mu.Unlock()
	if refused {
		c.reset()
	}
	var both sync.WaitGroup
	both.Go(func() { p.copy(c, server, client, false) })
	p.copy(c, client, server, true)
	both.Wait()
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
}

// reset ends both sides at once.
func (c *conn) reset() {
	for _, side := range []net.Conn{c.client, c.server} {
		if tcp, ok := side.(*net.TCPConn); ok {
			tcp.SetLinger(0)
		}
		side.Close()
	}
}

// copy passes on what one side sends, as far as the fault allows. The end of one
// direction is that of both.
func (p *Proxy) copy(c *conn, to, from net.Conn, answer bool) {
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if err := p.forward(c, to, buf[:n], answer); err != nil {
				c.reset()
				return
			}
		}
		if err != nil {
			// The other direction may be held up by a fault: it sees the end when that is over.
			p.wait()
			if errors.Is(err, io.EOF) {
				c.client.Close()
				c.server.Close()
			} else {
				c.reset()
			}
			return
		}
	}
}

var errCut = errors.New("cut")

// forward passes on one piece.
func (p *Proxy) forward(c *conn, to net.Conn, piece []byte, answer bool) error {
	f := p.wait()
	p.mu.Lock()
	switch {
	case f.kind == lose, c.lost:
		c.lost = true
		p.mu.Unlock()
		return nil
	case f.kind == refuse:
		p.mu.Unlock()
		return errCut
	case f.kind == cut && answer:
		if c.budget < 0 {
			c.budget = f.after
		}
		if len(piece) >= c.budget {
			piece = piece[:c.budget]
			p.mu.Unlock()
			to.Write(piece)
			return errCut
		}
		c.budget -= len(piece)
	}
	changed := p.changed
	p.mu.Unlock()
	if f.kind == slow && answer {
		select {
		case <-time.After(f.delay):
		case <-changed:
		}
	}
	_, err := to.Write(piece)
	return err
}

// wait waits while the fault is Hang and returns the one after it.
func (p *Proxy) wait() Fault {
	for {
		p.mu.Lock()
		f, changed := p.fault, p.changed
		p.mu.Unlock()
		if f.kind != hang {
			return f
		}
		<-changed
	}
}
