package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

var bareNames atomic.Int64

// bareLoop stores as many messages as l has in the mailboxes below root, by as many goroutines, with
// nothing but the calls that make a message durable. It returns messages per second.
func bareLoop(root string, l load) (float64, error) {
	text := bytes.Repeat([]byte("0123456789abcde\n"), l.octets/16)
	failed := make([]error, l.clients)
	var wg sync.WaitGroup
	began := time.Now()
	for client := range l.clients {
		wg.Go(func() {
			for n := 0; n < l.messages && failed[client] == nil; n++ {
				failed[client] = bareMessage(filepath.Join(root, fmt.Sprintf("%duser/Maildir", n%mailboxes+1)), text)
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	for _, err := range failed {
		if err != nil {
			return 0, err
		}
	}
	return float64(l.deliveries()) / took.Seconds(), nil
}

func bareMessage(box string, text []byte) error {
	name := fmt.Sprint(bareNames.Add(1))
	f, err := os.OpenFile(filepath.Join(box, "tmp", name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(text); err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(box, "new", name))
	}
	if err != nil {
		return err
	}
	d, err := os.Open(filepath.Join(box, "new"))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
