// Authd answers the logins and user lookups of Dovecot and Postfix from MySQL, in
// the place of Dovecot's own auth service.
//
//	authd --mysql FILE --listen KIND:unix:PATH ...
//	authd --sql FILE --listen KIND:unix:PATH ...
//
// Dovecot needs neither a passdb nor a userdb block any more, and starts no auth
// process: the listeners of its service auth are switched off with mode = 0, and
// authd listens in their places. KIND says which of Dovecot's protocols is spoken:
//
//	login    /run/dovecot/login/dovepost/login, where the login services find it
//	         by executable = imap-login dovepost/login; and /run/dovecot/auth-login.
//	         A login is handed over to the process that asks at master for it
//	client   /run/dovecot/auth-client for doveadm auth test, and
//	         /var/spool/postfix/private/auth, Postfix's smtpd_sasl_path
//	master   /run/dovecot/auth-master: imap, pop3, managesieve take over logins
//	userdb   /run/dovecot/auth-userdb: lmtp and doveadm look up users. Where the
//	         mode of the socket is 0666, processes that are neither root nor of
//	         its owner or group learn about their own uid only
//
// For URLAUTH (RFC 4467) there is one more, token-login, in the place of
// /run/dovecot/token-login/tokenlogin. An imap session gets a token when it takes a
// login over, and imap-urlauth shows it there.
//
// Whoever can connect is believed: permissions of the sockets are the protection.
// Dovecot 2.3 and 2.4 may ask at the same time; each gets its own names of fields.
// Change Dovecot's configuration, stop Dovecot, start authd, start Dovecot: never
// switch by a reload, which removes the sockets that authd has made.
//
// --sql FILE is a dovecot-sql.conf.ext of Dovecot 2.3 as it stands on the site, or a
// file with the blocks mysql, passdb sql and userdb sql of Dovecot 2.4, of which all
// else is ignored. All variables, modifiers and functions of either version work;
// %w, the password in clear, with sql_clear_password = yes. Values are bound, and a
// variable in the name of a column must be a plain word. A query that compares a
// column with the name, or two with its parts, finds nobody for a name that is only
// alike to the collation. Fields userdb_* are used at a login if they hold uid, gid and home.
// Several --sql are asked in the order of the command line, as Dovecot asks its passdbs
// and userdbs: a password that one finds right is right, such as that of a table of app
// passwords; the first that knows a user describes him; and if one cannot be asked, a "no"
// of the others is "try again". The other statements of the settings are for the
// server of the first file.
// A right password waits for delay_until, a Unix time of at most five minutes ahead.
// --mysql FILE, a mysql_table(5) file that needs no query, takes the table
// users(email, password, quota in KiB) of that server, with mail_home,
// mail_location, mail_uid and mail_gid for all users.
//
// auth_mechanisms names the SASL mechanisms: plain, login, cram-md5, digest-md5,
// scram-sha-1, scram-sha-256, both with -plus, apop, external, xoauth2, oauthbearer,
// anonymous. A listener has its own as part of its kind, --listen
// 'client=plain login:unix:PATH', also as FileDescriptorName=. Mechanisms that compute
// with a stored secret need the password clear or in their own scheme; SCRAM shows
// users who have neither, or do not exist, a salt all the same (scram_salt_file keeps
// it over restarts). -plus is offered to Dovecot 2.4 alone. external takes the name of
// a verified client certificate (auth_ssl_username_from_cert), whose row has to exist,
// and so has that of the owner of a token.
//
// --oauth2 FILE is a dovecot-oauth2.conf.ext as it stands: tokens are validated by
// tokeninfo_url or introspection_url, or as JWTs with the keys of
// local_validation_key_dict, which are read each time. A proxy gets the token as pass. A
// row whose password is ! or empty is an account for tokens and certificates alone; one
// with NULL is none.
//
// User names go through auth_default_realm, auth_username_translation,
// auth_username_chars and auth_username_format in this order, as in Dovecot.
// Master users, of auth_master_passdb_file (lines of user:{SCHEME}hash) or
// auth_master_password_query, log in as others with their own password: as
// user*master, where auth_master_user_separator = *, or by PLAIN's authzid. The user
// must be in the passdb, and allow_nets of his row holds; Dovecot learns who it was
// as auth_user and master_user.
// A wrong password and an unknown user look alike and take equally long, and the
// answer comes auth_failure_delay later; to Postfix within 8 seconds.
//
// Whoever guesses waits before his password is looked at, 15 s at most, 4.5 s from
// Postfix. One network (an IPv4 address, an IPv6 /48) after failures of its own 4, 8,
// 15 s, as with Dovecot's anvil: over after a success or 15 s, and the same wrong
// password again is no new failure. All that do not know an account on which
// auth_guard_account_networks networks have failed within auth_guard_window. And a
// network from which auth_guard_network_accounts accounts have failed, more than have
// logged in from it; at twice as many it is told to come again later. Whoever has
// logged in to an account from a network in the last 30 days is known there, and
// neither waits nor is refused, unless that network has guessed ten passwords of that
// account. auth_guard_allow_nets names networks that never wait: a webmail that does
// not pass its users' addresses on. 256 attempts of a network are looked at at a time, 512
// with those who are known there; more wait for their turn. What is remembered is lost
// at a restart.
//
// Hashes, and the keys of SCRAM, are computed by auth_worker_max_count workers within
// auth_worker_memory; networks take turns, users who are known go first.
//
// Only the database says "unknown user", and only a comparison "wrong password".
// When it does not answer, Dovecot says [UNAVAILABLE] to its clients and Postfix
// 454, lmtp defers, and doveadm fails with code 75. Authd starts without a
// database that answers. A statement that the database refuses (a table is not there, a right is
// missing) is an error in the log, and what needs it is put off; authd ends with code 78 if all are refused, and
// SIGHUP and --check take none. A home or mail directory with "." or ".." in its path is never handed to Dovecot.
//
// A row is used again for cache_fresh, so a change in the database counts after that
// time, and a new password at once: before a cached row refuses anybody the database
// is asked again. While it does not answer, rows of up to cache_stale serve; then the
// last known password logs in and any other is "try again later". A password that
// was right is not hashed again for auth_cache_verified_ttl, as long as the row has
// the same hash. All that is in memory alone; doveadm auth cache flush empties it.
//
// For sites that want them, by queries of their own, with %variables as in Dovecot:
//
//	auth_app_password_query  further passwords, which are compared where the row's own
//	                         does not match: columns password, name or id (for the
//	                         log), services (imap, pop3, smtp, sieve ...; NULL is all),
//	                         expires (Unix time). At most 10 count for a service.
//	                         They do not count where the row's own hash begins with ! or
//	                         *. A column app_password_only of the password_query, if it
//	                         says 1 or Y, leaves these alone
//	auth_last_login_query    notes a login, with %{time} and %{app_password}; at most
//	                         once per auth_last_login_interval, user and service, and
//	                         not at all while the database is away
//	auth_rehash_query        stores a password whose hash is not as auth_rehash_scheme
//	                         and auth_rehash_rounds want it: %{new_password} has the
//	                         scheme in front, %{new_hash} has not; the condition must
//	                         compare with %{old_password}, the value that the
//	                         password_query gave
//
// One line is logged for each login: result, user, service, mech, rip, session,
// took. Results: ok, unknown_user, mismatch, user_disabled, pass_expired,
// authz_fail, malformed, protocol, temp, cancelled, disconnected, timeout.
// auth_verbose adds why. again=true says that this network has tried this wrong
// password of this user before. Passwords are never logged. Fail2ban reads these
// lines with contrib/fail2ban.
//
// SIGHUP reads the files of --sql, --mysql, --oauth2 and auth_master_passdb_file again,
// and keeps the old state when one is wrong; not the secrets of scram_salt_file and
// auth_token_secret, which have to stay. SIGTERM finishes the exchanges that have
// begun and answers new ones "try again"; it waits 5 s for a client to go on.
//
// Exit codes: 0, 64 (command line), 75 (try again), 78 (a setting or a file is wrong).
// See also https://doc.dovecot.org/2.3/ (Authentication), lookupd.
package main

import (
	_ "embed"

	"dovepost/cmd/internal/daemon"
)

//go:embed main.go
var source string

func main() {
	a := &authd{}
	daemon.Main(daemon.Program{
		Name:  "authd",
		Doc:   daemon.Manual(source),
		Kinds: []string{"login", "client", "master", "userdb", "token-login"},
		Flags: a.flags,
		Start: a.start,
	})
}
