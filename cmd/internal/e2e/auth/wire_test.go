package auth

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// wire is a connection to a socket of an auth service, spoken to by hand.
type wire struct {
	t      *testing.T
	c      net.Conn
	r      *bufio.Reader
	pid    int
	cookie string
}

var lastPID atomic.Int32

// dialWire connects and shakes hands as this version of Dovecot does; a client's socket
// gets a pid of its own.
func dialWire(t *testing.T, path string, client bool) *wire {
	t.Helper()
	minor := 1
	switch {
	case isModern():
		minor = 4
	case client:
		minor = 2
	}
	return dialMinor(t, path, client, minor)
}

// dialMinor does so as somebody who speaks the given version of the protocol.
func dialMinor(t *testing.T, path string, client bool, minor int) *wire {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(3 * time.Minute))
	w := &wire{t: t, c: c, r: bufio.NewReaderSize(c, 1<<16), pid: 1<<20 + int(lastPID.Add(1))}
	hello := fmt.Sprintf("VERSION\t1\t%d\n", minor)
	if client {
		hello += fmt.Sprintf("CPID\t%d\n", w.pid)
	}
	w.send(hello)
	for {
		fields := strings.Split(w.line(), "\t")
		switch {
		case fields[0] == "COOKIE":
			w.cookie = fields[1]
		case fields[0] == "DONE", fields[0] == "SPID" && !client:
			return w
		}
	}
}

func (w *wire) send(text string) {
	w.t.Helper()
	if _, err := w.c.Write([]byte(text)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *wire) line() string {
	w.t.Helper()
	line, err := w.r.ReadString('\n')
	if err != nil {
		w.t.Fatalf("%v after %q", err, line)
	}
	return strings.TrimSuffix(line, "\n")
}

// answers sends all questions, "COMMAND\t%d\t...", and returns what is answered to
// each: the line without its number, parameters in order. What is told to try again does so
// once: the database of a busy machine may take too long.
func (w *wire) answers(questions []string) []string {
	w.t.Helper()
	got := make([]string, len(questions))
	var all, again []int
	for i := range questions {
		all = append(all, i)
	}
	w.ask(questions, all, got)
	for i, question := range questions {
		if strings.HasPrefix(got[i], "FAIL") && (strings.Contains(got[i], "code=temp_fail") || !strings.HasPrefix(question, "AUTH")) {
			again = append(again, i)
		}
	}
	w.ask(questions, again, got)
	return got
}

// ask puts the questions of these places, and writes what is answered there in got. It asks a
// few at a time: Dovecot's auth service queues them for its workers, and gives up on what waits
// for too long. It tells failures every half second, all that there are.
func (w *wire) ask(questions []string, places []int, got []string) {
	w.t.Helper()
	for chunk := range slices.Chunk(places, 64) {
		for _, i := range chunk {
			w.send(fmt.Sprintf(questions[i], i+1) + "\n")
		}
		for range chunk {
			id, answer := w.answer()
			got[id-1] = answer
		}
	}
}

// alone asks one question on a connection of its own, and does try again: a busy machine
// may take too long for Postfix.
func alone(t *testing.T, path, question string) (answer string) {
	for range 3 {
		if answer = once(t, path, question); answer != tempFail {
			break
		}
	}
	return answer
}

// once asks one question. That the service says nothing and hangs up is what Postfix
// takes for "try again", while Dovecot's own says it.
func once(t *testing.T, path, question string) string {
	w := dialMinor(t, path, true, 0)
	w.send(fmt.Sprintf(question, 1) + "\n")
	if _, err := w.r.Peek(1); err != nil {
		return tempFail
	}
	_, answer := w.answer()
	if strings.HasPrefix(answer, "OK nologin") || strings.Contains(answer, "code=user_disabled") {
		return disabled // Postfix takes every OK for a success, so that authd has to say FAIL
	}
	if strings.Contains(answer, "code=temp_fail") {
		return tempFail
	}
	return answer
}

const (
	tempFail = "try again"
	disabled = "disabled"
)

// answer reads one line: PASS, USER, OK, FAIL, NOTFOUND with its number.
func (w *wire) answer() (id int, answer string) {
	w.t.Helper()
	fields := strings.Split(w.line(), "\t")
	id, err := strconv.Atoi(fields[1])
	if err != nil {
		w.t.Fatalf("%q has no number", fields)
	}
	parameters := slices.DeleteFunc(fields[2:], func(p string) bool { return p == "" || strings.HasPrefix(p, "auth_token=") })
	if fields[0] == "FAIL" {
		// The name that was typed, which nobody reads in a failure.
		parameters = slices.DeleteFunc(parameters, func(p string) bool { return strings.HasPrefix(p, "original_user=") })
	}
	for i, p := range parameters {
		if isModern() && (p == "proxy=Y" || p == "proxy=y" || p == "nologin=Y" || p == "nologin=y") {
			parameters[i] = p[:len(p)-2] // 2.4 keeps what the row says of a flag
		}
	}
	slices.Sort(parameters)
	return id, octets(fields[0] + " " + strings.Join(parameters, " "))
}

// plainQuestion is an AUTH with the mechanism PLAIN.
func plainQuestion(service, user, password, more string) string {
	response := base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
	return "AUTH\t%d\tPLAIN\t" + asks(service) + "\tsecured\tno-penalty" + strings.ReplaceAll(more, "%", "%%") + "\tresp=" + response
}

// lookupQuestion is USER or PASS. The clients of the protocol ask for no name that
// would have to be escaped.
func lookupQuestion(command, service, user string) string {
	return command + "\t%d\t" + strings.ReplaceAll(user, "%", "%%") + "\t" + asks(service)
}

// asks is how the client of a service says which one it is.
func asks(service string) string {
	if isModern() && service != "smtp" { // Postfix has not changed its word
		return "protocol=" + service
	}
	return "service=" + service
}
