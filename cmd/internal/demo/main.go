// Demo boots a whole mail server in a temporary directory and walks every arrow
// of its flow chart with real clients, printing what was asked and answered.
//
//	demo [--keep] [--native] [--bin DIR]
//
// It exits 0 when every answer was right. When one was wrong it leaves the
// directory with all logs and prints its name. With --keep, or KEEP=1 in the
// environment, it leaves the server running until it is interrupted, and prints
// how to connect.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"dovepost/cmd/internal/stack"
	"dovepost/cmd/internal/stack/walk"
)

func main() {
	keep := pflag.Bool("keep", os.Getenv("KEEP") == "1", "leave the mail server running and print how to connect")
	native := pflag.Bool("native", false, "use the database clients of Postfix and Dovecot instead of dovepost")
	bin := pflag.String("bin", "", "`DIR` with the built daemons; they are built if empty")
	pflag.Parse()
	flavour := stack.Dovepost
	if *native {
		flavour = stack.Native
	}
	if err := run(flavour, *bin, *keep); err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		os.Exit(1)
	}
}

func run(flavour stack.Flavour, bin string, keep bool) error {
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)

	began := time.Now()
	options := walk.Options(flavour)
	options.Bin = bin
	s, err := stack.Start(options)
	if err != nil {
		return err
	}
	fmt.Printf("MariaDB, Postfix, Dovecot and %s run in %s (%.1fs)\n\n", who(flavour), s.Dir, time.Since(began).Seconds())

	done := make(chan error, 1)
	go func() { done <- walk.Run(s, report) }()
	select {
	case err = <-done:
	case sig := <-interrupted:
		err = fmt.Errorf("%v", sig)
	}
	if err != nil {
		return fmt.Errorf("%w\nlogs are in %s (stopped: %v)", err, s.Dir, s.Halt())
	}
	fmt.Printf("\nEvery answer was right (%.1fs).\n", time.Since(began).Seconds())
	if keep {
		howToConnect(s)
		<-interrupted
	}
	return s.Stop()
}

func who(flavour stack.Flavour) string {
	if flavour == stack.Native {
		return "their own MySQL clients"
	}
	return "dovepost's lookupd, authd and lmtpd"
}

// report prints one line: arrow, question, answer. Widths are in characters.
func report(arrow, asked, answered string) {
	fmt.Printf("%s  %s  %s\n", pad(arrow, 42), pad(asked, 52), answered)
}

func pad(s string, width int) string {
	for n := utf8.RuneCountInString(s); n < width; n++ {
		s += " "
	}
	return s
}

func howToConnect(s *stack.Stack) {
	fmt.Printf(`
It keeps running until you press ctrl-C.

  SMTP        %s
  submission  %s  STARTTLS, login required
  IMAP        %s  STARTTLS
  POP3        %s  STLS
  user        alice@example.net, password %s (also bob, carol)
  MariaDB     mariadb -S %s maildb
  doveadm     doveadm -c %s/dovecot/dovecot.conf ...
  postfix     postconf -c %s/postfix/etc ...
  certificate %s/cert.pem

  printf 'Subject: hello\n\nhello\n' | curl --mail-from me@remote.example --mail-rcpt alice@example.net -T - smtp://%s
  curl -k --ssl-reqd --user alice@example.net:%s 'imap://%s/INBOX;MAILINDEX=1'
`, s.SMTPAddr, s.SubmissionAddr, s.IMAPAddr, s.POP3Addr, walk.Password("alice"), s.DB.Socket(), s.Dir, s.Dir, s.Dir,
		s.SMTPAddr, walk.Password("alice"), s.IMAPAddr)
}
