// Package dovecot speaks the two line protocols of Dovecot's auth service.
//
// auth-client (kinds login and client) is what login processes, Postfix and
// `doveadm auth test` use for SASL; auth-master (kinds master and userdb) is what
// imap, pop3, lmtp and doveadm use for the hand-off of a login and for lookups.
// The words are those of Dovecot 2.3 (minor 1 and 2), 2.4 (minor 3 and 4), and of
// Postfix and Exim (minor 0); each asker gets the answers that it understands.
// doc/developer-manual/design/auth_protocol of Dovecot describes them in part;
// where it is silent, the stock server's behaviour is the reference.
//
// A connection is not authenticated: whoever can connect may claim any address
// and ask for any user. The permissions of the socket are the only protection.
//
// The package knows no database, no mechanism and no password scheme: they come
// as the interfaces of package auth. What is neither a success nor a proven
// refusal is temporary for every asker.
package dovecot
