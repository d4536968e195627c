package socketmap

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"dovepost/lookup"
)

// ReplyError is an answer other than "found" and "not found": TEMP, TIMEOUT,
// PERM, or one that the protocol does not know. Postfix tries again later in
// every one of these cases.
type ReplyError struct{ Reply string }

func (e *ReplyError) Error() string { return fmt.Sprintf("socketmap server says %q", e.Reply) }

// Client asks a socketmap server, one request at a time. It can be used by
// several goroutines. After an error other than lookup.ErrNotFound and
// *ReplyError the connection is of no more use.
type Client struct {
	mu  sync.Mutex // guards what follows
	c   net.Conn
	r   *bufio.Reader
	buf []byte
}

// Dial connects to a server; network and address are those of package net
// ("unix" and a path, or "tcp" and host:port).
func Dial(ctx context.Context, network, address string) (*Client, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return NewClient(c), nil
}

// NewClient asks over an open connection, which the Client then owns.
func NewClient(c net.Conn) *Client {
	return &Client{c: c, r: bufio.NewReader(c)}
}

// Close closes the connection.
func (c *Client) Close() error { return c.c.Close() }

// Lookup asks the map name for key and returns its value as Postfix would see
// it. Errors: one that wraps lookup.ErrNotFound, a *ReplyError, or whatever
// befell the connection. The end of ctx ends the connection, too.
func (c *Client) Lookup(ctx context.Context, name, key string) (value string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { c.c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	c.buf = appendNetstring(c.buf[:0], name+" "+key)
	if _, err := c.c.Write(c.buf); err != nil {
		return "", because(ctx, err)
	}
	reply, err := readNetstring(c.r, maxReply)
	if err != nil {
		return "", because(ctx, unexpected(err))
	}
	status, value, spaced := strings.Cut(string(reply), " ")
	switch {
	case status == "OK" && spaced && value != "":
		return value, nil
	case status == "NOTFOUND":
		return "", fmt.Errorf("map %s: %w", name, lookup.ErrNotFound)
	default:
		return "", &ReplyError{Reply: string(reply)}
	}
}

// because prefers the reason why ctx ended to what that did to the connection.
func because(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	return err
}
