package main

import (
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"dovepost/auth"
	"dovepost/cmd/internal/daemon"
	"dovepost/lmtp/maildir"
	"dovepost/lmtp/quota"
)

// maxNumbered is the last of settings such as quota_rule, quota_rule2 ...
const maxNumbered = 16

// numbered are the values of quota_rule, quota_rule2 ... by their number minus one.
type numbered [maxNumbered]string

// flags adds a flag for each number. Only the first is in the list of --help.
func (n *numbered) flags(fs *pflag.FlagSet, name, usage string) {
	for i := range n {
		flag := name
		if i > 0 {
			flag += strconv.Itoa(i + 1)
		}
		fs.StringVar(&n[i], flag, "", usage)
		if i > 0 {
			_ = fs.MarkHidden(flag)
		}
	}
}

// values are those up to the first that is not there, as Dovecot has it.
func (n *numbered) values() (values []string) {
	for _, v := range n {
		if v == "" {
			break
		}
		values = append(values, v)
	}
	return values
}

// quotaSettings are the flags about quota.
type quotaSettings struct {
	backend, grace      string
	tempFail, rcptCheck bool
	maxMail             int64
	rules, warnings     numbered
	baseDir             string
}

func (s *quotaSettings) flags(fs *pflag.FlagSet) {
	fs.StringVar(&s.backend, "quota", "maildir:User quota", "`backend` as in Dovecot's plugin block: maildir, count, or none")
	fs.StringVar(&s.grace, "quota_grace", "10%", "what one message may exceed the quota by, octets or percent; Dovecot 2.4 has 10M")
	daemon.BoolVar(fs, &s.tempFail, "quota_full_tempfail", false, "answer 452 and not 552 to who is over quota")
	daemon.BoolVar(fs, &s.rcptCheck, "lmtp_rcpt_check_quota", false, "look at the quota at RCPT already")
	daemon.SizeVar(fs, &s.maxMail, "quota_max_mail_size", 0, "`octets` of a message that is stored; 0: no limit")
	s.rules.flags(fs, "quota_rule", "`rule` for users whose row has none of this name: *:storage=1G, Trash:storage=+100M, Spam:ignore; also quota_rule2 ... quota_rule16")
	s.warnings.flags(fs, "quota_warning", "`warning` such as storage=95%% quota-warning 95 %u; also quota_warning2 ... quota_warning16")
	fs.StringVar(&s.baseDir, "base_dir", "/run/dovecot", "`directory` of the sockets that quota_warning names")
}

// root makes the quota of the deliverer d, and who executes the warnings; both nil without any quota.
func (s *quotaSettings) root(d *maildir.Deliverer, log *slog.Logger) (*quota.Root, *warner, error) {
	backend, err := quota.ParseBackend(s.backend)
	if err != nil {
		return nil, nil, err
	}
	grace, err := quota.ParseGrace(s.grace)
	if err != nil {
		return nil, nil, err
	}
	if _, err := quota.ParseRules(s.rules.values()); err != nil {
		return nil, nil, err
	}
	if backend == quota.None && s.maxMail == 0 {
		return nil, nil, nil
	}
	root := &quota.Root{Backend: backend, Grace: grace, TempFail: s.tempFail, MaxMail: s.maxMail}
	w := &warner{log: log, baseDir: s.baseDir}
	for _, value := range s.warnings.values() {
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

// quotaRules returns the rules of a user: the fields quota_rule, quota_rule2 ... of the row in the
// place of the settings of these names, or in their form what Dovecot 2.4 says instead.
func quotaRules(fields auth.Fields, settings numbered) ([]string, error) {
	var modern quota.Modern
	own := false
	for _, field := range fields {
		name := field.Name
		if rest, ok := strings.CutPrefix(name, "quota/"); ok {
			// The root's name may stand before: quota/User quota/storage_size.
			_, rest, _ = strings.Cut(rest, "/")
			name = "quota_" + strings.TrimPrefix(rest, "quota_")
		}
		switch name {
		case "quota_storage_size":
			modern.StorageSize = field.Value
		case "quota_storage_percentage":
			modern.StoragePercentage = field.Value
		case "quota_storage_extra":
			modern.StorageExtra = field.Value
		case "quota_message_count":
			modern.MessageCount = field.Value
		case "quota_message_percentage":
			modern.MessagePercentage = field.Value
		case "quota_ignore":
			modern.Ignore = field.Value == "yes"
		case "quota_rule":
			settings[0], own = field.Value, true
		default:
			number, ok := strings.CutPrefix(name, "quota_rule")
			if n, err := strconv.ParseUint(number, 10, 8); ok && err == nil && n > 1 && n <= maxNumbered {
				settings[n-1] = field.Value
			}
		}
	}
	if !own {
		rule, err := modern.Rule()
		if err != nil {
			return nil, err
		}
		if rule != "" {
			settings[0] = rule
		}
	}
	return settings.values(), nil
}
