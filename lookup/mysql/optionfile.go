package mysql

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// clientOptions are the options of a my.cnf file that concern a connection.
type clientOptions struct {
	host, socket, port string
	user               string
	password, database string // not Postfix's, see fill
	tls                TLS

	open func(path string) ([]byte, error) // reads a file

	lenient  bool // what cannot be understood is a warning
	warnings []string
}

// systemOptionFiles are what the client library reads without being told to: Postfix
// 3.2 and later ask for the group "client" of them. Of the server and the account it
// takes what the table file leaves open, such as the place of the socket and whether
// to use TLS. The files in the home directory of who runs the program are not read.
var systemOptionFiles = []string{"/etc/my.cnf", "/etc/mysql/my.cnf"}

// readSystem reads the files of the system. What the library would ignore, too, or
// what it knows and this package does not, is a warning: the files were not written
// for Postfix.
func (c *clientOptions) readSystem(group string) {
	c.lenient = true
	for _, path := range systemOptionFiles {
		if err := c.read(path, group); err != nil && !errors.Is(err, fs.ErrNotExist) {
			c.warnings = append(c.warnings, err.Error())
		}
	}
}

// hostList is the hosts parameter that means the server of the option file.
func (c *clientOptions) hostList() string {
	if c.host == "" {
		return "localhost"
	}
	return c.host
}

// fill sets what the table file left open. The password is not among it: Postfix
// hands over that of the table file even if there is none.
func (c *clientOptions) fill(config *Config) {
	for _, s := range []struct {
		to   *string
		from string
	}{{&config.User, c.user},
		{&config.TLS.CertFile, c.tls.CertFile}, {&config.TLS.KeyFile, c.tls.KeyFile},
		{&config.TLS.CAFile, c.tls.CAFile}, {&config.TLS.CAPath, c.tls.CAPath},
		{&config.TLS.Ciphers, c.tls.Ciphers}} {
		if *s.to == "" {
			*s.to = s.from
		}
	}
	if config.TLS.enforced() {
		config.TLS.VerifyCert = config.TLS.VerifyCert || c.tls.VerifyCert
	}
	config.TLS.Preferred = config.TLS.Preferred || c.tls.Preferred
}

// ReadOptions completes c by what an option file says of account, database and TLS, as
// Dovecot's option_file and option_group do. An empty path means the files of the
// system, of which warnings tell what is not understood. The server is c's, but for
// the port and the socket, each empty where the file has none.
func (c *Config) ReadOptions(path, group string) (port, socket string, warnings []string, err error) {
	o := clientOptions{open: readBounded}
	if path == "" {
		o.readSystem(group)
	} else if err := o.read(path, group); err != nil {
		return "", "", nil, err
	}
	o.fill(c)
	if c.Password == "" {
		c.Password = o.password
	}
	if c.DBName == "" {
		c.DBName = o.database
	}
	return o.port, o.socket, o.warnings, nil
}

// read reads the groups [client], [client-server], [client-mariadb] and group of
// an option file, as the client library does.
func (c *clientOptions) read(path, group string) error {
	return c.readFile(path, []string{"client", "client-server", "client-mariadb", group}, 0)
}

func (c *clientOptions) readFile(path string, groups []string, depth int) error {
	if depth > 8 {
		return fmt.Errorf("%s: includes too deep", path)
	}
	data, err := c.open(path)
	if err != nil {
		return err
	}
	in := false
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		directive, argument, _ := strings.Cut(line, " ")
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case directive == "!include":
			err = c.readFile(strings.TrimSpace(argument), groups, depth+1)
		case directive == "!includedir":
			err = c.readDir(strings.TrimSpace(argument), groups, depth+1)
		case line[0] == '[':
			name, _, closed := strings.Cut(line[1:], "]")
			if !closed {
				return fmt.Errorf("%s:%d: group without ]", path, i+1)
			}
			in = slices.Contains(groups, strings.TrimSpace(name))
		case in:
			err = c.option(line)
		}
		if err != nil {
			err = fmt.Errorf("%s:%d: %w", path, i+1, err)
			if !c.lenient {
				return err
			}
			c.warnings = append(c.warnings, err.Error())
			err = nil
		}
	}
	return nil
}

func (c *clientOptions) readDir(dir string, groups []string, depth int) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".cnf") {
			if err := c.readFile(filepath.Join(dir, e.Name()), groups, depth); err != nil {
				return err
			}
		}
	}
	return nil
}

// option takes one line of a group. Options that change who is asked, or how
// safely, must be understood; others, such as those of the mysql program, are skipped.
func (c *clientOptions) option(line string) error {
	name, value, hasValue := strings.Cut(line, "=")
	name = strings.ReplaceAll(strings.TrimSpace(name), "_", "-")
	value = unquoteOption(strings.TrimSpace(value))
	fields := map[string]*string{"host": &c.host, "socket": &c.socket, "port": &c.port, "user": &c.user,
		"password": &c.password, "database": &c.database,
		"ssl-cert": &c.tls.CertFile, "ssl-key": &c.tls.KeyFile, "ssl-ca": &c.tls.CAFile,
		"ssl-capath": &c.tls.CAPath, "ssl-cipher": &c.tls.Ciphers}
	if field, ok := fields[name]; ok {
		*field = value
		return nil
	}
	on := !hasValue || value == "1" || strings.EqualFold(value, "on") || strings.EqualFold(value, "true")
	switch name {
	case "ssl-verify-server-cert":
		c.tls.VerifyCert = on
	case "ssl", "ssl-enforce": // to the client library a wish: without an authority it goes in the clear
		c.tls.Preferred = on
	case "ssl-mode", "protocol", "pipe", "init-command", "plugin-dir", "default-auth", "tls-version",
		"ssl-crl", "ssl-crlpath", "ssl-fp", "ssl-fplist", "tls-fp", "tls-peer-fp", "compress":
		return fmt.Errorf("option %s is not supported", name)
	}
	return nil
}

// unquoteOption takes the quotes off a value and cuts a comment behind it.
func unquoteOption(value string) string {
	if value != "" && (value[0] == '\'' || value[0] == '"') {
		if end := strings.IndexByte(value[1:], value[0]); end >= 0 {
			return value[1 : end+1]
		}
	}
	if i := strings.Index(value, " #"); i >= 0 {
		value = strings.TrimSpace(value[:i])
	}
	return value
}
