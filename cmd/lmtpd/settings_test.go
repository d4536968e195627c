package main

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"dovepost/lmtp/maildir"
	"dovepost/lmtp/quota"
	"dovepost/lmtp/session"
)

// parse returns the settings of a command line.
func parse(t *testing.T, args ...string) *settings {
	t.Helper()
	s := &settings{}
	fs := pflag.NewFlagSet("lmtpd", pflag.ContinueOnError)
	s.flags(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDefaults(t *testing.T) {
	s := parse(t, "--mysql=x", "--hostname=mx.test")
	h, err := s.handler()
	if err != nil {
		t.Fatal(err)
	}
	if h.RecipientDelimiter != "+" || h.NoReceived || h.MaxSize != 0 || h.UserConcurrency != 0 || h.DeliveryAddress != session.DeliveryFinal {
		t.Errorf("handler: %+v", h)
	}
	d, err := s.deliverer(slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	root, warner, err := s.quotaRoot(d, slog.Default())
	if err != nil || warner != nil || root.Backend != quota.Maildir || root.Grace.Percent != 10 || root.TempFail || d.Fsync != maildir.FsyncOptimized || d.SaveToDetail {
		t.Errorf("deliverer: %+v, quota %+v", d, root)
	}
}

func TestSettingsRefused(t *testing.T) {
	for _, tt := range []struct{ name, arg, want string }{
		{"no users", "--mysql=", "one of"},
		{"users twice", "--userdb=unix:/x", "one of"},
		{"a location that is none", "--mail_location=mbox:~/mail", "mbox"},
		{"another word for fsync", "--mail_fsync=sometimes", "mail_fsync"},
		{"an address that is none", "--lmtp_hdr_delivery_address=first", "lmtp_hdr_delivery_address"},
		{"a limit beyond the spool", "--message_size_limit=5000000000", "spool_limit"},
		{"few recipients", "--lmtp_recipient_limit=10", "RFC 5321"},
		{"a directory that is none", "--mail_temp_dir=/etc/passwd", "mail_temp_dir"},
		{"a separator of two", "--namespace_separator=//", "namespace_separator"},
		{"an unknown quota", "--quota=dict:x", "quota"},
		{"an odd grace", "--quota_grace=x", "quota_grace"},
		{"an odd rule", "--quota_rule=1G", "quota_rule"},
		{"a warning without a command", "--quota_warning=storage=95%%", "no command"},
		{"a warning that runs no program", "--quota_warning=storage=95%% exec:/nonexistent/x", "/nonexistent/x"},
		{"a warning that runs something here", "--quota_warning=storage=95%% exec:x", "not an absolute path"},
		{"a warning over the net", "--quota_warning=storage=95%% tcp:a:1", "none of unix"},
		{"no header", "--junk_header=YES", "junk_header"},
		{"no host", "--submission_host=:25", "submission_host"},
		{"a sendmail somewhere", "--sendmail_path=sendmail", "sendmail_path"},
		{"another word for ssl", "--ssl=perhaps", "ssl"},
		{"a certificate without a key", "--ssl_cert=/x", "ssl_key"},
		{"TLS required, no certificate", "--ssl=required", "ssl_cert"},
		{"a network that is none", "--login_trusted_networks=192.0.2.0/24 host", "host"},
		{"a host name with a blank", "--hostname=a b", "hostname"},
		{"an unknown variable", "--auth_username_format=%q", "auth_username_format"},
	} {
		s := parse(t, "--mysql=x", tt.arg)
		_, err1 := s.handler()
		_, err2 := s.deliverer(slog.Default())
		_, err3 := s.mail.Names()
		_, _, err4 := s.quotaRoot(&maildir.Deliverer{}, slog.Default())
		_, err5 := s.filters.filter()
		_, err6 := s.filters.sender("mx.test")
		text := ""
		for _, err := range []error{err1, err2, err3, err4, err5, err6} {
			if err != nil {
				text += err.Error()
			}
		}
		if !strings.Contains(text, tt.want) {
			t.Errorf("%s: %s gives %q; want a word about %s", tt.name, tt.arg, text, tt.want)
		}
	}
}

func TestUserdbRefused(t *testing.T) {
	for _, value := range []string{"/run/x", "unix:x", "unix:", "inet:x", "tcp:a:1"} {
		if _, err := parse(t, "--userdb="+value).mail.Remote(time.Second); err == nil {
			t.Errorf("userdb = %s: no error", value)
		}
	}
	for value, want := range map[string]string{"unix:/run/x": "unix /run/x", "inet:127.0.0.1:1": "tcp 127.0.0.1:1", "inet:[::1]:1": "tcp [::1]:1"} {
		u, err := parse(t, "--userdb="+value).mail.Remote(time.Second)
		if err != nil || u.Network+" "+u.Address != want {
			t.Errorf("userdb = %s: %+v, %v; want %s", value, u, err, want)
		}
	}
}

func TestYesAndNo(t *testing.T) {
	s := parse(t, "--lmtp_add_received_header=no", "--quota_full_tempfail", "--lda_mailbox_autocreate=yes")
	if s.addReceived || !s.mail.Quota.TempFail || !s.autocreate || s.mail.SaveToDetail {
		t.Errorf("got %+v", s)
	}
}
