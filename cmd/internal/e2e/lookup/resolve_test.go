package lookup

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// TestResolve runs two Postfix for every layout, one with mysql: tables as its
// main.cf.fragment has them and one with socketmaps, and compares what smtpd, cleanup and
// trivial-rewrite of both make of every address of the cast in many forms: the
// reply to RCPT, the envelope in the queue, transport and next hop.
func TestResolve(t *testing.T) {
	for _, l := range layouts(t) {
		t.Run(l.name, func(t *testing.T) {
			began := time.Now()
			nativeDir, dir := newDir(t, "native"), newDir(t, "ours")
			nativeMain := l.native(t)
			main, args := l.ours(t)
			start(t, dir, filepath.Join(dir, "postfix/spool/dovepost/lookup"), args...)
			cast := l.addresses(t)
			letters := lettersOf(cast)
			var want, got map[string]string
			var g errgroup.Group
			all := func(dir, main string, answers *map[string]string) {
				g.Go(func() error {
					s, err := newSite(t, dir, main)
					if err == nil {
						*answers, err = s.all(letters, cast)
					}
					return err
				})
			}
			all(nativeDir, nativeMain, &want)
			all(dir, main, &got)
			must(t, g.Wait())
			if len(want) < 3*len(letters) || len(want) != len(got) {
				t.Errorf("%d and %d answers for %d letters", len(want), len(got), len(letters))
			}
			for _, question := range slices.Sorted(maps.Keys(want)) {
				if got[question] != want[question] {
					t.Errorf("%s: got %s, want %s", question, got[question], want[question])
				}
			}
			temporary := 0
			for _, answer := range want {
				if strings.HasPrefix(answer, "4") {
					temporary++
				}
			}
			t.Logf("%d addresses, %d letters, %d answers (%d of them temporary) in %v", len(cast), len(letters), len(want), temporary, time.Since(began).Round(time.Millisecond))
		})
	}
}

// all asks everything.
func (s *site) all(letters []letter, cast []string) (map[string]string, error) {
	questions := []func() (map[string]string, error){
		func() (map[string]string, error) { return s.verdicts(forAll, "", letters) },
		func() (map[string]string, error) { return s.envelopes(letters) },
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
		} {
			add(outside, to)
		}
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
