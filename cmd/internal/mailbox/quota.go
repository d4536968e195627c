package mailbox

import (
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"dovepost/auth"
	"dovepost/cmd/internal/daemon"
	"dovepost/lmtp/quota"
)

// maxNumbered is the last of settings such as quota_rule, quota_rule2 ...
const maxNumbered = 16

// Numbered are the values of quota_rule, quota_rule2 ... by their number minus one.
type Numbered [maxNumbered]string

// Flags adds a flag for each number. Only the first is in the list of --help.
func (n *Numbered) Flags(fs *pflag.FlagSet, name, usage string) {
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

// Values are those up to the first that is not there, as Dovecot has it.
func (n *Numbered) Values() (values []string) {
	for _, v := range n {
		if v == "" {
			break
		}
		values = append(values, v)
	}
	return values
}

// Quota are the settings of how much mail the users may have.
type Quota struct {
	Backend, Grace string
	TempFail       bool
	MaxMail        int64
	Rules          Numbered
}

// Flags adds quota, quota_grace, quota_full_tempfail, quota_max_mail_size and quota_rule.
func (s *Quota) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&s.Backend, "quota", "maildir:User quota", "`backend` as in Dovecot's plugin block: maildir, count, or none")
	fs.StringVar(&s.Grace, "quota_grace", "10%", "what one message may exceed the quota by, octets or percent; Dovecot 2.4 has 10M")
	daemon.BoolVar(fs, &s.TempFail, "quota_full_tempfail", false, "answer 452 and not 552 to who is over quota")
	daemon.SizeVar(fs, &s.MaxMail, "quota_max_mail_size", 0, "`octets` of a message that is stored; 0: no limit")
	s.Rules.Flags(fs, "quota_rule", "`rule` for users whose row has none of this name: *:storage=1G, Trash:storage=+100M, Spam:ignore; also quota_rule2 ... quota_rule16")
}

// Root makes what counts and bounds; nil without any quota.
func (s *Quota) Root() (*quota.Root, error) {
	backend, err := quota.ParseBackend(s.Backend)
	if err != nil {
		return nil, err
	}
	grace, err := quota.ParseGrace(s.Grace)
	if err != nil {
		return nil, err
	}
	if _, err := quota.ParseRules(s.Rules.Values()); err != nil {
		return nil, err
	}
	if backend == quota.None && s.MaxMail == 0 {
		return nil, nil
	}
	return &quota.Root{Backend: backend, Grace: grace, TempFail: s.TempFail, MaxMail: s.MaxMail}, nil
}

// quotaRules returns the rules of a user: the fields quota_rule, quota_rule2 ... of the row in the
// place of the settings of these names, or in their form what Dovecot 2.4 says instead.
func quotaRules(fields auth.Fields, settings Numbered) ([]string, error) {
	var modern quota.Modern
	own := false
	for _, field := range fields {
		name := strings.TrimPrefix(field.Name, "plugin/")
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
	return settings.Values(), nil
}
