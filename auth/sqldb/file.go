package sqldb

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"dovepost/lookup/bounded"
	"dovepost/lookup/mysql"
)

// File is a dovecot-sql.conf.ext of Dovecot 2.3. An empty query was not set;
// what Dovecot would ask then is in the default queries below.
type File struct {
	Path              string
	PasswordQuery     string
	UserQuery         string
	IterateQuery      string
	DefaultPassScheme string

	// ClearPassword lets queries have the password that the client typed: %w.
	ClearPassword bool

	driver, connect string
	config          mysql.Config
	modern          bool // the inline form of Dovecot 2.4
	fields          []staticField
}

// What Dovecot 2.3 asks when a file does not say.
const (
	defaultPasswordQuery = "SELECT username, domain, password FROM users WHERE username = '%n' AND domain = '%d'"
	defaultUserQuery     = "SELECT home, uid, gid FROM users WHERE username = '%n' AND domain = '%d'"
	defaultIterateQuery  = "SELECT username, domain FROM users"
	defaultPassScheme    = "MD5"
)

// modernPassScheme is the default of Dovecot 2.4.3, and SQL's in 2.3 as it is shipped;
// 2.4.0 to 2.4.2 take what has no scheme for a clear password.
const modernPassScheme = "CRYPT"

// ReadFile reads a dovecot-sql.conf.ext of Dovecot 2.3, or a file with the blocks
// "mysql HOST", "passdb sql" and "userdb sql" of Dovecot 2.4, with the variables and
// field names of either. Errors name file and line.
func ReadFile(path string) (*File, error) {
	f := &File{Path: path, DefaultPassScheme: defaultPassScheme}
	data, err := bounded.ReadFile(path, maxFile)
	if err != nil {
		return nil, err
	}
	text := string(data)
	r, finish := &reader{set: f.set}, f.finish
	if isModern.MatchString(text) && !isOld.MatchString(text) {
		f.modern, f.DefaultPassScheme = true, modernPassScheme
		m := &modernFile{f: f, drivers: map[string]string{}}
		r, finish = &reader{set: m.set, open: m.open, close: m.close}, m.finish
	}
	if err := r.read(path, text, 0); err != nil {
		return nil, err
	}
	if err := finish(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// Config returns the server and account of the file's connect setting.
func (f *File) Config() mysql.Config { return f.config }

func (f *File) set(key, value string) error {
	switch key {
	case "driver":
		f.driver = value
	case "connect":
		f.connect = value
	case "password_query":
		f.PasswordQuery = value
	case "user_query":
		f.UserQuery = value
	case "iterate_query":
		f.IterateQuery = value
	case "default_pass_scheme":
		f.DefaultPassScheme = value
	case "update_query", "userdb_warning_disable": // nothing here changes passwords
	default:
		return fmt.Errorf("unknown setting: %s", key)
	}
	return nil
}

func (f *File) finish() error {
	switch {
	case f.driver == "":
		return errors.New("driver is not set")
	case f.driver != "mysql":
		return fmt.Errorf("driver %s is not supported, only mysql", f.driver)
	case f.connect == "":
		return errors.New("connect is not set")
	case f.DefaultPassScheme == "":
		return errors.New("default_pass_scheme is empty")
	}
	var err error
	if f.config, err = parseConnect(f.connect); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	return nil
}

// parseConnect reads the words of a connect setting. The password never appears
// in its errors.
func parseConnect(connect string) (mysql.Config, error) {
	var c mysql.Config
	var hosts []string
	var port, socket string
	var options struct{ file, group string }
	tls := newTLSSettings()
	for _, word := range strings.Fields(connect) {
		name, value, ok := strings.Cut(word, "=")
		if !ok {
			return c, errors.New("a word without '='")
		}
		var err error
		switch name {
		case "host", "hostaddr":
			hosts = append(hosts, value)
		case "port":
			if n, bad := strconv.ParseUint(value, 10, 16); bad != nil || n == 0 {
				err = fmt.Errorf("bad port %q", value)
			}
			port = value
		case "user":
			c.User = value
		case "password":
			c.Password = value
		case "dbname":
			c.DBName = value
		case "option_file":
			options.file = value
		case "option_group":
			options.group = value
		case "connect_timeout", "read_timeout", "write_timeout", "maxconns":
			// The pool has its own limits, which are shorter than Dovecot's.
			_, err = strconv.ParseUint(value, 10, 32)
		case "client_flags":
			const multiStatements = 1 << 16
			if n, bad := strconv.ParseUint(value, 10, 32); bad != nil || n&multiStatements != 0 {
				err = fmt.Errorf("client_flags=%s is not supported", value)
			}
		default:
			err = tls.set(name, value)
		}
		if err != nil {
			return c, err
		}
	}
	if len(hosts) == 0 {
		return c, errors.New("no host")
	}
	c.TLS = tls.finish()
	var err error
	if options.file != "" || options.group != "" {
		var filePort string
		if filePort, socket, _, err = c.ReadOptions(options.file, cmp.Or(options.group, "client")); err != nil {
			return c, fmt.Errorf("option_file: %w", err)
		}
		port = cmp.Or(port, filePort)
	}
	c.Hosts, err = mysql.HostsAt(hosts, socket, port)
	return c, err
}
