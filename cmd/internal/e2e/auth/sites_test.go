package auth

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

var (
	// services is who asks about passwords and users. What iRedMail's and ISPConfig's
	// columns are named after is among them.
	services = []string{"imap", "pop3", "smtp", "sieve", "lmtp", "doveadm"}
	dear     = []string{"imap", "smtp"} // those that are asked everything in the short form
	clients  = []string{"imap", "pop3", "sieve", "submission"}
)

// long runs everything for every service: DOVEPOST_LONG=1.
var long = os.Getenv("DOVEPOST_LONG") != ""

// parity compares two sites.
type parity struct {
	t            *testing.T
	native, ours *site
	names        []string // whom it asks for
	cast         []string // those of them who are somebody
	unlisted     bool     // Dovecot 2.4 itself cannot list them
	compared     atomic.Int64
}

var noPasswordQuery = regexp.MustCompile(`passdb sql \{\s*\}`)

// TestLayouts puts the same questions to Dovecot's own auth service and to authd, over
// the layouts of real sites: on the sockets, with doveadm, and with real clients.
func TestLayouts(t *testing.T) {
	postfix := newSubmission(t)
	total := int64(0)
	for _, l := range siteLayouts(t) {
		for _, file := range l.questions(t) {
			t.Run(l.name+"/"+strings.TrimSuffix(filepath.Base(file), ".conf.ext"), func(t *testing.T) {
				native, ours := startSites(t, l, file, postfix)
				p := &parity{t: t, native: native, ours: ours}
				p.people(l)
				// Without a query for passwords 2.4 takes seconds to say "try again" to each.
				slow := isModern() && noPasswordQuery.MatchString(l.inline(t, file))
				p.lookups("USER")
				if slow {
					p.names, p.cast = p.names[:1], p.cast[:1]
				}
				p.lookups("PASS")
				if !slow {
					p.logins()
				}
				if !strings.HasSuffix(file, "-twin.conf") { // whose answers are those of the file before it
					p.commands()
					p.clients()
				}
				t.Logf("%d comparisons", p.compared.Load())
				total += p.compared.Load()
			})
		}
	}
	t.Logf("%d comparisons in all", total)
}

// TestModernForm puts the file of Dovecot 2.4 of a layout to authd: it lets in whom
// Dovecot's own auth service lets in with the file of 2.3, or, if it is 2.4, with the same.
func TestModernForm(t *testing.T) {
	for _, l := range siteLayouts(t) {
		if l.modern == "" {
			continue
		}
		old, err := os.ReadFile(l.files[len(l.files)-1])
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(l.modern)
		if err != nil {
			t.Fatal(err)
		}
		settings := l.settings
		if isModern() {
			old, settings = text, settings24(t, settings)
		}
		n, o := native(t, string(old), settings), ours(t, string(text), nil, "--auth_username_chars=")
		var questions, lookups []string
		for _, user := range append(slices.Clone(l.cast), strangers...) {
			for _, password := range passwords(user) {
				questions = append(questions, plainQuestion("imap", user, password, ""))
			}
			lookups = append(lookups, lookupQuestion("USER", "imap", user))
		}
		want, got := dialWire(t, n.client, true).answers(questions), dialWire(t, o.client, true).answers(questions)
		want = append(want, dialWire(t, n.userdb, false).answers(lookups)...)
		got = append(got, dialWire(t, o.userdb, false).answers(lookups)...)
		accepted := 0
		for i, question := range append(questions, lookups...) {
			if word(got[i]) != word(want[i]) {
				t.Errorf("%s: %s\n got %s\nwant %s", l.name, question, got[i], want[i])
			}
			if word(got[i]) == "OK" {
				accepted++
			}
		}
		if accepted == 0 {
			t.Errorf("%s: nobody can log in", l.name)
		}
	}
}

func word(answer string) string {
	word, _, _ := strings.Cut(answer, " ")
	return word
}

// same compares two answers.
func (p *parity) same(what, got, want string) {
	p.compared.Add(1)
	if got == want {
		return
	}
	same := 0 // octets before the difference
	for same < min(len(got), len(want)) && got[same] == want[same] {
		same++
	}
	p.t.Errorf("%s:\n got %.500s\nwant %.500s\nfrom octet %d on\n got %.100q\nwant %.100q", what, got, want, same, got[same:], want[same:])
}

