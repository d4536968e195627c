package dovecot

import (
	"encoding/base64"
	"strings"
	"testing"
	"testing/synctest"
)

// Postfix is known by its version, whatever smtpd_sasl_service calls it.
func TestMTA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		for _, tt := range []struct {
			minor   int
			service string
			want    string
		}{{0, "smtp", "OK"}, {0, "submission", "OK"}, {2, "smtp", "OK"}, {2, "submission", "FAIL"}, {4, "imap", "FAIL"}} {
			s := g.session(t, "client", tt.minor, 1)
			s.send("AUTH\t1\tPLAIN\tservice=%s\tresp=%s", tt.service, base64.StdEncoding.EncodeToString([]byte("\x00mta\x00secret")))
			if got := s.read(); !strings.HasPrefix(got, tt.want+"\t1") {
				t.Errorf("minor version %d, service %s: got %q, want %s", tt.minor, tt.service, got, tt.want)
			}
			s.end()
			<-s.done
		}
	})
}
