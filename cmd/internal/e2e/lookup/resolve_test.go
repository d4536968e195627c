package lookup

import (
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/idna"
	"golang.org/x/sync/errgroup"
)

// TestResolve runs three Postfix for every layout, one with mysql: tables as its
// main.cf.fragment has them, one with socketmaps of lookupd that was told each --map, and
// one that was switched by the commands that lookupd --postfix prints, and compares
// what smtpd, cleanup and trivial-rewrite of all make of every address of the cast in many
// forms: the reply to RCPT, the envelope in the queue, transport and next hop.
func TestResolve(t *testing.T) {
	for _, l := range layouts(t) {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			nativeDir, dir, adoptDir := newDir(t, "native"), newDir(t, "ours"), newDir(t, "adopt")
			nativeMain := l.native(t)
			main, args := l.ours(t)
			start(t, dir, filepath.Join(dir, socket), args...)
			cast := l.addresses(t)
			letters := lettersOf(cast)
			var want, told, adopted map[string]string
			var g errgroup.Group
			all := func(dir, main string, answers *map[string]string, prepare func(*testing.T, *site)) {
				g.Go(func() error {
					s, err := newSite(t, dir, main)
					if err == nil {
						prepare(t, s)
						*answers, err = s.all(letters, cast, !strings.Contains(nativeMain, "recipient_bcc_maps"))
					}
					return err
				})
			}
			asIs := func(*testing.T, *site) {}
			all(nativeDir, nativeMain, &want, asIs)
			all(dir, main, &told, asIs)
			all(adoptDir, nativeMain, &adopted, func(t *testing.T, s *site) { s.adopt(t) })
			must(t, g.Wait())
			for way, got := range map[string]map[string]string{"--map": told, "--postfix": adopted} {
				if len(want) < 3*len(letters) || len(want) != len(got) {
					t.Errorf("%s: %d and %d answers for %d letters", way, len(want), len(got), len(letters))
				}
				for _, question := range slices.Sorted(maps.Keys(want)) {
					if got[question] != want[question] {
						t.Errorf("%s: %s: got %s, want %s", way, question, got[question], want[question])
					}
				}
			}
			temporary := 0
			for _, answer := range want {
				if strings.HasPrefix(answer, "4") {
					temporary++
				}
			}
			t.Logf("%d addresses, %d letters, %d answers (%d of them temporary) in %v",
				len(cast), len(letters), len(want), temporary, time.Since(began).Round(time.Millisecond))
		})
	}
}

// socket is where lookupd listens, below the directory of a Postfix.
const socket = "postfix/spool/dovepost/lookup"

// adopt starts lookupd for a Postfix with mysql: tables and has it ask lookupd.
func (s *site) adopt(t *testing.T) {
	etc := s.ConfigDir()
	dir := filepath.Dir(filepath.Dir(etc))
	d, err := startDaemon(dir, filepath.Join(dir, socket), "--postfix="+etc)
	if err != nil {
		t.Error(err)
		return
	}
	t.Cleanup(func() { stop(t, d) })
	commands, err := exec.Command(lookupd, "--postfix="+etc, "--print-main-cf=switch").Output()
	if err == nil {
		var out []byte
		if out, err = exec.Command("sh", "-e", "-c", string(commands)).CombinedOutput(); err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
	}
	if err := errors.Join(err, s.PostfixReload()); err != nil {
		t.Error(err)
	}
	asked, err := exec.Command("sh", "-c", "postconf -c "+etc+" -nx | grep -v '^dovepost_tables =\\|^proxy_read_maps ='").Output()
	if err != nil || strings.Contains(string(asked), "mysql:") || !strings.Contains(string(asked), "socketmap:") {
		t.Errorf("switched: %v, %s", err, asked)
	}
}

// all asks everything.
func (s *site) all(letters []letter, cast []string, together bool) (map[string]string, error) {
	questions := []func() (map[string]string, error){
		func() (map[string]string, error) { return s.verdicts(forAll, "", letters) },
		func() (map[string]string, error) { return s.envelopes(letters, together) },
		func() (map[string]string, error) { return s.routes(letters) },
	}
	var senders []letter
	for _, address := range cast {
		for _, from := range []string{address, strings.ToUpper(address), strings.Replace(address, "@", "+ext@", 1)} {
			senders = append(senders, letter{from, "somebody@elsewhere.example"})
		}
	}
	for _, login := range []string{"", cast[0], cast[len(cast)/2], strings.ToUpper(cast[len(cast)/3])} {
		questions = append(questions, func() (map[string]string, error) { return s.verdicts(knowing, login, senders) })
	}
	answers := map[string]string{}
	for _, ask := range questions {
		more, err := ask()
		if err != nil {
			return nil, err
		}
		maps.Copy(answers, more)
	}
	return answers, nil
}

// otherLabels returns a domain with U-labels for A-labels and the other way round: to
// Postfix that is another domain.
func otherLabels(domain string) string {
	convert := idna.Punycode.ToASCII
	if strings.Contains(strings.ToLower(domain), "xn--") {
		convert = idna.Punycode.ToUnicode
	}
	other, err := convert(strings.ToLower(domain))
	if err != nil {
		return domain
	}
	return other
}

// lettersOf puts every address of the cast into the forms that addresses come in.
func lettersOf(cast []string) (all []letter) {
	const outside = "sender@remote.example"
	seen := map[string]bool{}
	add := func(from, to string) {
		if !seen[from+" "+to] {
			seen[from+" "+to] = true
			all = append(all, letter{from, to})
		}
	}
	for _, address := range cast {
		at := strings.LastIndexByte(address, '@')
		local, domain := address[:at], address[at+1:]
		if strings.ContainsAny(local, `"' ()<>,;:\[]`) && !strings.HasPrefix(local, `"`) {
			local = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(local) + `"`
		}
		bare := strings.Trim(local, `"`)
		for _, to := range []string{
			local + "@" + domain,
			strings.ToUpper(local) + "@" + domain,
			strings.ToUpper(local + "@" + domain),
			strings.ToUpper(local[:1]) + local[1:] + "@" + strings.ToUpper(domain[:1]) + domain[1:],
			local + "@sub." + domain,
			local + "@" + domain + ".",
			`"` + bare + `"@` + domain,
			`"` + bare + `+two words"@` + domain,
			`"` + bare + ` "@` + domain,
			bare + "+ext@" + domain,
			bare + "+Ext+More@" + domain,
			bare + "+@" + domain,
			bare + "-ext@" + domain,
			bare + "%" + domain + "@" + domain,
			bare + "ä@" + domain,
			bare + "@ä." + domain,
			"@" + domain + ":" + bare + "@" + domain,
			local + "@" + otherLabels(domain),
			strings.ToUpper(local) + "@" + strings.ToUpper(otherLabels(domain)),
			bare + "+ext@" + otherLabels(domain),
		} {
			add(outside, to)
		}
		add(local+"@"+otherLabels(domain), "somebody@elsewhere.example")
		add(local+"@"+domain, "somebody@elsewhere.example")
		add(local+"@"+domain, cast[0])
	}
	for _, domain := range []string{cast[0][strings.LastIndexByte(cast[0], '@')+1:], "nowhere.example"} {
		for _, local := range []string{"postmaster", "Postmaster+x", "MAILER-DAEMON", "double-bounce", "owner-list", "list-request", `""`, "+ext", "x' OR '1'='1", "*", "%"} {
			if strings.ContainsAny(local, "' ") {
				local = `"` + local + `"`
			}
			add(outside, local+"@"+domain)
			add("", local+"@"+domain)
		}
	}
	add(outside, "postmaster")
	return all
}
