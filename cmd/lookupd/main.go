// Lookupd answers the table lookups of Postfix from MySQL.
//
//	lookupd --mysql FILE --listen socketmap:unix:/var/spool/postfix/dovepost/lookup,mode=0660,group=postfix
//	lookupd --map NAME=KIND:FILE[,FILE...] ... --listen ...
//
// In main.cf a parameter then reads
//
//	virtual_alias_maps = socketmap:unix:dovepost/lookup:virtual_alias_maps
//
// where the last word is the NAME of a map. One map stands for one parameter:
// Postfix asks a socketmap only for the whole key, so lookupd itself tries what
// Postfix would try with a mysql: table, the address without its extension, the
// domain and so on. The files of one parameter belong into one map, in the order
// in which main.cf has them: the form of the key comes first, the file second.
//
// FILE is a mysql_table(5) file, as it stands on the site. KIND says which keys are
// tried and what becomes of the answer:
//
//	address         virtual_mailbox_maps, smtpd_sender_login_maps, relay_recipient_maps,
//	                recipient_bcc_maps, sender_dependent_relayhost_maps and the like:
//	                user+ext@domain, user@domain, @domain
//	alias           virtual_alias_maps, canonical_maps, smtp_generic_maps: the same keys;
//	                the extension that did not match is put back, @other becomes user@other
//	domain          virtual_mailbox_domains, virtual_alias_domains, mydestination: domain
//	domain-parents  relay_domains, check_helo_access: domain, parent domains
//	transport       transport_maps: user+ext@domain, user@domain, domain, .parent domains
//	access-address  check_sender_access, check_recipient_access: user+ext@domain,
//	                user@domain, domain, parent domains, user+ext@, user@
//	access-client   check_client_access: name, parent domains; address, networks
//	exact           check_sasl_access, smtp_tls_policy_maps: the key
//
// With --mysql FILE alone, a mysql_table(5) file that needs no query, the tables
// domains(domain), users(email) and alias(address, goto) are served as
// virtual_mailbox_domains, virtual_mailbox_maps, virtual_alias_maps (where a
// mailbox comes before a catch-all) and smtpd_sender_login_maps. A --map of the
// same name takes the place of such a map.
//
// recipient_delimiter and propagate_unmatched_extensions have the meaning and the
// defaults that they have in Postfix, and must be the same as in main.cf.
//
// Only the database says "not found". Whatever goes wrong is answered "try again
// later": Postfix defers mail and refuses none. Lookupd starts without a database
// that answers, but not with one that refuses a statement.
//
// An answer is given again for cache_fresh, so that a change in the database is
// seen after that time. While the database does not answer, or takes more than a
// second, the last known answer is given, up to the age of cache_stale; what was never
// asked is "try again later". The cache is bounded by cache_size, and is kept over a
// restart in cache_file, which only lookupd's own user may be able to write to. The
// maps *_password_maps are never written there.
//
// SIGHUP reads all files again, and keeps the old state when one of them is wrong.
// SIGUSR1 tells the log how the cache fares. SIGTERM finishes what is being answered.
//
// tcp_table has no names on the wire: a listener of the kind tcp_table=NAME serves
// one map.
//
// Exit codes: 0, 64 (command line), 75 (try again), 78 (a setting or a file is wrong).
// See also socketmap_table(5), tcp_table(5), mysql_table(5).
package main

import (
	_ "embed"

	"dovepost/cmd/internal/daemon"
)

//go:embed main.go
var source string

func main() {
	l := &lookupd{}
	daemon.Main(daemon.Program{
		Name:  "lookupd",
		Doc:   daemon.Manual(source),
		Kinds: []string{"socketmap", "tcp_table"},
		Flags: l.flags,
		Start: l.start,
	})
}
