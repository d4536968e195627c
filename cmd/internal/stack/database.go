package stack

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// User is one row of the table users.
type User struct {
	Email    string
	Password string // in clear text; stored as SHA512-CRYPT
	Quota    int64  // KiB; 0 is unlimited
}

// Alias is one row of the table alias.
type Alias struct {
	Address string // "team@example.net", "@example.org"
	Goto    string // "a@example.net,b@example.net"
}

const schema = `
CREATE DATABASE maildb;
USE maildb;
CREATE TABLE domains (domain VARCHAR(255) NOT NULL, PRIMARY KEY (domain));
CREATE TABLE users (email VARCHAR(255) NOT NULL, password VARCHAR(255) NOT NULL, quota BIGINT NOT NULL DEFAULT 0, PRIMARY KEY (email));
CREATE TABLE alias (address VARCHAR(255) NOT NULL, goto TEXT NOT NULL, PRIMARY KEY (address));
CREATE USER mailuser@'127.0.0.1' IDENTIFIED BY 'mailpassword';
GRANT SELECT ON maildb.* TO mailuser@'127.0.0.1';
`

// fill makes the schema, the read-only account of the site's files, and the rows.
func (s *Stack) fill(o *Options) error {
	var sql strings.Builder
	sql.WriteString(schema)
	for _, d := range o.Domains {
		fmt.Fprintf(&sql, "INSERT INTO domains (domain) VALUES (%s);\n", Quote(d))
	}
	hashes := map[string]string{}
	for _, u := range o.Users {
		hash, ok := hashes[u.Password]
		if !ok {
			var err error
			if hash, err = s.hash(u.Password); err != nil {
				return err
			}
			hashes[u.Password] = hash
		}
		fmt.Fprintf(&sql, "INSERT INTO users (email, password, quota) VALUES (%s, %s, %d);\n", Quote(u.Email), Quote(hash), u.Quota)
	}
	for _, a := range o.Aliases {
		fmt.Fprintf(&sql, "INSERT INTO alias (address, goto) VALUES (%s, %s);\n", Quote(a.Address), Quote(a.Goto))
	}
	return s.DB.Exec(sql.String())
}

// hash returns password as SHA512-CRYPT without the {SCHEME}, so that
// default_pass_scheme is what names it.
func (s *Stack) hash(password string) (string, error) {
	doveadm, err := program("doveadm")
	if err != nil {
		return "", err
	}
	out, err := exec.Command(doveadm, "pw", "-s", "SHA512-CRYPT", "-p", password).Output()
	if err != nil {
		return "", fmt.Errorf("doveadm pw: %w", err)
	}
	return strings.TrimPrefix(strings.TrimSpace(string(out)), "{SHA512-CRYPT}"), nil
}

// The site's own files, as they are printed, but for the server's port and the
// place of the mail store.
const (
	domainsQuery = "SELECT 1 FROM domains WHERE domain = '%s'"
	mailboxQuery = "SELECT 1 FROM users WHERE email = '%s'"
	aliasQuery   = "SELECT goto FROM alias WHERE address = '%s'"
	loginsQuery  = "SELECT email FROM users WHERE email = '%s'"

	tableFile = `user = mailuser
password = mailpassword
hosts = 127.0.0.1:%d
dbname = maildb
query = %s
`

	sqlFile = `driver = mysql
connect = host=127.0.0.1 port=%[1]d dbname=maildb user=mailuser password=mailpassword
default_pass_scheme = SHA512-CRYPT
password_query = SELECT email as user, password FROM users WHERE email = '%%u'
user_query = SELECT '%[2]s/%%d/%%n' as home, 'Maildir' as mail, 5000 as uid, 5000 as gid, concat('dirsize:storage=', quota) as quota_rule FROM users WHERE email = '%%u'
`

	// nativeSQLFile is the nearest that works with Dovecot 2.3's own SQL: a bare
	// "Maildir" is an ambiguous mail location to it, "dirsize" no quota rule, and
	// without iterate_query it asks for columns that this schema does not have.
	nativeSQLFile = `driver = mysql
connect = host=127.0.0.1 port=%[1]d dbname=maildb user=mailuser password=mailpassword
default_pass_scheme = SHA512-CRYPT
password_query = SELECT email as user, password FROM users WHERE email = '%%u'
user_query = SELECT '%[2]s/%%d/%%n' as home, 'maildir:~/Maildir' as mail, 5000 as uid, 5000 as gid, concat('*:storage=', quota) as quota_rule FROM users WHERE email = '%%u'
iterate_query = SELECT email AS user FROM users
`
)

// tables are the Postfix parameters that are looked up in the database: the
// site's file for each, and the kind of ladder that Postfix climbs for it.
var tables = []struct{ parameter, kind, file, query string }{
	{"virtual_mailbox_domains", "domain", "mysql-virtual-mailbox-domains.cf", domainsQuery},
	{"virtual_mailbox_maps", "address", "mysql-virtual-mailbox-maps.cf", mailboxQuery},
	{"virtual_alias_maps", "alias", "mysql-virtual-alias-maps.cf", aliasQuery},
	{"smtpd_sender_login_maps", "address", "mysql-sender-login-maps.cf", loginsQuery},
}

// writeTables writes the site's .cf files and its dovecot-sql.conf.ext to dir,
// readable for owner alone, since they hold a password.
func (s *Stack) writeTables(dir string, owner int, sql string) error {
	files := map[string]string{
		"dovecot-sql.conf.ext": fmt.Sprintf(sql, s.DB.Port(), s.MailRoot()),
	}
	for _, t := range tables {
		files[t.file] = fmt.Sprintf(tableFile, s.DB.Port(), t.query)
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o400); err != nil {
			return err
		}
		if err := os.Chown(path, owner, -1); err != nil {
			return err
		}
	}
	return nil
}
