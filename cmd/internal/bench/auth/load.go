package main

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// patience is for all questions of one round.
const patience = 2 * time.Minute

// The hellos of the two protocols: what the client says, and the word with which
// the server's part ends.
var (
	clientHello = hello{"VERSION\t1\t2\nCPID\t%d\n", "DONE"}
	masterHello = hello{"VERSION\t1\t1\n", "SPID"}
)

type hello struct{ says, last string }

// client is one connection, with one open question at a time.
type client struct {
	net.Conn
	r      *bufio.Reader
	lastID int
}

func dial(path string, h hello, pid int) (*client, error) {
	nc, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	nc.SetDeadline(time.Now().Add(patience))
	c := &client{Conn: nc, r: bufio.NewReader(nc)}
	if strings.Contains(h.says, "%d") {
		h.says = fmt.Sprintf(h.says, pid)
	}
	if _, err := io.WriteString(nc, h.says); err != nil {
		return nil, err
	}
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			nc.Close()
			return nil, fmt.Errorf("handshake: %w", err)
		}
		if word, _, _ := strings.Cut(strings.TrimSpace(line), "\t"); word == h.last {
			return c, nil
		}
	}
}

// ask puts a question, whose id is written as %d in it, and returns the answer.
func (c *client) ask(question string) ([]byte, error) {
	c.lastID++
	word, rest, _ := strings.Cut(question, "%d")
	if _, err := fmt.Fprintf(c, "%s%d%s", word, c.lastID, rest); err != nil {
		return nil, err
	}
	return c.r.ReadSlice('\n')
}

func login(name, password string) string {
	resp := base64.StdEncoding.EncodeToString([]byte("\x00" + name + "\x00" + password))
	return "AUTH\t%d\tPLAIN\tservice=imap\tsecured\tresp=" + resp + "\n"
}

func lookup(name string) string { return "USER\t%d\t" + name + "\tservice=lmtp\n" }

// rate puts all questions over so many connections at a time and returns how many
// answers came in a second. An answer that does not begin with the word want is an
// error.
func rate(path string, h hello, clients int, questions []string, want string) (float64, error) {
	all := make([]*client, clients)
	for i := range all {
		c, err := dial(path, h, 100_000+i)
		if err != nil {
			return 0, err
		}
		defer c.Close()
		all[i] = c
	}
	var asking errgroup.Group
	began := time.Now()
	for i, c := range all {
		asking.Go(func() error {
			for n := i; n < len(questions); n += clients {
				answer, err := c.ask(questions[n])
				if err == nil && !strings.HasPrefix(string(answer), want+"\t") {
					err = fmt.Errorf("answer %.100q", answer)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := asking.Wait()
	return float64(len(questions)) / time.Since(began).Seconds(), err
}

// imapLogins logs everybody in over IMAP, so many at a time, and returns how many
// were in a second. Each login is a connection.
func imapLogins(addr string, clients, first, n int) (float64, error) {
	var logging errgroup.Group
	began := time.Now()
	for i := range clients {
		logging.Go(func() error {
			for p := first + i; p < first+n; p += clients {
				if err := imapLogin(addr, p); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := logging.Wait()
	return float64(n) / time.Since(began).Seconds(), err
}

func imapLogin(addr string, who int) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	r := bufio.NewReader(c)
	if line, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "* OK") {
		return errors.Join(fmt.Errorf("greeting %q", line), err)
	}
	name, password := person(who)
	for _, command := range []string{"a LOGIN " + name + " " + password, "b LOGOUT"} {
		if _, err := io.WriteString(c, command+"\r\n"); err != nil {
			return err
		}
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if strings.HasPrefix(line, command[:2]+"OK") {
				break
			}
			if !strings.HasPrefix(line, "*") {
				return fmt.Errorf("%s: %q", name, line)
			}
		}
	}
	return nil
}
