// Package guard guesses passwords: through the real imap-login, pop3-login and smtpd,
// beside a Dovecot with its own auth and anvil; from many networks; and in numbers. And
// it has fail2ban read what authd writes about it.
package guard

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"testing"

	"dovepost/cmd/internal/stack"
)

var (
	ours   *stack.Stack // whose database the daemons of the tests use as well
	native *stack.Stack // Dovecot with its own auth and anvil
	bin    string       // the built daemons
)

const (
	domain   = "example.net"
	slowUser = "slow@example.net" // for slowQuery
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	flag.Parse()
	flag.Set("test.parallel", "32") // they do little but wait
	dir, err := os.MkdirTemp("", "guard")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	os.Chmod(dir, 0o755)
	bin = dir + "/bin"
	if err := stack.Build(bin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	modern, err := stack.ModernDovecot()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	started := make(chan error)
	go func() {
		var err error
		native, err = stack.Start(options(stack.Native, modern))
		started <- err
	}()
	ours, err = stack.Start(options(stack.Dovepost, modern))
	if err := errors.Join(err, <-started); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer ours.Stop()
	defer native.Stop()
	return m.Run()
}

// options are those of both sides. The failure delay is shorter than the default, to
// save time; clients may log in without TLS.
func options(f stack.Flavour, modern bool) stack.Options {
	o := stack.Options{Flavour: f, Bin: bin, Domains: []string{domain},
		DovecotConf: []string{"ssl = yes", "disable_plaintext_auth = no", "auth_failure_delay = 1 secs"},
		DaemonArgs:  map[string][]string{"authd": {"--auth_failure_delay=1s", "--auth_guard_allow_nets="}}}
	if modern {
		o.DovecotConf[1] = "auth_allow_cleartext = yes"
	}
	for i := range 60 {
		o.Users = append(o.Users, stack.User{Email: user(i), Password: "right"})
	}
	o.Users = append(o.Users, stack.User{Email: slowUser, Password: "right"})
	return o
}

func user(i int) string { return fmt.Sprintf("u%d@%s", i, domain) }
