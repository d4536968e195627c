package mysql

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"strconv"
	"strings"
	"time"

	"dovepost/lookup/bounded"
)

// maxFile bounds what is read of any configuration file.
const maxFile = 1 << 20

// File is one mysql_table(5) file.
type File struct {
	Path     string
	Warnings []string // what Postfix ignores, too, but an administrator may want to know

	digest           string // of all that was read
	config           Config
	query            string // empty: no query and none of the old-style parameters
	queryLine        int
	resultFormat     string
	resultLine       int
	domains          *domainList // nil: every domain
	expansionLimit   int         // 0: none
	requireResultSet bool
}

// Config returns the server, account and session options of the file.
func (f *File) Config() Config { return f.config }

// Digest stands for the text of the file and of all files that it names, those of
// certificates apart: they say whom to ask and not what the answer is.
func (f *File) Digest() string { return f.digest }

// HasQuery reports whether the file says what to look up. One that is given to
// --mysql need not.
func (f *File) HasQuery() bool { return f.query != "" }

// WithQuery returns a copy of f, with server and account, that looks up query and
// nothing else that the file may say.
func (f *File) WithQuery(query string) *File {
	return &File{Path: f.Path, digest: f.digest, config: f.config, query: query, resultFormat: "%s", requireResultSet: true}
}

// ReadFile reads a mysql_table(5) file. Errors name file and line.
func ReadFile(path string) (*File, error) {
	data, err := readBounded(path)
	if err != nil {
		return nil, err
	}
	return parseFile(path, data)
}

func readBounded(path string) ([]byte, error) { return bounded.ReadFile(path, maxFile) }

// setting is one logical line.
type setting struct {
	name, value string
	line        int
}

// parseSettings splits data into settings, as Postfix reads its files: a line
// that starts with a blank continues the one before, also over comments and empty
// lines; nothing is quoted; there are no comments behind a value.
func parseSettings(path string, data []byte) ([]setting, error) {
	type logical struct {
		text strings.Builder
		line int
	}
	var lines []*logical
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSuffix(line, "\r")
		if n := strings.IndexByte(line, 0); n >= 0 {
			return nil, fmt.Errorf("%s:%d: NUL character", path, i+1)
		}
		blank := strings.TrimLeft(line, " \t\r\v\f")
		switch {
		case blank == "" || blank[0] == '#':
		case len(blank) < len(line) && len(lines) == 0:
			return nil, fmt.Errorf("%s:%d: the first line must not start with a blank", path, i+1)
		case len(blank) < len(line):
			lines[len(lines)-1].text.WriteString(line)
		default:
			l := &logical{line: i + 1}
			l.text.WriteString(line)
			lines = append(lines, l)
		}
	}
	settings := make([]setting, 0, len(lines))
	for _, l := range lines {
		name, value, ok := strings.Cut(l.text.String(), "=")
		name = strings.TrimSpace(name)
		switch {
		case !ok, strings.ContainsAny(name, " \t"):
			return nil, fmt.Errorf("%s:%d: missing '=' after attribute name", path, l.line)
		case name == "":
			return nil, fmt.Errorf("%s:%d: missing attribute name", path, l.line)
		}
		settings = append(settings, setting{name, strings.TrimSpace(value), l.line})
	}
	return settings, nil
}

// options are the settings of a file by name, the last of each.
type options struct {
	path string
	set  map[string]setting
	err  error // the first one
	sum  hash.Hash
}

// read reads a file that the file names.
func (o *options) read(path string) ([]byte, error) {
	data, err := readBounded(path)
	fmt.Fprintf(o.sum, "%s %d\n%s", path, len(data), data)
	return data, err
}

func (o *options) fail(s setting, format string, args ...any) {
	if o.err == nil {
		o.err = fmt.Errorf("%s:%d: %s: %s", o.path, s.line, s.name, fmt.Sprintf(format, args...))
	}
}

// text returns an option, or fallback if it is not there.
func (o *options) text(name, fallback string) string {
	if s, ok := o.set[name]; ok {
		return s.value
	}
	return fallback
}

// some is text for an option that must not be empty where it is given.
func (o *options) some(name, fallback string) string {
	value := o.text(name, fallback)
	if s, ok := o.set[name]; ok && value == "" {
		o.fail(s, "must not be empty")
	}
	return value
}

func (o *options) number(name string, fallback, least int) int {
	s, ok := o.set[name]
	if !ok {
		return fallback
	}
	n, err := strconv.Atoi(s.value)
	if err != nil || n < least {
		o.fail(s, "bad number %q", s.value)
	}
	return n
}

func (o *options) yes(name string, fallback bool) bool {
	s, ok := o.set[name]
	switch {
	case !ok:
		return fallback
	case strings.EqualFold(s.value, "yes"):
		return true
	case strings.EqualFold(s.value, "no"):
		return false
	}
	o.fail(s, "%q is neither yes nor no", s.value)
	return fallback
}

