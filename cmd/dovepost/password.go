package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// maxPassword bounds a password in octets.
const maxPassword = 16 << 10

// readPassword reads a password from the terminal, twice if it is a new one, or
// else the first line of standard input.
func readPassword(c *call, isNew bool) ([]byte, error) {
	saved, err := unix.IoctlGetTermios(int(c.stdin.Fd()), unix.TCGETS)
	if err != nil { // not a terminal
		return readLine(c.stdin)
	}
	if !isNew {
		return askHidden(c, saved, "Password: ")
	}
	first, err := askHidden(c, saved, "New password: ")
	if err != nil {
		return nil, err
	}
	second, err := askHidden(c, saved, "The same again: ")
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(first, second) {
		return nil, exitError{exitUsage, errors.New("the passwords differ")}
	}
	return first, nil
}

// askHidden reads a line with the terminal's echo off. saved is what the terminal
// is set back to, also when the user interrupts.
func askHidden(c *call, saved *unix.Termios, prompt string) ([]byte, error) {
	ctx, stop := signal.NotifyContext(c.ctx, os.Interrupt, unix.SIGTERM)
	defer stop()
	fd := int(c.stdin.Fd())
	hidden := *saved
	hidden.Lflag &^= unix.ECHO
	hidden.Lflag |= unix.ECHONL | unix.ICANON | unix.ISIG
	if err := unix.IoctlSetTermios(fd, unix.TCSETSF, &hidden); err != nil {
		return nil, err
	}
	defer unix.IoctlSetTermios(fd, unix.TCSETS, saved)
	fmt.Fprint(c.stderr, prompt)
	type line struct {
		text []byte
		err  error
	}
	lines := make(chan line, 1)
	go func() {
		text, err := readLine(c.stdin)
		lines <- line{text, err}
	}()
	select {
	case l := <-lines:
		return l.text, l.err
	case <-ctx.Done():
		return nil, errors.New("interrupted")
	}
}

// readLine reads the first line, without its end.
func readLine(f *os.File) ([]byte, error) {
	text, err := bufio.NewReader(io.LimitReader(f, maxPassword+1)).ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if errors.Is(err, io.EOF) && len(text) == 0 {
		return nil, exitError{exitUsage, errors.New("no password on standard input")}
	}
	text = bytes.TrimSuffix(text, []byte("\n"))
	if len(text) > maxPassword {
		return nil, exitError{exitUsage, fmt.Errorf("the password is longer than %d octets", maxPassword)}
	}
	return text, nil
}
