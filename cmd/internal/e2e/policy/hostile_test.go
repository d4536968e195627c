package policy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// question asks policyd itself, without Postfix, and returns the answer's first line; "" is a
// connection that policyd has closed.
func (p *policyd) question(attributes ...string) string {
	p.t.Helper()
	c, err := net.Dial("unix", p.socket())
	must(p.t, err)
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	go io.WriteString(c, "request=smtpd_access_policy\n"+strings.Join(attributes, "\n")+"\n\n") // it may be closed meanwhile
	answer, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(answer, "\n")
}

// Whatever an attribute holds, policyd answers or closes the connection, lives on, and what it
// asks MariaDB has the attribute bound: the server's own log of statements says so.
func TestHostileAttributes(t *testing.T) {
	d := newDatabase(t)
	must(t, server.Exec("SET GLOBAL log_output = 'TABLE'; SET GLOBAL general_log = 1"))
	t.Cleanup(func() { server.Exec("SET GLOBAL general_log = 0; TRUNCATE mysql.general_log") })
	site := d.table(server.Addr(), "SELECT 'REJECT' FROM users WHERE email = '%s'")
	p := prepare(t)
	p.start(append(everything(d.file(server.Addr())), "--access_sender_maps="+site, "--access_recipient_maps="+site, "--access_login_maps="+site)...)

	const marker = "evil"
	ask := func(sender, recipient, login, state string) string {
		return p.question("protocol_state="+state, "client_address=192.0.2.1", "client_name=x", "instance=1", "size=1", "recipient_count=1",
			"sender="+sender, "recipient="+recipient, "sasl_username="+login)
	}
	values := []string{
		marker + "' OR '1'='1", marker + `\' OR 1=1 -- `, marker + `" OR ""="`, marker + "`; DROP TABLE greylist; --", marker + "/*!50000 x*/",
		marker + "=a=b==", marker + "\x00\x00", marker + "\xff\xfe\x80", marker + "\r\x1a\x1b", marker + "%s%n%u", marker + "?,?", "\xf0\x9f\x92\xa9" + marker, marker + strings.Repeat("ß", 3000),
		marker + strings.Repeat("+", 2000), "@" + marker + "@@@", `"` + marker + ` \" b"`, marker + strings.Repeat(".x", 2000), "SRS0=" + marker + strings.Repeat("=", 1000),
	}
	var all sync.WaitGroup
	for i, v := range values {
		all.Go(func() {
			for _, at := range []string{"@example.com", ""} {
				for _, state := range []string{"RCPT", "DATA", "END-OF-MESSAGE", "MAIL", "NONSENSE"} {
					for _, q := range [][3]string{{v + at, "user@example.com", ""}, {"a@far.example", v + at, ""}, {"user@example.com", "x@example.com", v + at}, {"a@" + v, "b@" + v, ""}} {
						if answer := ask(q[0], q[1], q[2], state); !strings.HasPrefix(answer, "action=") {
							t.Errorf("value %d, state %s: %q", i, state, answer)
						}
					}
				}
			}
		})
	}
	all.Wait()
	for name, value := range map[string]string{"100 kB": strings.Repeat("x", 100<<10), "a newline": "a\nb", "two requests": "a\n\nb", "a number that is none": "1\nsize=" + marker} {
		if answer := p.question("protocol_state=RCPT", "sender="+value); answer != "" && answer != "action=DUNNO" {
			t.Errorf("%s: %q", name, answer)
		}
	}
	t.Log("long keys are not cut into each other")
	long := strings.Repeat("y", 2000)
	before := d.query("SELECT COUNT(*) FROM greylist")[0]
	for _, end := range []string{"a", "b"} {
		if answer := ask(long+end+"@far.example", "user@example.com", "", "RCPT"); !strings.Contains(answer, "Greylisted") {
			t.Errorf("long sender %s: %q", end, answer)
		}
	}
	var n, m int
	fmt.Sscan(before, &n)
	fmt.Sscan(d.query("SELECT COUNT(*) FROM greylist")[0], &m)
	if m != n+2 || n < len(values) {
		t.Errorf("%d triplets before, %d after", n, m)
	}

	if p.Process.Signal(syscall.Signal(0)) != nil || strings.Count(p.log(), "panic") > 0 || strings.Count(p.log(), "msg=ready") != 1 {
		t.Error("policyd has not lived on")
	}
	for _, kind := range []string{"Prepare", "Query", "Execute"} {
		rows := d.query("SELECT COUNT(*), COALESCE(SUM(argument LIKE '%" + marker + "%'), 0) FROM mysql.general_log WHERE command_type = '" + kind + "' AND user_host LIKE 'dovepost_policyd%'")
		var statements, tainted int
		if _, err := fmt.Sscan(rows[0], &statements, &tainted); err != nil {
			t.Fatal(rows, err)
		}
		t.Logf("%s: %d statements, %d with what the client sent", kind, statements, tainted)
		if kind != "Execute" && tainted > 0 || kind == "Execute" && tainted == 0 {
			t.Errorf("%s: %d of %d statements have what the client sent in their text", kind, tainted, statements)
		}
	}
}
