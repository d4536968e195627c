package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/pflag"

	"dovepost/policy"
	"dovepost/policy/rules"
)

// accessRule is the rule access: the allow and deny list.
type accessRule struct {
	file string
}

func (*accessRule) name() string { return "access" }

func (a *accessRule) flags(fs *pflag.FlagSet) {
	fs.StringVar(&a.file, "access", "", "ask the allow and deny list in `FILE`")
}

func (a *accessRule) build(_ context.Context, b *builder) (policy.Decider, error) {
	if a.file == "" {
		return nil, errors.New("access: there is no list")
	}
	f, err := os.Open(a.file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	list, err := rules.ReadAccess(f, b.delimiter)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.file, err)
	}
	b.Log.Info("access list read", "file", a.file, "rules", list.Len())
	return list, nil
}
