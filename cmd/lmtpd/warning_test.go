package main

import (
	"bufio"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dovepost/lmtp"
	"dovepost/lmtp/maildir"
	"dovepost/lmtp/quota"
)

// crossed makes a warning of command for a user whose mail belongs to the test.
func crossed(t *testing.T, command, home string) quota.Crossed {
	t.Helper()
	w, err := quota.ParseWarning("storage=95%% " + command)
	if err != nil {
		t.Fatal(err)
	}
	mb := lmtp.Mailbox{User: "o'brien $(id)@example.com", Home: home, Mail: "maildir:~/Maildir", UID: -1, GID: -1}
	if os.Geteuid() == 0 {
		mb.UID, mb.GID = 5000, 5000
	}
	return quota.Crossed{Warning: w, Mailbox: mb}
}

func program(t *testing.T, dir, text string) string {
	t.Helper()
	path := filepath.Join(dir, "warn")
	if err := errors.Join(os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755), os.Chmod(path, 0o755)); err != nil { // whatever the umask is
		t.Fatal(err)
	}
	return path
}

// open makes a directory that everybody may write to.
func open(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "warn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// waitFor waits for a file, as long as the warner lets who makes it run: its close would
// end him sooner.
func waitFor(t *testing.T, pattern string) {
	t.Helper()
	for deadline := time.Now().Add(warnTimeout); ; time.Sleep(time.Millisecond) {
		if names, err := filepath.Glob(pattern); err != nil || len(names) > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("there is no %s", pattern)
		}
	}
}

// A program gets its arguments as they are, and runs as the owner of the mail, without rights
// and without being waited for.
func TestWarnByProgram(t *testing.T) {
	dir := open(t)
	out := filepath.Join(dir, "out")
	path := program(t, dir, `printf '%s\n' "$#" "$@" "$(id -u)" "$(grep CapEff /proc/self/status)" > `+out+`.new; mv `+out+`.new `+out+"\n")
	w := &warner{log: slog.New(slog.DiscardHandler)}
	c := crossed(t, "exec:"+path+" 95 %u %n %d 100%%", dir)
	w.warn(c)
	waitFor(t, out)
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	uid := "5000"
	if os.Geteuid() != 0 {
		uid = strings.Fields(string(got))[len(strings.Fields(string(got)))-3]
	}
	want := "5\n95\no'brien $(id)@example.com\no'brien $(id)\nexample.com\n100%\n" + uid + "\nCapEff:\t0000000000000000\n"
	if string(got) != want {
		t.Errorf("the program saw %q; want %q", got, want)
	}
}

// What hangs is ended when the daemon is, and nobody has waited for it.
func TestWarnHangs(t *testing.T) {
	dir := open(t)
	w := &warner{log: slog.New(slog.DiscardHandler)}
	c := crossed(t, "exec:"+program(t, dir, "sleep 600\n"), dir)
	begun := time.Now()
	for range 2 * warnQueue {
		w.warn(c)
	}
	if took := time.Since(begun); took > warnTimeout/2 {
		t.Errorf("who warns waits %v", took)
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	w.warn(c) // after the end: nothing
}

// The other side of Dovecot's script protocol, version 4.
func TestWarnByScript(t *testing.T) {
	dir := t.TempDir()
	ln, err := net.Listen("unix", filepath.Join(dir, "quota-warning"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	w := &warner{log: slog.New(slog.DiscardHandler), baseDir: dir}
	c := crossed(t, "quota-warning 95 %u", dir)
	c.Mailbox.User = "a\tb\nc@d"
	w.warn(c)
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var got []string
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		got = append(got, lines.Text())
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	if want := "VERSION\tscript\t4\t0|noreply|95|a\x01tb\x01nc@d|"; strings.Join(got, "|") != want {
		t.Errorf("sent %q; want %q", got, want)
	}
}

// A message is in INBOX, without being asked for room.
func TestWarnByMessage(t *testing.T) {
	dir := open(t)
	template := filepath.Join(dir, "message")
	if err := os.WriteFile(template, []byte("From: postmaster@%d\r\nTo: %u\nSubject: 95%%\n\nhello %n\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	root := &quota.Root{Backend: quota.Maildir}
	w := &warner{log: slog.New(slog.DiscardHandler), deliverer: &maildir.Deliverer{Quota: root.Unbounded()}}
	c := crossed(t, "message:"+template, dir)
	c.Mailbox.User, c.Mailbox.Detail, c.Mailbox.Quota = "alice@example.com", "work", []string{"*:bytes=1"}
	w.warn(c)
	waitFor(t, dir+"/Maildir/new/*")
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	names, _ := filepath.Glob(dir + "/Maildir/new/*")
	if len(names) != 1 {
		t.Fatalf("messages %q", names)
	}
	text, err := os.ReadFile(names[0])
	if err != nil || !strings.HasPrefix(string(text), "Return-Path: <>\nDelivered-To: alice@example.com\nDate: ") ||
		!strings.HasSuffix(string(text), "\nFrom: postmaster@example.com\nTo: alice@example.com\nSubject: 95%\n\nhello alice\n") {
		t.Errorf("%q, %v", text, err)
	}
	if size, err := os.ReadFile(dir + "/Maildir/maildirsize"); err != nil || !strings.HasSuffix(string(size), " 1\n") {
		t.Errorf("maildirsize %q, %v", size, err)
	}
}
