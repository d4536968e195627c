// Policyd answers Postfix's policy requests: may this mail come in?
//
//	policyd --config /etc/dovepost/policyd.cf --listen policy:unix:/var/spool/postfix/dovepost/policy,mode=0660,group=postfix
//
// In main.cf, so that policyd is asked about everybody at each recipient, after it is known who may relay, and at the
// end of the message about users that have logged in, and about bounces:
//
//	smtpd_restriction_classes = policyd
//	policyd = check_policy_service { unix:dovepost/policy, timeout=10s, default_action=DUNNO }
//	smtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination
//	relay_before_recipient_restrictions = yes
//	smtpd_recipient_restrictions = policyd
//	smtpd_end_of_data_restrictions =
//	    check_sasl_access static:policyd, check_sender_access inline:{ { <> = policyd } }
//
// So what strangers send costs one question. What each rule needs, and what it loses without:
//
//	access     RCPT
//	sender     RCPT
//	quota      RCPT. END-OF-MESSAGE: where a message for one recipient was announced without SIZE=, whether it
//	           fits; without that it is refused by the delivery.
//	greylist   RCPT. DATA or END-OF-MESSAGE of the null sender: bounces are not greylisted without.
//	rate       END-OF-MESSAGE of logins: without that nothing is counted, and there are no limits.
//	shield     RCPT, and DATA or END-OF-MESSAGE, of logins: without RCPT who has refused recipients is not
//	           found, without the other neither, and only networks count. For shield_bounces END-OF-MESSAGE
//	           of the null sender.
//
// A login on a port where END-OF-MESSAGE is not asked about it has no limits: where check_sasl_access is left out,
// users must not be able to log in. `smtpd_end_of_data_restrictions = policyd` asks about everybody.
//
// With default_action=DUNNO a policyd that does not run does not stop mail. Words that stand
// before it, such as permit_mynetworks, spare their clients all rules.
//
//	rules = access, sender, rate, shield, greylist, quota
//
// are the rules that are on. They are asked in this order, and the first that has an opinion
// decides. PREPEND, WARN, INFO, BCC, REDIRECT and FILTER let mail go on: the rules that are left are asked, and
// what they decide goes first. Without any rule the answer is always DUNNO. A rule that fails counts as its
// NAME_on_error, DUNNO unless set; so does one that has no answer within answer_within. A server
// that does not answer within lookup_timeout is away: nobody waits for it any more until a
// probe, each second, has seen it answer. So a database that hangs costs a few messages a
// second, and the next ones nothing.
//
// What a rule looks up it has from the same places as the other daemons: addresses from the
// tables that main.cf in --postfix DIR names, or else from the built-in ones of --mysql FILE;
// users from --sql FILE, --userdb unix:PATH, or else from --mysql. The tables that policyd
// keeps itself (policy.sql) are on the server of --mysql. Answers are used again for
// cache_fresh, and for cache_stale while the database is away.
//
// The rule quota refuses a recipient when the mail has no room: 552 5.2.2, with
// quota_full_tempfail 452 4.2.2. The recipient is followed through canonical maps, aliases, catch-alls,
// and domains that stand for others, as Postfix does when it queues the message. It is
// refused only if every mailbox at the end is kept here and is full; not if one has room, is
// elsewhere, or is not known, and not if anything cannot be looked up. Kept here is what is in
// virtual_mailbox_domains and virtual_mailbox_maps and has no other way in transport_maps. Full is what
// lmtpd says, with the same settings: mail_location, mail_home, quota, quota_grace, quota_rule,
// quota_max_mail_size, lmtp_save_to_detail_mailbox and others; set them as in lmtpd.cf. The size
// is that of SIZE=, or, where the message is for one recipient, what has come. Nothing is written to
// the mail store, and what it holds is remembered for 2 seconds. Tables of main.cf other than mysql: are
// read if they are made of a text file, such as hash:; with any other the start fails, since
// who gets the mail could not be told.
//
// The rule sender answers 553 5.7.1 to a login that sends as an address that is not his. His are
// the address that is his login, however auth_username_format has it; with an extension, unless the address
// with it is in a table itself: joe may not send as joe-anne who has a mailbox, where - is a recipient_delimiter;
// what smtpd_sender_login_maps gives him, also by user@domain and @domain; and, unless
// sender_aliases = no, every address whose mail comes to his mailbox (so whoever is on an alias of many
// may send as it, as where smtpd_sender_login_maps asks the table of aliases), by aliases of any depth,
// catch-alls, and domains that stand for others. With sender_grants = yes the table sender_grants
// gives more: an address, or @domain or *@domain. The null sender is everybody's, unless
// sender_null = no. Clients that have not logged in may send as anybody; with
// sender_local = REJECT log in first, say, not as an address of a domain of ours, except from
// sender_local_exempt.
//
// The rule access is a list of what is allowed and denied, of which the first line
// that matches decides:
//
//	# FIELD     PATTERN             ACTION
//	client      192.0.2.0/24        REJECT no mail from this network
//	sender      boss@example.org    DUNNO
//	sender      example.org         450 4.7.1 not today
//	recipient   info@               DUNNO
//	login       user@example.com    HOLD
//
// client takes an address or a network. sender and recipient take user@domain,
// domain (or @domain; not its subdomains), .domain (its subdomains), user@ (in any
// domain); <> is the null sender. login takes a login name, or @domain, .domain and
// user@ for names that are addresses. * is any client, sender, recipient or login.
// ACTION is one of access(5). DUNNO exempts from this rule. OK accepts: it also skips the rules that come
// later, limits included, and what smtpd_recipient_restrictions has behind policyd; who forges the
// sender gets it, too, so mind what it is for. Letters match in either case. A line that begins with a blank continues the one before; # begins a comment line.
// With access_table = yes the rows of the table access_list are such lines, too, read every
// access_table_interval; while they cannot be read those of before stay. access_sender_maps and
// its kin are mysql_table(5) files that are asked for user+ext@domain, user@domain, domain,
// .domain and its parents, user+ext@, user@ and *; access_client_maps for the address, its
// networks of 24, 16 and 8 bits (IPv6: 64, 48, 32) and *; access_login_maps for the login and the
// forms of an address, with @domain. The file is asked first, then the table, then the maps: client,
// sender, recipient, login.
//
// The rule rate limits what logged-in clients send: rate_limits = 100 messages/1h, 500 messages/1d, 1000
// recipients/1d, 500M bytes/1d, each in a sliding window (s, m, h, d, w; 31d at most); unlimited is
// none. A row of rate_limits, or an entry of rate_limits_maps, for the login replaces that for @domain, which
// replaces the setting: as a whole, so what an entry does not mention is not limited; inherit in it stands for the
// next one's limits. rate_total_limits, and the column total or rate_total_limits_maps, limit all
// logins of a domain together. A row is live within 3 seconds. A message is counted once, at END-OF-MESSAGE, with
// all its recipients and its real size. One that does not fit is
// answered with rate_action (DEFER, REJECT, HOLD ...) for all its recipients, with the time when that ends, and is
// not counted. What is sent is forgotten a 48th of the window too late at most, a second at least, and never
// too early. policyds on one database share their counts: one is exact, several let pass as much more as all but one of
// them accept in twice rate_sync_interval, at most, or a message each. A message costs the database one statement at most, for
// which nobody waits (two with MySQL, or MariaDB before 10.5, where it comes alone), and the first one of an account that this
// policyd does not know one more; beside, expired rows are deleted once a minute, and the table of
// limits is looked at every 3 seconds. While the database is away each counts by itself, and writes
// it when that is over. Buckets go by the database's clock.
//
// The rule shield puts the mail of a login on hold (shield_action) that within shield_window sends from
// more than shield_networks /24 or /64, shield_regions /16 or /32, or shield_countries countries of
// shield_country_file; or has more than shield_refused recipients refused by Postfix behind policyd, if that is
// shield_percent of what it sent and three times as much as the day before. What an outage refuses is
// refused, too: words that look into DNS, such as reject_unknown_recipient_domain, are better before policyd,
// where they do not count. shield_bounces = 30 adds bounces that come in by SMTP for the login, as large a part, and no
// more than it has sent to. It is off, since anybody can send a bounce, and nobody is locked for it. Bounces
// that this Postfix makes itself do not pass smtpd and are not seen. shield_lock_query = UPDATE users SET
// active = 0 WHERE email = '%u' also locks the account. No more than shield_max_holds are held within an hour by
// each policyd: of others the log tells, and one message, so that what makes everybody look stolen does not hold
// everybody's mail. An account stays held, on all machines, until
//
//	UPDATE shield_accounts SET state = 'released' WHERE login = 'joe@example.com'
//
// or `dovepost policy release joe@example.com`; for ever with the state exempt. It needs the tables of policy.sql.
//
// The rule greylist puts strangers off: 450 4.2.0, for mail from a client network (/24, /64),
// sender and recipient that were not seen together before. Who tries again after greylist_delay, and
// within greylist_retry_window, passes, and the three are known until greylist_lifetime after their
// last mail; after greylist_auto_allow of them the whole network is. Senders that are made anew for
// each message (BATV, SRS, VERP) count as one. Clients that have logged in, those of
// mynetworks and of greylist_allow are never put off; rows of greylist_recipients exempt addresses and
// domains, or, with greylist_opt_in = yes, say who is greylisted. What a restriction after policyd
// refuses is refused at once. The null sender is let through at RCPT, for others' callouts, and put off at
// DATA or at the end of the message. Put reject_unlisted_recipient before policyd, and guesses
// at addresses leave no rows.
//
// `dovepost policy` shows who is held, what the greylist has of a network, and how much of his limits somebody has used,
// and changes that.
//
// notify_to is told by mail when a rule takes an account out of service, at most notify_limit times an
// hour, through the mail server at notify_via. In the shipped unit that has to be an address: sendmail
// cannot gain its group there.
//
// SIGHUP reads all files again: all of them, or, when one is wrong, none.
// SIGTERM finishes what is being answered.
//
// Exit codes: 0, 64 (command line), 75 (try again), 78 (a setting or a file is wrong).
// See also access(5) and Postfix's SMTPD_POLICY_README.
package main

import (
	_ "embed"

	"dovepost/cmd/internal/daemon"
)

//go:embed main.go
var source string

func main() {
	p := &policyd{}
	daemon.Main(daemon.Program{
		Name:  "policyd",
		Doc:   daemon.Manual(source),
		Kinds: []string{"policy"},
		Flags: p.flags,
		Start: p.start,
	})
}
