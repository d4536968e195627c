package auth

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net"
	"regexp"
	"strings"
	"time"
)

// changing is what differs from one session to the next.
var changing = regexp.MustCompile(`<[^>]*@[^>]*>|\[[^\]]*:\d{4}-\d\d-\d\d[^\]]*\]|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|\d+ msecs?|\[\d{6,}\]|\(0\.\d+ \+ [^)]*\)|session=\S+|client-pid=\d+|\[UIDVALIDITY \d+\]`)

// conversation speaks to a server: it sends each of lines when the server has
// answered the one before with a line that ends matches, and returns what the
// server said.
func conversation(addr string, ends func(line string, sent int) bool, lines ...string) string {
	c, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(60 * time.Second))
	r := bufio.NewReaderSize(c, 1<<16)
	var said strings.Builder
	for sent := 0; ; sent++ {
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				fmt.Fprintf(&said, "(%s: end)", line)
				return said.String()
			}
			if sent > 0 { // the greeting says nothing
				said.WriteString(changing.ReplaceAllString(strings.TrimRight(line, "\r\n"), "...") + "\n")
			}
			if ends(line, sent) {
				break
			}
		}
		if sent == len(lines) {
			return said.String()
		}
		fmt.Fprintf(c, "%s\r\n", lines[sent])
	}
}

func quotedString(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// login is what a real client of the service sees: the answer to the login, and after
// a success what shows that the userdb's fields have arrived.
func (s *site) login(service, user, password string) string {
	plain := base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
	switch service {
	case "imap":
		tagged := func(line string, sent int) bool {
			return sent == 0 || strings.HasPrefix(line, fmt.Sprintf("a%d ", sent))
		}
		return conversation(s.imap, tagged, "a1 LOGIN "+quotedString(user)+" "+quotedString(password), "a2 GETQUOTAROOT INBOX", "a3 LOGOUT")
	case "pop3":
		any := func(string, int) bool { return true }
		return conversation(s.pop3, any, "USER "+user, "PASS "+password, "QUIT")
	case "sieve":
		ready := func(line string, sent int) bool {
			return strings.HasPrefix(line, "OK") || strings.HasPrefix(line, "NO") || strings.HasPrefix(line, "BYE")
		}
		return conversation(s.sieve, ready, `AUTHENTICATE "PLAIN" "`+plain+`"`, "LISTSCRIPTS", "LOGOUT")
	}
	final := func(line string, _ int) bool { return len(line) > 3 && line[3] == ' ' }
	return conversation(s.smtp, final, "EHLO client.example.com", "AUTH PLAIN "+plain, "QUIT")
}
