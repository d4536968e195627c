// Lookupd answers the table lookups of Postfix from MySQL.
//
//	lookupd --mysql FILE --listen socketmap:unix:/var/spool/postfix/dovepost/lookup,mode=0660,group=postfix
//	lookupd --map NAME=KIND:FILE[,FILE...] ... --listen ...
//	lookupd --postfix /etc/postfix --listen ...
//	lookupd --postfix /etc/postfix --print-main-cf
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
// # Maps
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
// What mysql_table(5) says of a file holds here, too, with these notes:
//
//	hosts           unix sockets first, then the others, in random order. A host that failed is
//	                tried after the others for retry_interval (60 s). "localhost" is the default
//	                unix socket.
//	host_order      of lookupd alone: "first" has connections go to the first host of the list
//	                that works, so that the others are for an emergency; default "random".
//	option_file     the groups client, client-server, client-mariadb and option_group of a my.cnf
//	                file give what hosts, user and the tls_ options leave open; without
//	                option_file those of /etc/my.cnf and /etc/mysql/my.cnf do. Its password
//	                is not used, as it is not in Postfix. What cannot be fulfilled, such as
//	                ssl-mode, is an error there and a warning in the files of the system.
//	domain          names, !names and /files; no tables.
//	charset         of the connection, utf8mb4 unless set, as in Postfix 3.9 and later.
//
// The query becomes a prepared statement. Where a variable stands in place of a name or a
// keyword nothing can be bound: the text is sent then with the value escaped, as by
// Postfix, and the log says so. So it is with MySQL, but not with MariaDB, where a bound value
// would not be taken for the string that it is, as in COALESCE(id, '%s') or quota + '%s'. With
// a charset such as gbk no value beyond ASCII goes into a text: that is "try again later". At most mysql_max_connections are made to a server, for all
// maps together. If it gives fewer those must do, and the log says so once. A query on a dead
// connection is sent again once; so is one that has had no answer for half a second if the
// server says, on another connection, that it does not work on it. One of the connections is
// only for that; so is a second one where mysql_max_connections is 1.
//
// # A running Postfix
//
// With --postfix DIR lookupd reads DIR/main.cf and DIR/master.cf, finds each parameter and
// each access table that uses mysql: or proxy:mysql:, and serves it under the name of
// the parameter, with the kind that belongs there. A parameter of a service in master.cf
// is served as submission_inet_smtpd_sender_login_maps, an access table as
// check_recipient_access; where there are several of a name, the second one is NAME_2.
// recipient_delimiter, propagate_unmatched_extensions, parent_domain_matches_subdomains
// and mydestination (as local_domains) are taken from main.cf, too.
//
// --print-main-cf prints the postconf(1) commands that have Postfix ask lookupd, those
// that go back, as comments, and what stays with MySQL, and why; --print-main-cf=switch
// and =back print one of them. Start lookupd first. A switched parameter has both ways in it:
//
//	virtual_alias_maps = ${dovepost?{socketmap:unix:dovepost/lookup:virtual_alias_maps}:{mysql:/etc/postfix/alias.cf}}
//	dovepost = yes
//
// Tables behind proxy: are also listed in proxy_read_maps, by way of dovepost_tables, since
// proxymap(8) lets a process of Postfix that still has them from before die otherwise.
//
// So lookupd finds the tables also after the switch (add new ones there), and
// "postconf -e dovepost=" with "postfix reload" has Postfix ask MySQL itself again.
//
// A list of mysql: tables becomes one map. Where tables of other kinds stand among
// them, that would be wrong, since Postfix goes through the forms of a key outside and
// through the tables inside: an @domain of a map would hide the whole address in a later
// table. There each row of mysql: tables becomes a map of the kind exact in
//
//	unionmap:{inline:{none@invalid.=x},socketmap:unix:dovepost/lookup:NAME}
//
// A union is asked as its first table is, which here is one that never answers; so
// Postfix itself tries all forms of the key, folds case, and puts extensions back. That
// takes two to four times as many requests, and can be had for any map: list it with
// --map NAME=exact:FILE and write the parameter so, one map in each union. So it is also with
// all maps of addresses where mydestination has tables, since an address in it is looked up
// as a bare user name, too.
//
// virtual(8) and local(8) take no socketmaps. virtual_mailbox_maps is switched once
// virtual_transport delivers by LMTP, and local_transport and the like do not name virtual(8); then
// transport_maps must not answer with it, either. virtual_uid_maps, virtual_gid_maps, alias_maps and
// mailbox_command_maps stay with MySQL, as do tables inside unionmap: and pipemap:, and
// mysql:name with its settings in main.cf; and what these refer to, such as virtual_alias_maps with
// alias_maps = $virtual_alias_maps. A table whose file is wrong stays, too.
//
// # The built-in schema
//
// With --mysql FILE alone, a mysql_table(5) file that needs no query, the tables
// domains(domain), users(email) and alias(address, goto) are served as
// virtual_mailbox_domains, virtual_mailbox_maps, virtual_alias_maps (where a
// mailbox comes before a catch-all) and smtpd_sender_login_maps. A --map of the
// same name takes the place of such a map.
//
// Without --postfix, recipient_delimiter and propagate_unmatched_extensions have the
// meaning and the defaults that they have in Postfix, and must be the same as in main.cf.
//
// # Answers
//
// Only the database says "not found". Whatever goes wrong is answered "try again
// later": Postfix defers mail and refuses none. Lookupd starts without a database
// that answers. A statement that the database refuses (a table is not there, a right is missing) is
// an error in the log, and its map says "try again later", as Postfix's own would; lookupd ends with
// code 78 if all are refused, and SIGHUP and --check take none. So it is with a file that is wrong or
// missing, if main.cf names it and Postfix asks lookupd already.
//
// An answer is given again for cache_fresh (2 s), so that a change in the database is
// seen after that time. While the database does not answer, or takes more than a second,
// the last known answer is given, be it "found" or "not found", if it is no older than
// cache_stale (24 h); what was never asked is "try again later". With cache_stale = 0 so is
// everything. The cache is bounded by cache_size, and is kept over a restart in
// cache_file, which only lookupd's own user may be able to write to. The maps
// *_password_maps are never written there.
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
		Print: l.print,
		Start: l.start,
	})
}
