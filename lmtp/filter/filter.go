// Package filter joins filters that decide what becomes of a message before it is delivered. What
// they can ask for is said by lmtp.Verdict; it is done by lmtp/maildir.
//
// A filter is a package of its own below this one, or anything else that is a lmtp.Filter.
package filter

import (
	"context"
	"slices"

	"dovepost/lmtp"
)

// Chain asks one filter after the other, until one has handled the message. What those before it
// have asked for is done as well: copies, redirects, and the flags of the copy that is kept.
// The first refusal, or error, is the outcome. An empty Chain keeps all.
type Chain []lmtp.Filter

var _ lmtp.Filter = Chain(nil)

// Filter implements lmtp.Filter.
func (c Chain) Filter(ctx context.Context, env *lmtp.Envelope, mb *lmtp.Mailbox, msg lmtp.Message) (lmtp.Verdict, error) {
	var sum lmtp.Verdict
	for _, f := range c {
		v, err := f.Filter(ctx, env, mb, msg)
		if err != nil || v.Refuse != nil {
			return v, err
		}
		sum.File = append(slices.Clip(sum.File), v.File...)
		sum.Redirect = append(slices.Clip(sum.Redirect), v.Redirect...)
		sum.Flags = append(slices.Clip(sum.Flags), v.Flags...)
		if v.Reason != "" {
			if sum.Reason != "" {
				sum.Reason += "; "
			}
			sum.Reason += v.Reason
		}
		if v.Handled {
			sum.Handled = true
			break
		}
	}
	return sum, nil
}