// known are the options of mysql_table(5), and host_order, which is not in it:
// "first" has new connections go to the first of the hosts that works and not to
// any of them. Postfix ignores it.
var known = map[string]bool{"hosts": true, "user": true, "password": true, "dbname": true, "charset": true,
	"query": true, "table": true, "select_field": true, "where_field": true, "additional_conditions": true,
	"result_format": true, "domain": true, "expansion_limit": true, "require_result_set": true,
	"idle_interval": true, "retry_interval": true, "option_file": true, "option_group": true,
	"tls_cert_file": true, "tls_key_file": true, "tls_CAfile": true, "tls_CApath": true,
	"tls_ciphers": true, "tls_verify_cert": true, "host_order": true}

func parseFile(path string, data []byte) (*File, error) {
	settings, err := parseSettings(path, data)
	if err != nil {
		return nil, err
	}
	f := &File{Path: path}
	o := &options{path: path, set: make(map[string]setting), sum: sha256.New()}
	o.sum.Write(data)
	for _, s := range settings {
		if before, ok := o.set[s.name]; ok && before.value != s.value {
			f.warn(s, "overrides line %d", before.line)
		}
		if !known[s.name] {
			f.warn(s, "unknown parameter, ignored")
		}
		o.set[s.name] = s
	}
	f.readConfig(o)
	f.readTable(o)
	if o.err != nil {
		return nil, o.err
	}
	f.digest = fmt.Sprintf("%x", o.sum.Sum(nil))
	return f, nil
}

func (f *File) warn(s setting, format string, args ...any) {
	f.Warnings = append(f.Warnings, fmt.Sprintf("%s:%d: %s: %s", f.Path, s.line, s.name, fmt.Sprintf(format, args...)))
}

// readConfig takes what concerns the connection.
func (f *File) readConfig(o *options) {
	c := &f.config
	c.User, c.Password = o.text("user", ""), o.text("password", "")
	if c.DBName = o.some("dbname", ""); c.DBName == "" && o.err == nil {
		o.err = fmt.Errorf("%s: dbname is not set", f.Path)
	}
	if c.Charset = o.some("charset", "utf8mb4"); !isName(c.Charset, false) {
		o.fail(o.set["charset"], "%q is not a character set", c.Charset)
	}
	c.RetryInterval = time.Duration(o.number("retry_interval", 60, 1)) * time.Second
	switch order := o.text("host_order", "random"); order {
	case "random":
	case "first":
		c.InOrder = true
	default:
		o.fail(o.set["host_order"], "%q is neither random nor first", order)
	}
	c.IdleInterval = time.Duration(o.number("idle_interval", 60, 1)) * time.Second
	c.TLS = TLS{
		CertFile: o.text("tls_cert_file", ""), KeyFile: o.text("tls_key_file", ""),
		CAFile: o.text("tls_CAfile", ""), CAPath: o.text("tls_CApath", ""),
		Ciphers: o.text("tls_ciphers", ""), VerifyCert: o.yes("tls_verify_cert", false),
	}
	client := clientOptions{socket: defaultSocket, port: defaultPort, open: o.read}
	group := o.text("option_group", "client")
	if file := o.text("option_file", ""); file != "" {
		if err := client.read(file, group); err != nil {
			o.fail(o.set["option_file"], "%v", err)
		}
	} else if group != "" {
		client.readSystem(group)
		f.Warnings = append(f.Warnings, client.warnings...)
		client.host = "" // hosts has a default of its own
	}
	client.fill(c)
	hosts := o.text("hosts", "")
	if hosts == "" {
		hosts = client.hostList()
	}
	var err error
	if c.Hosts, err = parseHosts(hosts, client.socket, client.port); err != nil {
		o.fail(o.set["hosts"], "%v", err)
	}
	if c.Hosts == "" && o.err == nil {
		o.fail(o.set["hosts"], "no host")
	}
}

// readTable takes what concerns the lookup.
func (f *File) readTable(o *options) {
	f.query, f.queryLine = o.text("query", ""), o.set["query"].line
	if _, ok := o.set["table"]; ok && f.query == "" {
		// The old style; %s in its parts expands as it does in a query.
		table, field, where := o.some("table", ""), o.some("select_field", ""), o.some("where_field", "")
		switch {
		case field == "":
			o.fail(o.set["table"], "'select_field' parameter not defined")
		case where == "":
			o.fail(o.set["table"], "'where_field' parameter not defined")
		}
		f.queryLine = o.set["table"].line
		f.query = fmt.Sprintf("SELECT %s FROM %s WHERE %s='%%s' %s", field, table, where, o.text("additional_conditions", ""))
	}
	f.resultFormat, f.resultLine = o.some("result_format", "%s"), o.set["result_format"].line
	f.expansionLimit = o.number("expansion_limit", 0, 0)
	f.requireResultSet = o.yes("require_result_set", true)
	if list := o.text("domain", ""); list != "" {
		var err error
		if f.domains, err = parseDomains(list, o.read); err != nil {
			o.fail(o.set["domain"], "%v", err)
		}
	}
}
