package maildir

import (
	"sync"
	"sync/atomic"
)

// making knows the names that deliveries of this process are making and that are not
// durable yet. Who finds such a name waits until it is: a message below it must not be
// acknowledged before. Nobody waits for a name that is not on his own way, since the disk
// of one user may hang and those of the others do not.
//
// A name is the path of a directory, or with a slash at its end all that a mailbox has
// in that directory. A maker of the latter may make the former, not the other way round.
type making struct {
	n     atomic.Int32 // of names
	mu    sync.Mutex
	names map[string]chan struct{} // guarded by mu; closed when the name is no longer here
}

// begin takes name, when nobody else has it any more. The caller must call end.
func (m *making) begin(name string) {
	for {
		m.mu.Lock()
		busy := m.names[name]
		if busy == nil {
			if m.names == nil {
				m.names = make(map[string]chan struct{})
			}
			m.names[name] = make(chan struct{})
			m.n.Add(1)
			m.mu.Unlock()
			return
		}
		m.mu.Unlock()
		<-busy
	}
}

func (m *making) end(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.names[name])
	delete(m.names, name)
	m.n.Add(-1)
}

// wait returns when nobody is making name. That is told of makers that had begun before
// the caller found the name.
func (m *making) wait(name string) {
	if m.n.Load() == 0 {
		return
	}
	m.mu.Lock()
	busy := m.names[name]
	m.mu.Unlock()
	if busy != nil {
		<-busy
	}
}