// people gathers the names: the cast, what Dovecot lists, and strangers.
func (p *parity) people(l *layout) {
	listed := p.native.doveadm("user", "-a", p.native.userdb, "*")
	if isModern() && (listed == "[0]" || strings.HasSuffix(listed, "[75]")) {
		// It lists nobody with the settings of the layout names, and its worker dies of
		// some of the variables in a user_query, which have no user to stand for then.
		p.unlisted = true
		listed = p.ours.doveadm("user", "-a", p.ours.userdb, "*")
	}
	if strings.HasSuffix(listed, "[0]") {
		p.cast = strings.Split(strings.TrimSuffix(strings.TrimSuffix(listed, "[0]"), "\n"), "\n")
	}
	for _, user := range l.cast {
		if !slices.Contains(p.cast, user) {
			p.cast = append(p.cast, user)
		}
	}
	p.cast = slices.DeleteFunc(p.cast, func(s string) bool { return s == "" })
	if len(p.cast) == 0 {
		p.t.Fatalf("there are no users: %s", listed)
	}
	p.names = append(slices.Clone(p.cast), strangers...)
	for _, user := range p.cast[:min(2, len(p.cast))] {
		p.names = append(p.names, strings.ToUpper(user), user+" ", user+"x")
	}
}

// passwords are what is tried for a user.
func passwords(user string) map[string]string {
	return map[string]string{"right": passwordOf(user), "wrong": "not-" + passwordOf(user), "empty": "", "long": strings.Repeat("0123456789", 100)}
}

// logins asks for every name with every password, with and without an address, on the
// sockets of logins and of other clients, and takes successful logins over.
func (p *parity) logins() {
	var what, questions, mtaWhat, mta []string // mta: what Postfix asks
	for _, service := range services {
		for _, user := range p.names {
			for kind, password := range passwords(user) {
				if !long && kind != "right" && !slices.Contains(dear, service) {
					continue
				}
				for _, more := range []string{"", "\trip=10.1.2.3\tlip=10.1.2.4\tlport=143", "\trip=2001:db8::1\tsecured=tls"} {
					if !long && more != "" && (kind != "right" || !slices.Contains(dear, service) || !slices.Contains(p.cast, user)) {
						continue
					}
					name, question := fmt.Sprintf("%s of %q with the %s password,%q", service, user, kind, more), plainQuestion(service, user, password, more)
					if service == "smtp" {
						mtaWhat, mta = append(mtaWhat, name), append(mta, question)
					} else {
						what, questions = append(what, name), append(questions, question)
					}
				}
			}
		}
	}
	ask := func(s *site, socket string) []string {
		w := dialWire(p.t, s.base+"/"+socket, true)
		got := w.answers(questions)
		if socket != "auth-login" {
			return got
		}
		m := dialWire(p.t, s.base+"/auth-master", false)
		for i, answer := range got {
			if strings.HasPrefix(answer, "OK") && !slices.Contains(strings.Fields(answer), "proxy") && !slices.Contains(strings.Fields(answer), "nologin") {
				m.send(fmt.Sprintf("REQUEST\t1\t%d\t%d\t%s\n", w.pid, i+1, w.cookie))
				_, taken := m.answer()
				got[i] += " then " + taken
			}
		}
		return got
	}
	for _, socket := range []string{"auth-client", "auth-login"} {
		want, got := ask(p.native, socket), ask(p.ours, socket)
		for i := range questions {
			p.same(socket+": "+what[i], got[i], want[i])
		}
	}
	var wait sync.WaitGroup
	slots := make(chan struct{}, 24) // Dovecot tells failures every half second
	for i, question := range mta {
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			p.same("auth-client: "+mtaWhat[i], alone(p.t, p.ours.client, question), alone(p.t, p.native.client, question))
		})
	}
	wait.Wait()
}

// lookups asks for every name as lmtp and doveadm do: USER or PASS.
func (p *parity) lookups(command string) {
	var questions []string
	all := append([]string{"quota-status", "indexer-worker", "managesieve", "lda"}, services...)
	if isModern() && !long {
		all = services // 2.4 waits for two seconds when a query fails
	}
	for _, service := range all {
		for _, user := range p.names {
			questions = append(questions, lookupQuestion(command, service, user))
		}
	}
	want := dialWire(p.t, p.native.userdb, false).answers(questions)
	got := dialWire(p.t, p.ours.userdb, false).answers(questions)
	for i, question := range questions {
		p.same(question, reasonless(got[i]), reasonless(want[i]))
	}
}

