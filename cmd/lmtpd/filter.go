package main

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"dovepost/lmtp"
	"dovepost/lmtp/filter"
	"dovepost/lmtp/filter/junk"
	"dovepost/lmtp/filter/submission"
)

// filterSettings are the flags about what happens to mail before it is delivered.
type filterSettings struct {
	junkHeader, junkMailbox, junkFlags string
	submissionHost, sendmailPath       string
}

func (s *filterSettings) flags(fs *pflag.FlagSet) {
	fs.StringVar(&s.junkHeader, "junk_header", "", "header `fields` of mail for junk_mailbox: \"X-Spam-Flag: YES, X-Spam-Status: Yes\"; empty: none")
	fs.StringVar(&s.junkMailbox, "junk_mailbox", "Junk", "`mailbox` of such mail; it is made, and subscribed to")
	fs.StringVar(&s.junkFlags, "junk_flags", "", "`flags` of such mail, such as \"\\Seen $Junk\"")
	fs.StringVar(&s.submissionHost, "submission_host", "", "`host:port` that takes redirected mail; empty: sendmail_path")
	fs.StringVar(&s.sendmailPath, "sendmail_path", "/usr/sbin/sendmail", "`program` that takes redirected mail")
}

// filter makes the chain of filters; nil if there are none.
func (s *filterSettings) filter() (lmtp.Filter, error) {
	var chain filter.Chain
	if s.junkHeader != "" {
		marks, err := junk.ParseMarks(s.junkHeader)
		if err != nil {
			return nil, fmt.Errorf("junk_header = %s: %w", s.junkHeader, err)
		}
		if s.junkMailbox == "" {
			return nil, fmt.Errorf("junk_mailbox is empty")
		}
		into := lmtp.Filing{Mailbox: s.junkMailbox, Flags: strings.Fields(s.junkFlags), Create: true, Subscribe: true}
		chain = append(chain, &junk.Filter{Marks: marks, Into: into})
	}
	if chain == nil {
		return nil, nil
	}
	return chain, nil
}

// sender makes who takes redirected mail.
func (s *filterSettings) sender(hostname string) (lmtp.Sender, error) {
	if s.submissionHost != "" {
		host, port, err := net.SplitHostPort(s.submissionHost)
		if err != nil {
			host, port = s.submissionHost, "25"
		}
		if host == "" || port == "" {
			return nil, fmt.Errorf("submission_host = %s: want host:port", s.submissionHost)
		}
		return &submission.SMTP{Addr: net.JoinHostPort(host, port), Hello: hostname}, nil
	}
	if !filepath.IsAbs(s.sendmailPath) {
		return nil, fmt.Errorf("sendmail_path = %s: not an absolute path", s.sendmailPath)
	}
	return &submission.Sendmail{Path: s.sendmailPath}, nil
}
