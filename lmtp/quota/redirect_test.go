package quota

import (
	"context"
	"errors"
	"strings"
	"testing"

	"dovepost/lmtp"
)

// copies counts what leaves for other addresses.
type copies struct{ sent int }

func (c *copies) Send(context.Context, string, string, lmtp.Message) error {
	c.sent++
	return nil
}

// Who is refused a message, even for the CRLF that make it too large, has not sent it on either: the
// client reports it as undelivered.
func TestRefusedIsNotRedirected(t *testing.T) {
	for _, tt := range []struct {
		name string
		root *Root
		want *lmtp.Status
	}{
		{"over quota", &Root{Backend: Count}, lmtp.ErrOverQuota},
		{"beyond quota_max_mail_size", &Root{Backend: Count, MaxMail: 150}, errTooLarge},
	} {
		t.Run("it handles what is "+tt.name, func(t *testing.T) {
			rule := "*:bytes=150"
			if tt.root.MaxMail > 0 {
				rule = "*:bytes=1000"
			}
			s := newSite(t, tt.root, rule)
			c := new(copies)
			s.d.Filter, s.d.Sender = redirects{}, c
			err := s.d.Deliver(t.Context(), &lmtp.Envelope{}, []*lmtp.Mailbox{&s.mb}, lmtp.Text(strings.Repeat("\n", 100)))[0]
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v; want %v", err, tt.want)
			}
			if c.sent != 0 {
				t.Errorf("redirected %d times", c.sent)
			}
		})
	}
}