// reasonless is a failure without our words for it.
func reasonless(answer string) string {
	if strings.HasPrefix(answer, "FAIL") {
		return "FAIL"
	}
	return answer
}

// commands compares what doveadm prints, and its exit code.
func (p *parity) commands() {
	var wait sync.WaitGroup
	slots := make(chan struct{}, 6)
	ask := func(what string, question func(*site) string) {
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			p.same(what, question(p.ours), question(p.native))
		})
	}
	for i, user := range p.names {
		if !long && i >= len(p.cast)+4 {
			continue
		}
		ask("doveadm user "+user, func(s *site) string { return sorted(s.doveadm("user", "-a", s.userdb, user)) })
		ask("doveadm user -x service=lmtp "+user, func(s *site) string { return sorted(s.doveadm("user", "-a", s.userdb, "-x", "service=lmtp", user)) })
		ask("doveadm auth lookup "+user, func(s *site) string { return account(sorted(s.doveadm("auth", "lookup", "-a", s.userdb, user))) })
		for kind, password := range passwords(user) {
			if kind == "right" || kind == "wrong" || long {
				ask("doveadm auth test "+user+" "+kind, func(s *site) string { return sorted(s.auth(user, password, "imap")) })
			}
		}
		ask("doveadm auth login "+user, func(s *site) string {
			return sorted(s.doveadm("auth", "login", "-a", s.base+"/auth-login", "-m", s.base+"/auth-master", user, passwordOf(user)))
		})
	}
	if p.unlisted {
		wait.Wait()
		return
	}
	ask("doveadm user *", func(s *site) string { return sorted(s.doveadm("user", "-a", s.userdb, "*")) })
	wait.Wait()
}

// sorted has the lines of an answer in order, without what differs between processes.
func sorted(answer string) string {
	lines := strings.Split(answer, "\n")
	lines = slices.DeleteFunc(lines, func(line string) bool {
		// Dovecot sends an empty field, which doveadm prints, where it hides all that a row has.
		return strings.TrimSpace(line) == "" || strings.Contains(line, "auth_token") || strings.Contains(line, "reason=temporary failure")
	})
	for i, line := range lines {
		if text := strings.TrimSpace(line); isModern() && (text == "proxy=Y" || text == "nologin=Y" || text == "proxy=y" || text == "nologin=y") {
			line = line[:len(line)-2]
		}
		lines[i] = octets(changing.ReplaceAllString(line, "..."))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// clients logs in with real protocols.
func (p *parity) clients() {
	var wait sync.WaitGroup
	slots := make(chan struct{}, 8)
	for _, user := range append(slices.Clone(p.cast), strangers[:2]...) {
		if strings.ContainsAny(user, " \"\t") {
			continue
		}
		for _, service := range clients {
			for kind, password := range passwords(user) {
				if kind == "long" || kind == "empty" && service != "imap" || !long && kind == "wrong" && service != "imap" && service != "submission" {
					continue
				}
				slots <- struct{}{}
				wait.Go(func() {
					defer func() { <-slots }()
					want, got := p.native.login(service, user, password), p.ours.login(service, user, password)
					if service == "submission" {
						want = p.submitted(want, user, password)
					}
					p.same(fmt.Sprintf("%s client of %q with the %s password", service, user, kind), got, want)
				})
			}
		}
	}
	wait.Wait()
}

// submitted is what Postfix should have made of the answer of Dovecot's own auth service.
func (p *parity) submitted(said, user, password string) string {
	switch alone(p.t, p.native.client, plainQuestion("smtp", user, password, "")) {
	case tempFail:
		// Postfix makes 535 of "try again". That is what authd is silent for.
		return strings.Replace(said, "535 5.7.8 Error: authentication failed: (reason unavailable)", "454 4.7.0 Temporary authentication failure: Connection lost to authentication server", 1)
	case disabled:
		// It lets in whom a row says nologin of. That is what authd says FAIL for.
		at := strings.Index(said, "235 2.7.0 Authentication successful")
		if at >= 0 {
			return said[:at] + "535 5.7.8 Error: authentication failed: The account is closed" + strings.TrimPrefix(said[at:], "235 2.7.0 Authentication successful")
		}
	}
	return said
}
