package stack

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// claimHost is where ports are claimed, so that a server of ours can be stopped
// and started again without losing its port to another stack.
const claimHost = "127.255.255.254"

// port is a TCP port of 127.0.0.1 that no other stack of this machine uses until
// release. It lies below the range that the kernel hands out to clients.
type port struct {
	number int
	claim  net.Listener
}

func claimPort() (*port, error) {
	const first, count, tries = 10000, 22000, 200
	var err error
	for range tries {
		number := first + rand.IntN(count)
		var claim, probe net.Listener
		claim, err = net.Listen("tcp4", net.JoinHostPort(claimHost, strconv.Itoa(number)))
		if err != nil {
			continue
		}
		p := &port{number, claim}
		probe, err = net.Listen("tcp4", p.addr())
		if err != nil {
			p.release()
			continue
		}
		probe.Close()
		return p, nil
	}
	return nil, fmt.Errorf("no free loopback port after %d tries: %w", tries, err)
}

// given are the ports that FreePort has given away.
var given struct {
	mu  sync.Mutex // guards all
	all []*port
}

// FreePort returns a TCP port of 127.0.0.1 for a server that is started later: until this process
// has ended no stack and nobody else who asks here gets it, nor does the kernel hand it out.
func FreePort() (int, error) {
	p, err := claimPort()
	if err != nil {
		return 0, err
	}
	given.mu.Lock()
	defer given.mu.Unlock()
	given.all = append(given.all, p) // the claim ends with its listener
	return p.number, nil
}

func (p *port) addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.number)) }

func (p *port) release() { p.claim.Close() }
