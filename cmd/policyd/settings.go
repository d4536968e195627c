package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"dovepost/cmd/internal/daemon"
	"dovepost/cmd/internal/database"
	"dovepost/cmd/internal/mailbox"
	"dovepost/lookup/postconf"
)

// settings are the flags of policyd. Those of a rule are in the rule's file.
type settings struct {
	ruleSettings
	notifySettings

	answerWithin  time.Duration
	lookupTimeout time.Duration

	fs         *pflag.FlagSet
	mail       mailbox.Settings
	rows       database.CacheSettings
	mysql      string
	mysqlConns int
	postfix    string
	delimiter  string
}

func (s *settings) flags(fs *pflag.FlagSet) {
	s.fs = fs
	s.ruleSettings.flags(fs)
	s.mail.Flags(fs)
	s.rows.Flags(fs)
	s.notifySettings.flags(fs)
	daemon.DurationVar(fs, &s.answerWithin, "answer_within", 3*time.Second, "a rule that has no answer by then has failed; less than the timeout in main.cf")
	daemon.DurationVar(fs, &s.lookupTimeout, "lookup_timeout", time.Second, "how long to wait for a server before it counts as away")
	fs.StringVar(&s.mysql, "mysql", "", "keep the rules' tables, and look up in the built-in ones, on the server of `FILE`")
	fs.IntVar(&s.mysqlConns, "mysql_max_connections", 8, "connections to each MySQL server")
	fs.StringVar(&s.postfix, "postfix", "", "look addresses up in the tables that main.cf and master.cf in `DIR` name")
	fs.StringVar(&s.delimiter, "recipient_delimiter", "", "`characters` that begin an address extension, as in main.cf")
}

// check finds settings that cannot be right.
func (s *settings) check() error {
	switch {
	case s.answerWithin <= 0 || s.answerWithin > 90*time.Second:
		return fmt.Errorf("answer_within: %v is not between 0 and 90s: Postfix waits for 100s", s.answerWithin)
	case s.lookupTimeout <= 0:
		return fmt.Errorf("lookup_timeout: %v is not positive", s.lookupTimeout)
	case s.lookupTimeout > s.answerWithin:
		return fmt.Errorf("lookup_timeout: %v is more than answer_within, %v", s.lookupTimeout, s.answerWithin)
	case s.mysqlConns < 1:
		return errors.New("mysql_max_connections is less than 1")
	}
	return s.rows.Check()
}

// withMainCf returns the settings, with those of main.cf that policyd does not have itself.
func (s *settings) withMainCf() (*settings, error) {
	if s.postfix == "" || s.fs.Changed("recipient_delimiter") {
		return s, nil
	}
	c, err := postconf.Read(s.postfix)
	if err != nil {
		return nil, err
	}
	merged := *s
	merged.delimiter, err = c.Value("recipient_delimiter")
	return &merged, err
}
