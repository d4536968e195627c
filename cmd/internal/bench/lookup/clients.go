package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"dovepost/lookup/socketmap"
)

// A client asks for some keys.
type client struct {
	in   string // file with the keys
	hits int    // how many of them there are answers to
}

// file writes the keys of one client.
func (b *bench) file(keys []string, hits int) (client, error) {
	b.serial++
	c := client{filepath.Join(b.dir, fmt.Sprintf("keys%d", b.serial)), hits}
	return c, os.WriteFile(c.in, []byte(strings.Join(keys, "\n")+"\n"), 0o600)
}

// mysql names a table of Postfix's own, remote one of a socketmap server.
func (b *bench) mysql(table string) string { return "mysql:" + b.cf(native, table) }
func (b *bench) remote(server, table string) string {
	return "socketmap:unix:" + b.socket(server) + ":" + table
}

// postmap runs one postmap for each client, at the same time, and returns how long they took.
func (b *bench) postmap(table string, clients []client) (time.Duration, error) {
	began := time.Now()
	var g errgroup.Group
	for _, c := range clients {
		g.Go(func() error {
			in, err := os.Open(c.in)
			if err != nil {
				return err
			}
			defer in.Close()
			out, err := os.Create(c.in + ".out")
			if err != nil {
				return err
			}
			defer out.Close()
			cmd := exec.Command("/usr/sbin/postmap", "-c", b.dir, "-q", "-", table)
			var stderr bytes.Buffer
			cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, &stderr
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("postmap -q - %s: %w: %s", table, err, stderr.String())
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	took := time.Since(began)
	for _, c := range clients {
		text, err := os.ReadFile(c.in + ".out")
		if err != nil {
			return 0, err
		}
		if n := bytes.Count(text, []byte("\n")); n != c.hits {
			return 0, fmt.Errorf("postmap -q - %s: %d answers, want %d", table, n, c.hits)
		}
		os.Remove(c.in + ".out")
	}
	return took, nil
}

// raw asks a server for keys over n connections, and returns how long that took.
func (b *bench) raw(server, table string, n int, keys []string) (time.Duration, error) {
	var clients []*socketmap.Client
	for range n {
		c, err := socketmap.Dial(context.Background(), "unix", b.socket(server))
		if err != nil {
			return 0, err
		}
		defer c.Close()
		clients = append(clients, c)
	}
	began := time.Now()
	var g errgroup.Group
	i := 0
	for part := range slices.Chunk(keys, (len(keys)+n-1)/n) {
		c := clients[i]
		i++
		g.Go(func() error {
			for _, key := range part {
				if _, err := c.Lookup(context.Background(), table, key); err != nil {
					return fmt.Errorf("%s: %w", key, err)
				}
			}
			return nil
		})
	}
	err := g.Wait()
	return time.Since(began), err
}

func user(n int) string { return fmt.Sprintf("user%07d@example.com", n) }

// hotKeys are n keys out of a hundred.
func hotKeys(n int) (keys []string) {
	for i := range n {
		keys = append(keys, user(i*37%100))
	}
	return keys
}

// newUsers are n users that nobody has asked for before.
func (b *bench) newUsers(n int) (keys []string, err error) {
	if b.next+n > b.users {
		return nil, fmt.Errorf("all %d users have been asked for: more --users, or less --keys or --rounds", b.users)
	}
	for range n {
		// A large prime number, so that neighbours in time are no neighbours on the disk.
		keys = append(keys, user(b.next*7_368_787%b.users))
		b.next++
	}
	return keys, nil
}
