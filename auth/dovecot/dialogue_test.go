package dovecot

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestDialogues plays testdata/*.txt. A file is a row of connections:
//
//	# why it exists
//	= login one          opens a connection named one to a socket of the kind; the server
//	                     gets it together with the client's next line, or before the server's
//	= one                goes on with it
//	C: AUTH\t1\tPLAIN    the client sends a line; Go's escapes, \c at the end: no LF
//	S: OK\t1\tuser=x     the server has to send this line
//	S: closed            the server has to close the connection
//	C: closed            the client does
//
// $COOKIE takes the value of its first appearance on a connection, $SPID is that
// of the instance, $PID the test's own process, $RESP(a|b) the base64 of a NUL b.
// $TOKEN(service|user|session) is the token of such a session with the test's pid, and
// $PROOF(service|user|session|claimed) the message that shows it for the user claimed.
func TestDialogues(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no dialogues", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			d := &dialogue{T: t, rig: newRig(t), conns: map[string]*talker{}, sockets: map[string]*listener{}, serve: make(chan struct{})}
			d.rig.admit = d.hold
			for i, line := range strings.Split(string(text), "\n") {
				d.where = fmt.Sprintf("%s:%d", file, i+1)
				d.play(line)
			}
		})
	}
}

type dialogue struct {
	*testing.T
	rig     *rig
	where   string
	sockets map[string]*listener
	conns   map[string]*talker
	cur     *talker
	serve   chan struct{} // gets a value when the server may have the connection
	held    bool          // it has not got cur yet
}

type talker struct {
	net.Conn
	r      *bufio.Reader
	cookie string
}

var (
	token    = regexp.MustCompile(`\$(TOKEN|PROOF)\(([^|)]*)\|([^|)]*)\|([^|)]*)(?:\|([^)]*))?\)`)
	response = regexp.MustCompile(`\$RESP\(([^|)]*)\|([^|)]*)(?:\|([^)]*))?\)`)
)

func (d *dialogue) play(line string) {
	d.Helper()
	switch {
	case line == "" || line[0] == '#':
	case strings.HasPrefix(line, "= "):
		d.use(strings.Fields(line[2:]))
	case line == "C: closed":
		d.cur.Close()
	case line == "S: closed":
		d.release()
		d.cur.SetReadDeadline(time.Now().Add(time.Minute))
		if got, err := d.cur.r.ReadString('\n'); err != io.EOF && !strings.Contains(fmt.Sprint(err), "reset") {
			d.Fatalf("%s: read %q, %v; want the connection closed", d.where, got, err)
		}
	case strings.HasPrefix(line, "C: "):
		text := d.expand(line[3:])
		if text, cut := strings.CutSuffix(text, `\c`); cut {
			d.send(text)
			d.release()
			return
		}
		d.send(text + `\n`)
		d.release()
	case strings.HasPrefix(line, "S: "):
		d.release()
		d.expect(line[3:])
	default:
		d.Fatalf("%s: what is %q?", d.where, line)
	}
}

func (d *dialogue) use(words []string) {
	d.release()
	if len(words) == 1 {
		if d.cur = d.conns[words[0]]; d.cur == nil {
			d.Fatalf("%s: no connection %s", d.where, words[0])
		}
		return
	}
	kind, name := words[0], words[1]
	if d.sockets[kind] == nil {
		d.sockets[kind] = d.rig.listen(d.T, kind, 0o600)
	}
	c, err := net.Dial("unix", d.sockets[kind].path)
	if err != nil {
		d.Fatal(err)
	}
	d.Cleanup(func() { c.Close() })
	d.cur = &talker{Conn: c, r: bufio.NewReader(c)}
	d.conns[name], d.held = d.cur, true
}

// hold keeps a connection from the server until release: whether the client speaks first
// shall not depend on who is faster.
func (d *dialogue) hold(ctx context.Context) {
	select {
	case <-d.serve:
	case <-ctx.Done():
	}
}

func (d *dialogue) release() {
	if d.held {
		d.held = false
		d.serve <- struct{}{}
	}
}

func (d *dialogue) expand(text string) string {
	text = response.ReplaceAllStringFunc(text, func(s string) string {
		m := response.FindStringSubmatch(s)
		return plainResponse(m[3], m[1], m[2])
	})
	text = token.ReplaceAllStringFunc(text, func(s string) string {
		m := token.FindStringSubmatch(s)
		made := d.rig.tokens.token(m[2], strconv.Itoa(os.Getpid()), m[3], m[4])
		if m[1] == "TOKEN" {
			return made
		}
		proof := strings.Join([]string{m[2], strconv.Itoa(os.Getpid()), m[5], m[4], made}, "\x00")
		return base64.StdEncoding.EncodeToString([]byte(proof))
	})
	text = strings.ReplaceAll(text, "$SPID", strconv.Itoa(int(d.rig.instance.spid)))
	text = strings.ReplaceAll(text, "$PID", strconv.Itoa(os.Getpid()))
	return regexp.MustCompile(`\$COOKIE\((\w+)\)`).ReplaceAllStringFunc(text, func(s string) string {
		return d.conns[s[len("$COOKIE("):len(s)-1]].cookie
	})
}

func (d *dialogue) send(text string) {
	raw, err := strconv.Unquote(`"` + strings.ReplaceAll(text, `"`, `\"`) + `"`)
	if err != nil {
		d.Fatalf("%s: %q: %v", d.where, text, err)
	}
	if _, err := io.WriteString(d.cur, raw); err != nil {
		d.Fatalf("%s: %v", d.where, err)
	}
}

func (d *dialogue) expect(text string) {
	d.Helper()
	want := regexp.QuoteMeta(d.expand(text))
	want = strings.ReplaceAll(want, `\$COOKIE`, `([0-9a-f]{32})`)
	want = strings.ReplaceAll(want, `\$NUMBER`, `[0-9]+`)
	d.cur.SetReadDeadline(time.Now().Add(time.Minute))
	got, err := d.cur.r.ReadString('\n')
	if err != nil {
		d.Fatalf("%s: read %q, %v; want %s", d.where, got, err, text)
	}
	quoted := strconv.Quote(strings.TrimSuffix(got, "\n"))
	quoted = strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
	m := regexp.MustCompile("^" + want + "$").FindStringSubmatch(quoted)
	if m == nil {
		d.Fatalf("%s: got %s\nwant %s", d.where, quoted, text)
	}
	if len(m) > 1 {
		d.cur.cookie = m[1]
	}
}
