// Package mysql answers lookups from MySQL and MariaDB, as Postfix mysql_table(5) does.
//
// It is the one package that talks to the database: it reads the table files as
// they stand on a site, turns their query templates into prepared statements
// whose values are bound and never pasted into SQL text, and keeps one bounded
// pool of connections for each distinct server.
//
//	cf, err := mysql.ReadFile("/etc/postfix/mysql-virtual-alias-maps.cf")
//	pool := mysql.OpenPool(cf.Config(), 8)
//	table, err := mysql.NewTable(cf, pool)
//	values, err := table.Lookup(ctx, "postmaster@example.com")
//
// A table answers the key that it is given and no other: searching without the
// address extension, for @domain and for parent domains is lookup/ladder's work.
// Answers are not cached here either.
//
// Sources: mysql_table(5), the behaviour of Postfix 3.7 with MariaDB 10.11, and
// the text protocol of MySQL, whose rendering of values is kept although the
// statements run over the binary one.
package mysql

import (
	"context"
	"crypto/x509"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	driver "github.com/go-sql-driver/mysql"
)

// Config is what distinguishes one database server and account from another.
// Two Configs that are equal can share a Pool.
type Config struct {
	Hosts    string // blank-separated "unix:/path" and "inet:host:port"
	InOrder  bool   // new connections go to the first host that works; else to any, but sockets first
	User     string
	Password string
	DBName   string
	Charset  string // of the connection; empty is utf8mb4
	TLS      TLS

	RetryInterval time.Duration // a host that failed is tried after the others for so long; 0 is 60 s
	IdleInterval  time.Duration // an idle connection is closed after so long; 0 is 60 s
}

// String describes c without the password.
func (c Config) String() string {
	return fmt.Sprintf("database %s on %s as user %s", c.DBName, c.Hosts, c.User)
}

// GoString is String, so that no format verb shows the password.
func (c Config) GoString() string { return c.String() }

// ErrNoResultSet is returned for a statement that gave no result set at all,
// such as UPDATE or a procedure without SELECT.
var ErrNoResultSet = errors.New("query returned no result set")

// errUnfit is a value that may not stand where the template wants it, unquoted or escaped.
var errUnfit = errors.New("value does not fit where it stands")

var errManyResultSets = errors.New("multiple result sets returning data are not supported")

// Unreachable reports whether err, from a Pool, means that no server could be
// asked or that the server cannot work at the moment. It is false for nil and
// when a server has answered and said no (access denied, unknown column, syntax)
// or is not the one that its certificate should prove.
// Both kinds are temporary to the client; a daemon that starts tells them apart.
func Unreachable(err error) bool {
	if err == nil {
		return false
	}
	var all *hostsError
	if errors.As(err, &all) {
		for _, one := range all.errs {
			if Unreachable(one) {
				return true
			}
		}
		return false
	}
	var said *driver.MySQLError
	if errors.As(err, &said) {
		return busy(err)
	}
	var (
		unknownCA x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
	)
	for _, no := range []error{driver.ErrNoTLS, driver.ErrCleartextPassword, driver.ErrNativePassword,
		driver.ErrOldPassword, driver.ErrUnknownPlugin, ErrNoResultSet, errManyResultSets, errUnfit, errUnlike, errTooLarge} {
		if errors.Is(err, no) {
			return false
		}
	}
	var config *configError
	if errors.As(err, &config) {
		return false
	}
	return !errors.As(err, &unknownCA) && !errors.As(err, &hostname) && !errors.As(err, &invalid)
}

// limited reports whether the server gives no more connections, to anybody or to
// this account.
func limited(err error) bool {
	var all *hostsError
	if errors.As(err, &all) {
		return slices.ContainsFunc(all.errs, limited)
	}
	var said *driver.MySQLError
	return errors.As(err, &said) && (said.Number == 1040 || said.Number == 1203 || said.Number == 1226)
}

// busy reports whether err is the server's, and says that it cannot work now, as
// opposed to that it will never do what it was asked.
func busy(any error) bool {
	var err *driver.MySQLError
	if !errors.As(any, &err) {
		return false
	}
	if err.SQLState[0] == '0' && err.SQLState[1] == '8' { // connection exceptions: too many connections, shutdown, no quorum
		return true
	}
	switch err.Number {
	case 1021, 1037, 1038, 1041, // disk full, out of memory, out of resources
		1129,                   // host blocked after too many errors
		1135,                   // cannot create a thread
		1203, 1226, 1461, 1637, // limits: connections of the user, resources, prepared statements, transactions
		1205, 1213, // lock wait timeout, deadlock
		1290, 1836, // read-only
		1317, 1969, 3024, // interrupted, statement timeout
		1615, 1243, // needs to be prepared again, unknown prepared statement
		1927, 4031, // connection killed, idle for too long
		3032: // offline mode
		return true
	}
	return false
}

// lost reports whether err says that the connection, or a statement prepared on
// it, is gone, so that the query deserves another try on a fresh connection.
func lost(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	var all *hostsError
	if errors.As(err, &all) {
		return false // a fresh connection is what could not be had
	}
	var said *driver.MySQLError
	if errors.As(err, &said) {
		switch said.Number {
		case 1053, 1243, 1615, 1927, 4031: // shutdown, unknown statement, prepare again, killed, idle for too long
			return true
		}
		return false
	}
	for _, dead := range []error{driver.ErrInvalidConn, sqldriver.ErrBadConn, driver.ErrMalformPkt,
		driver.ErrPktSync, driver.ErrPktSyncMul, io.EOF, io.ErrUnexpectedEOF} {
		if errors.Is(err, dead) {
			return true
		}
	}
	var network net.Error
	return errors.As(err, &network)
}

// configError is a Config that cannot work, whatever the server does.
type configError struct{ err error }

func (e *configError) Error() string { return e.err.Error() }
func (e *configError) Unwrap() error { return e.err }

// hostsError holds what each host said when none gave a connection.
type hostsError struct{ errs []error }

func (e *hostsError) Error() string {
	texts := make([]string, len(e.errs))
	for i, err := range e.errs {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (e *hostsError) Unwrap() []error { return e.errs }
