package main

import (
	"context"

	"github.com/spf13/pflag"

	"dovepost/policy"
	"dovepost/policy/rules"
)

// quotaRule is the rule quota. Its settings are those of lmtpd, which it must agree with: see
// mailbox.Settings.
type quotaRule struct{}

func (quotaRule) name() string { return "quota" }

func (quotaRule) flags(*pflag.FlagSet) {}

func (quotaRule) build(_ context.Context, b *builder) (policy.Decider, error) {
	m, err := b.mailboxes()
	if err != nil {
		return nil, err
	}
	return &rules.Quota{Recipients: m.addresses, Mailboxes: m, Fresh: usageFresh}, nil
}
