package database

import (
	"dovepost/auth/sqldb"
	"dovepost/lookup/mysql"
)

// Files name where the users are; one of the two is set.
type Files struct {
	SQL   string // --sql: a dovecot-sql.conf.ext
	MySQL string // --mysql: a mysql_table(5) file, for the built-in table users

	ClearPassword bool // its password_query may have the password in clear
}

// Users are the passdb and userdb of the files.
type Users struct {
	DB     *sqldb.DB
	Pool   *mysql.Pool
	Scheme string // of passwords without {SCHEME}
}

// Users opens the passdb and userdb of the files. Seed is what --mysql does not keep
// in the database. Errors are the administrator's to mend.
func (p *Pools) Users(f Files, seed sqldb.SeedOptions) (u Users, err error) {
	if f.SQL != "" {
		file, err := sqldb.ReadFile(f.SQL)
		if err != nil {
			return u, err
		}
		file.ClearPassword = f.ClearPassword
		u.Pool, u.Scheme = p.Open(file.Config()), file.DefaultPassScheme
		u.DB, err = sqldb.Open(file, u.Pool)
		return u, err
	}
	file, err := mysql.ReadFile(f.MySQL)
	if err != nil {
		return u, err
	}
	for _, w := range file.Warnings {
		p.env.Log.Warn("file", "warning", w)
	}
	u.Pool, u.Scheme = p.Open(file.Config()), seed.Scheme
	u.DB, err = sqldb.Seed(u.Pool, seed)
	return u, err
}

// Statements are what the server is to look at: the password, the user and the iterate query.
func (u Users) Statements() (all []Statement) {
	for _, prepare := range u.DB.Statements() {
		all = append(all, Statement{u.Pool, prepare})
	}
	return all
}
