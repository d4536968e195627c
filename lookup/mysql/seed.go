package mysql

// The built-in layout: what a daemon looks up when it was given a server and
// nothing else. The tables are
//
//	domains (domain)                  the domains whose mailboxes are here
//	users   (email, password, quota)  quota in KiB, 0 is none
//	alias   (address, goto)           goto is a list of addresses; address may be @domain
//
// and the keys are names of Postfix parameters.
var seedQueries = map[string]string{
	"virtual_mailbox_domains": "SELECT domain FROM domains WHERE domain='%s'",
	"virtual_mailbox_maps":    "SELECT email FROM users WHERE email='%s'",
	"virtual_alias_maps":      "SELECT goto FROM alias WHERE address='%s'",
	// Who may send as an address: its user, and whoever receives its mail.
	// Addresses elsewhere in goto do no harm, since nobody can log in as them.
	"smtpd_sender_login_maps": "SELECT email FROM users WHERE email='%s' UNION ALL SELECT goto FROM alias WHERE address='%s'",
}

// Seed returns the tables of the built-in layout on the server of f, by the name
// of the Postfix parameter that they serve.
func Seed(f *File) map[string]*File {
	files := make(map[string]*File, len(seedQueries))
	for parameter, query := range seedQueries {
		files[parameter] = f.WithQuery(query)
	}
	return files
}
