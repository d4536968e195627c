package mailbox

import (
	"slices"
	"testing"

	"dovepost/auth"
)

func TestQuotaRules(t *testing.T) {
	site := Numbered{"*:storage=1G", "Trash:storage=+100M", "Spam:ignore"}
	tests := []struct {
		name   string
		fields auth.Fields
		site   Numbered
		want   []string
		err    bool
	}{
		{"nothing", nil, Numbered{}, nil, false},
		{"the settings", nil, site, []string{"*:storage=1G", "Trash:storage=+100M", "Spam:ignore"}, false},
		{"a rule of the row", auth.Fields{field("quota_rule", "*:bytes=5")}, site, []string{"*:bytes=5", "Trash:storage=+100M", "Spam:ignore"}, false},
		{"rules in any order", auth.Fields{field("quota_rule3", "B:ignore"), field("quota_rule2", "A:ignore"), field("quota_rule", "*:bytes=5")}, Numbered{},
			[]string{"*:bytes=5", "A:ignore", "B:ignore"}, false},
		{"a rule by its whole name", auth.Fields{field("plugin/quota_rule", "*:bytes=5")}, Numbered{}, []string{"*:bytes=5"}, false},
		// As Dovecot, which asks for one after the other.
		{"a gap", auth.Fields{field("quota_rule", "*:bytes=5"), field("quota_rule3", "B:ignore")}, Numbered{}, []string{"*:bytes=5"}, false},
		{"a second rule alone", auth.Fields{field("quota_rule2", "B:ignore")}, Numbered{}, nil, false},
		{"an empty rule", auth.Fields{field("quota_rule", "")}, site, nil, false},
		{"other fields", auth.Fields{field("quota_ruler", "x"), field("quota_rule01x", "x"), field("quota_rule1", "x"), field("quota_rule99", "x")}, Numbered{}, nil, false},
		{"Dovecot 2.4", auth.Fields{field("quota_storage_size", "1G"), field("quota_message_count", "7")}, site,
			[]string{"*:bytes=1073741824:messages=7", "Trash:storage=+100M", "Spam:ignore"}, false},
		{"Dovecot 2.4, in octets", auth.Fields{field("quota_storage_size", "4242000B")}, Numbered{}, []string{"*:bytes=4242000"}, false},
		{"Dovecot 2.4, by root", auth.Fields{field("quota/User quota/storage_size", "55M")}, Numbered{}, []string{"*:bytes=57671680"}, false},
		{"Dovecot 2.4, the long name by root", auth.Fields{field("quota/User quota/quota_storage_size", "55M")}, Numbered{}, []string{"*:bytes=57671680"}, false},
		{"Dovecot 2.4, a part and more", auth.Fields{field("quota_storage_size", "1000"), field("quota_storage_percentage", "110"), field("quota_storage_extra", "1K")}, Numbered{},
			[]string{"*:bytes=2124"}, false},
		{"Dovecot 2.4, without a limit", auth.Fields{field("quota_storage_size", "unlimited")}, Numbered{"*:storage=1G"}, []string{"*:bytes=0"}, false},
		{"Dovecot 2.4, nothing counts", auth.Fields{field("quota_storage_size", "1G"), field("quota_ignore", "yes")}, Numbered{}, []string{"*:bytes=0"}, false},
		{"both, then the older", auth.Fields{field("quota_storage_size", "1G"), field("quota_rule", "*:bytes=5")}, Numbered{}, []string{"*:bytes=5"}, false},
		{"a size that is none", auth.Fields{field("quota_storage_size", "abc")}, Numbered{}, nil, true},
		{"a count that is none", auth.Fields{field("quota_message_count", "-1")}, Numbered{}, nil, true},
		{"a percentage that is none", auth.Fields{field("quota_storage_size", "1"), field("quota_storage_percentage", "x")}, Numbered{}, nil, true},
	}
	for _, tt := range tests {
		got, err := quotaRules(tt.fields, tt.site)
		if (err != nil) != tt.err || !slices.Equal(got, tt.want) {
			t.Errorf("it handles %s: %q, %v; want %q", tt.name, got, err, tt.want)
		}
	}
}
