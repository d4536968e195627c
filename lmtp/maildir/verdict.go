package maildir

import (
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"

	"dovepost/lmtp"
)

// maxActions bounds what one Verdict may ask for.
const maxActions = 64

// judge asks the filter what is to be done for one recipient.
func (t *transaction) judge(v *delivery) error {
	verdict, err := t.ask(v.mb)
	if err != nil {
		// Never for good, whatever a filter returns.
		return fmt.Errorf("filter: %v", err)
	}
	if verdict.Reason != "" {
		t.log().InfoContext(t.ctx, "filtered", "session", t.env.Session, "user", v.mb.User, "to", v.mb.Rcpt,
			"mailboxes", mailboxes(verdict.File), "redirect", verdict.Redirect, "handled", verdict.Handled,
			"refused", verdict.Refuse != nil, "reason", verdict.Reason)
	}
	if verdict.Refuse != nil {
		return verdict.Refuse
	}
	if len(verdict.File)+len(verdict.Redirect) > maxActions {
		return errors.New("filter: too many actions")
	}
	keep := !verdict.Handled
	for _, to := range verdict.Redirect {
		if slices.ContainsFunc(v.forwards, func(w *forward) bool { return w.to == to }) {
			continue
		}
		if looped(t.msg, v.mb.Rcpt) {
			t.log().WarnContext(t.ctx, "not redirected: it comes from there", "user", v.mb.User, "to", v.mb.Rcpt, "redirect", to)
			keep = keep || len(verdict.File) == 0
			continue
		}
		v.forwards = append(v.forwards, &forward{to: to})
	}
	for _, f := range verdict.File {
		// One name is one step of the journal. Names of one mailbox are told apart later.
		if i := slices.IndexFunc(v.filings, func(c *filing) bool { return c.Mailbox == f.Mailbox }); i >= 0 {
			c := v.filings[i]
			c.Flags = append(slices.Clip(c.Flags), f.Flags...)
			continue
		}
		v.filings = append(v.filings, &filing{Filing: f})
	}
	if keep {
		v.filings = append(v.filings, &filing{Filing: lmtp.Filing{Flags: verdict.Flags}})
	}
	return nil
}

// ask calls the filter; a panic there is its error.
func (t *transaction) ask(mb *lmtp.Mailbox) (verdict lmtp.Verdict, err error) {
	if t.Filter == nil {
		return verdict, nil
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return t.Filter.Filter(t.ctx, t.env, mb, t.msg)
}

func mailboxes(all []lmtp.Filing) string {
	var names []string
	for _, f := range all {
		names = append(names, f.Mailbox)
	}
	return strings.Join(names, ", ")
}
