// Lmtpd takes mail from Postfix over LMTP and stores it in the Maildirs that
// Dovecot serves.
//
//	lmtpd --mysql FILE --listen lmtp:unix:/var/spool/postfix/dovepost/lmtp,mode=0660,owner=postfix
//	lmtpd --sql /etc/dovecot/dovecot-sql.conf.ext --listen lmtp:inet:127.0.0.1:24
//	lmtpd --userdb unix:/run/dovecot/auth-userdb --listen ...
//
// In main.cf:
//
//	virtual_transport = lmtp:unix:dovepost/lmtp
//
// A message is answered 250 when it is on disk: written to tmp/, synced, renamed into
// new/, and the directory synced (mail_fsync). Each recipient has an answer of its
// own. 550 is said to a user whom the database does not know, 552 to one who is over
// quota, and to a message beyond message_size_limit. Whatever else goes wrong is 4xx:
// Postfix keeps the message and tries again.
//
// Where the users come from:
//
//	--sql FILE          a dovecot-sql.conf.ext as it stands; user_query may give home, mail,
//	                    uid, gid, quota_rule, quota_rule2 ... and user, and the settings
//	                    mail_location, mail_home, mail_uid and mail_gid
//	--mysql FILE        a mysql_table(5) file that needs no query, for the table
//	                    users(email, quota in KiB); mail_home, mail_location, mail_uid and
//	                    mail_gid say the rest
//	--userdb unix:PATH  a socket auth-userdb, of Dovecot or of authd, which then has the
//	                    rules for names, too
//
// What a row does not give is taken from mail_home, mail_location, mail_uid and
// mail_gid. A row is used again for cache_fresh, so that many messages for one user
// ask once, and for cache_stale while the database does not answer; a user who is not
// known is asked for each time. A home that is not absolute, or has the elements "."
// or "..", but for one /./ that ends a chroot, is an error of the row, and the mail waits;
// so is a field chroot or mail_chroot, since the home would be below it.
//
// Settings have the names, the meaning and the defaults that they have in Dovecot
// 2.3: mail_location (Maildir++ and LAYOUT=fs, INBOX=, CONTROL=, UTF-8),
// recipient_delimiter, lmtp_save_to_detail_mailbox, lmtp_hdr_delivery_address,
// lmtp_user_concurrency_limit, quota, quota_grace, quota_full_tempfail, mail_fsync
// and others. auth_username_chars is empty, not Dovecot's set: whether o'brien@ exists
// is for the database to say, and his mail is not bounced for a quote. message_size_limit is
// Postfix's, but 0, no limit, unless set: what Postfix has accepted is not
// bounced here.
//
// Quota. The limits are quota_rule, quota_rule2 ... of the row, or else the settings of these names:
// *:storage=1G, *:messages=1000, Trash:storage=+100M, Spam:ignore; as Dovecot does lmtpd reads them up to the
// first that is missing. The names of Dovecot 2.4 are understood as well: quota_storage_size,
// quota_storage_percentage, quota_storage_extra, quota_message_count ... A message may exceed the limit by
// quota_grace while the user is below it, and many at once by no more. quota = maildir keeps maildirsize
// together with Dovecot, quota = count writes nothing and adds up what is there. Set quota_grace = 10M
// beside Dovecot 2.4. quota_max_mail_size is answered 552 5.2.3. lmtp_rcpt_check_quota refuses at RCPT
// who is over quota, and a message whose SIZE= can never fit.
//
//	quota_warning = storage=95%% quota-warning 95 %u          a service of Dovecot's, a socket in base_dir
//	quota_warning2 = storage=80%% message:/etc/dovepost/80.eml    a message for INBOX: header, empty line, text
//	quota_warning3 = messages=90%% exec:/usr/local/bin/warn %u    a program, as the owner of the mail
//
// The first warning whose limit a delivery reaches is executed, after the answer to the message and beside all
// others, for 30 seconds at most; %u, %n, %d and %h stand for user, local part, domain and home in each word.
// There is no shell. What begins with "-" is Dovecot's to see: no delivery makes mail less.
//
// Filters. junk_header = X-Spam-Flag: YES, X-Spam-Status: Yes, X-Spam: Yes files what a spam filter has
// marked into junk_mailbox, which is made and subscribed to, with junk_flags such as \Seen $Junk. A
// message with flags goes to cur/, and a keyword gets its letter in dovecot-keywords under Dovecot's
// own lock. What a filter redirects is submitted to submission_host, or with sendmail_path, before it is answered;
// in the shipped unit it has to be submission_host, since sendmail cannot gain its group there.
//
// A message is kept in memory up to 2 MiB while it arrives, as long as 64 MiB last for all, and in a nameless file in
// mail_temp_dir otherwise; such files together take at most spool_limit. A message for which there is
// no room waits up to a minute for others to end, and is put off then. A whole message has ten
// minutes to arrive, and a second more for each 500 octets.
//
// Postfix tells the queue id of a message and its client with lmtp_send_xforward_command = yes; both
// are logged. Over a unix socket XFORWARD is for everybody whom the permissions of the socket let
// in, over inet only for login_trusted_networks, as is XCLIENT.
//
// With ssl_cert and ssl_key inet listeners offer STARTTLS. ssl = required is taken as yes, as by
// Dovecot's LMTP: a client that does not ask for TLS is served.
//
// A message whose answer got lost is sent again by Postfix. The journal of deliveries
// ($STATE_DIRECTORY/journal) tells it by its queue id, XFORWARD IDENT or the id in its top Received
// field, its recipient and its digest: then it is answered 250 and not stored a second time,
// whenever lmtpd was killed. A message in which header_checks have left no Received field is known again for two hours
// only: Postfix uses short queue ids again (enable_long_queue_ids), and its next message may be the same. After a power failure a message may come twice. Without a
// journal, or where it cannot be written, the same holds for every end of lmtpd; no message is lost for it.
//
// One line is logged for each delivery. SIGHUP reads the file of --sql or --mysql and the certificate
// again and keeps the old state when one is wrong. SIGTERM finishes the messages that
// are under way, and lets a client that has kept its connection bring one more; after
// 2.5 quiet seconds it is told 421. So a restart puts no message of Postfix's off.
//
// A daemon that is not root delivers only as itself; as root, or with CAP_SETUID and
// CAP_SETGID, as the uid and gid of each user.
//
// Exit codes: 0, 64 (command line), 75 (try again), 78 (a setting or a file is wrong).
// See also lmtp(8) of Postfix, RFC 2033.
package main

import (
	_ "embed"

	"dovepost/cmd/internal/daemon"
)

//go:embed main.go
var source string

func main() {
	l := &lmtpd{}
	daemon.Main(daemon.Program{
		Name:  "lmtpd",
		Doc:   daemon.Manual(source),
		Kinds: []string{"lmtp"},
		Flags: l.flags,
		Start: l.start,
	})
}
