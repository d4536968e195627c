package main

import (
	"fmt"
	"log/slog"

	"github.com/spf13/pflag"

	"dovepost/cmd/internal/daemon"
	"dovepost/cmd/internal/mailbox"
	"dovepost/lmtp/maildir"
	"dovepost/lmtp/quota"
)

// quotaSettings are the flags about quota that lmtpd has beside those of mailbox.Settings.
type quotaSettings struct {
	rcptCheck bool
	warnings  mailbox.Numbered
	baseDir   string
}

func (s *quotaSettings) flags(fs *pflag.FlagSet) {
	daemon.BoolVar(fs, &s.rcptCheck, "lmtp_rcpt_check_quota", false, "look at the quota at RCPT already")
	s.warnings.Flags(fs, "quota_warning", "`warning` such as storage=95%% quota-warning 95 %u; also quota_warning2 ... quota_warning16")
	fs.StringVar(&s.baseDir, "base_dir", "/run/dovecot", "`directory` of the sockets that quota_warning names")
}

// quotaRoot makes the quota of the deliverer d, and who executes the warnings; both nil without any quota.
func (s *settings) quotaRoot(d *maildir.Deliverer, log *slog.Logger) (*quota.Root, *warner, error) {
	root, err := s.mail.Quota.Root()
	if root == nil || err != nil {
		return nil, nil, err
	}
	w := &warner{log: log, baseDir: s.quota.baseDir}
	for _, value := range s.quota.warnings.Values() {
		warning, err := quota.ParseWarning(value)
		if err != nil {
			return nil, nil, err
		}
		if err := w.check(warning.Command); err != nil {
			return nil, nil, fmt.Errorf("quota_warning = %s: %w", value, err)
		}
		root.Warnings = append(root.Warnings, warning)
	}
	if len(root.Warnings) == 0 {
		return root, nil, nil
	}
	// The message that warns is counted, and no quota refuses it.
	notices := &maildir.Deliverer{
		Fsync: d.Fsync, DefaultLocation: d.DefaultLocation, Hostname: d.Hostname,
		Separator: d.Separator, Prefix: d.Prefix, Quota: root.Unbounded(), Log: log,
	}
	w.deliverer = notices
	root.Warn = w.warn
	return root, w, nil
}
