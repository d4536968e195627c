package sqldb

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"dovepost/auth"
	"dovepost/auth/expand"
	"dovepost/lookup/mysql"
)

// isModern and isOld tell the inline form of Dovecot 2.4 from a dovecot-sql.conf.ext.
var (
	isModern = regexp.MustCompile(`(?m)^[ \t]*(sql_driver[ \t]*=|(passdb|userdb)_sql_\w+[ \t]*=|(passdb|userdb|mysql)[ \t]+[^={]*\{)`)
	isOld    = regexp.MustCompile(`(?m)^(driver|connect|password_query|user_query)[ \t]*=`)
)

// modernFile gathers what the inline form of Dovecot 2.4 says:
//
//	sql_driver = mysql
//	mysql 127.0.0.1 {
//	  user = dovecot
//	}
//	passdb sql {
//	  query = SELECT ... WHERE email = '%{user}'
//	}
//	userdb sql {
//	  query = SELECT ...
//	  iterate_query = SELECT ...
//	}
//
// Settings outside of these are Dovecot's own affair and ignored, and so are passdb and
// userdb blocks of other drivers.
type modernFile struct {
	f       *File
	blocks  []block // that are open
	servers []server
	drivers map[string]string // by block
}

type block struct{ kind, name string }

// server is one mysql block.
type server struct {
	host, port string
	tls        tlsSettings
	config     mysql.Config
}

const maxBlocks = 16 // within one another

// open begins a block.
func (m *modernFile) open(kind, name string) error {
	if len(m.blocks) >= maxBlocks {
		return errors.New("blocks too deep in one another")
	}
	m.blocks = append(m.blocks, block{kind, name})
	if kind == "mysql" {
		if name == "" {
			return errors.New("mysql: no host")
		}
		m.servers = append(m.servers, server{host: name, tls: *newTLSSettings()})
	}
	return nil
}

func (m *modernFile) close() error {
	if len(m.blocks) == 0 {
		return errors.New("unexpected '}'")
	}
	m.blocks = m.blocks[:len(m.blocks)-1]
	return nil
}

// set takes one setting.
func (m *modernFile) set(key, value string) error {
	depth := len(m.blocks)
	if depth == 0 {
		return m.global(key, value)
	}
	inner := m.blocks[depth-1]
	switch {
	case inner.kind == "mysql":
		return m.servers[len(m.servers)-1].set(strings.TrimPrefix(key, "mysql_"), value)
	case inner.kind == "fields" && depth >= 2 && m.blocks[depth-2].kind == "userdb" && m.isSQL(m.blocks[depth-2]):
		return m.f.field(key, value)
	case inner.kind == "fields" && depth >= 2 && m.blocks[depth-2].kind == "passdb" && m.isSQL(m.blocks[depth-2]):
		return fmt.Errorf("passdb fields are not supported: %s", key)
	case inner.kind == "passdb" || inner.kind == "userdb":
		return m.database(inner, strings.TrimPrefix(strings.TrimPrefix(key, inner.kind+"_"), "sql_"), value)
	}
	return nil
}

func (m *modernFile) global(key, value string) error {
	switch key {
	case "sql_driver":
		m.f.driver = value
	case "passdb_default_password_scheme":
		m.f.DefaultPassScheme = value
	case "passdb_sql_query":
		m.f.PasswordQuery = value
	case "userdb_sql_query":
		m.f.UserQuery = value
	case "userdb_sql_iterate_query":
		m.f.IterateQuery = value
	}
	return nil
}

// isSQL reports whether a passdb or userdb is of driver sql: by its name, unless it says.
func (m *modernFile) isSQL(b block) bool {
	if driver, ok := m.drivers[b.kind+" "+b.name]; ok {
		return driver == "sql"
	}
	return b.name == "sql"
}

// database takes a setting of a passdb or userdb block.
func (m *modernFile) database(b block, key, value string) error {
	if key == "driver" {
		m.drivers[b.kind+" "+b.name] = value
		return nil
	}
	if !m.isSQL(b) {
		return nil
	}
	to := map[string]*string{"passdb query": &m.f.PasswordQuery, "passdb default_password_scheme": &m.f.DefaultPassScheme,
		"userdb query": &m.f.UserQuery, "userdb iterate_query": &m.f.IterateQuery}[b.kind+" "+key]
	if to == nil {
		return nil // result_success, use_cache ... of the chain of Dovecot's own
	}
	if strings.HasSuffix(key, "query") && *to != "" {
		return fmt.Errorf("a second %s %s", b.kind, key)
	}
	*to = value
	return nil
}

// set takes a setting of a mysql block.
func (s *server) set(key, value string) error {
	c := &s.config
	switch key {
	case "host":
		s.host = value
	case "port":
		s.port = value
	case "user":
		c.User = value
	case "password":
		c.Password = value
	case "dbname":
		c.DBName = value
	case "connection_limit", "connect_timeout", "read_timeout", "write_timeout", "client_flags":
		// The pool has limits of its own.
	default:
		if err := s.tls.set(key, value); err != nil {
			return fmt.Errorf("mysql %s: %w", s.host, err)
		}
	}
	return nil
}

// finish makes the configuration of the pool.
func (m *modernFile) finish() error {
	switch {
	case len(m.blocks) > 0:
		return fmt.Errorf("the block %s has no end", m.blocks[len(m.blocks)-1].kind)
	case m.f.driver != "mysql":
		return fmt.Errorf("sql_driver = %s is not supported, only mysql", m.f.driver)
	case len(m.servers) == 0:
		return errors.New("there is no mysql block")
	case m.f.DefaultPassScheme == "":
		return errors.New("passdb_default_password_scheme is empty")
	}
	first := m.servers[0]
	var hosts []string
	for _, s := range m.servers {
		if s.config != first.config || s.port != first.port || s.tls != first.tls {
			return errors.New("the mysql blocks differ in more than the host")
		}
		hosts = append(hosts, s.host)
	}
	m.f.config = first.config
	m.f.config.TLS = first.tls.finish()
	var err error
	m.f.config.Hosts, err = mysql.Hosts(hosts, first.port)
	return err
}

// staticField is one setting of a userdb's fields block.
type staticField struct {
	name     string
	value    expand.Template
	fallback bool // name:default
}

// field adds a field that does not come from the database.
func (f *File) field(name, value string) error {
	name, fallback := strings.CutSuffix(name, ":default")
	t, err := expand.Parse(value, func(s string) (*expand.Variable, int, error) {
		v, n, err := expand.ScanModern(s)
		if err == nil && v != nil && v.Secret() {
			err = errClear
		}
		return v, n, err
	})
	if err != nil {
		return fmt.Errorf("fields: %s: %w", name, err)
	}
	f.fields = append(f.fields, staticField{name, t, fallback})
	return nil
}

// static sets the fields that do not come from the database.
func (u *account) static(fields []staticField) {
	for _, f := range fields {
		if _, set := u.fields.Get(f.name); set && f.fallback {
			continue
		}
		value, err := f.value.Expand(expand.Values{Request: u.request})
		if err != nil {
			u.fail(err)
			return
		}
		u.set(f.name, value)
	}
}

// inOldTerms translates fields that have the names of 2.4's settings to those of 2.3,
// which this package speaks.
func inOldTerms(fields auth.Fields) auth.Fields {
	take := func(name string) (value string) {
		if i := slices.IndexFunc(fields, func(f auth.Field) bool { return f.Name == name }); i >= 0 {
			value = fields[i].Value
			fields = slices.Delete(fields, i, i+1)
		}
		return value
	}
	limits := ""
	if size := take("quota_storage_size"); size != "" {
		limits += ":bytes=" + size
	}
	if count := take("quota_message_count"); count != "" {
		limits += ":messages=" + count
	}
	if limits != "" {
		fields = setField(fields, "quota_rule", "*"+limits)
	}
	path := take("mail_path")
	driver := take("mail_driver")
	if path == "" {
		if driver != "" {
			fields = setField(fields, "mail_driver", driver)
		}
		return fields
	}
	if driver == "" {
		driver = "maildir"
	}
	mail := driver + ":" + path
	for _, key := range [][2]string{{"mail_inbox_path", "INBOX"}, {"mail_index_path", "INDEX"}, {"mail_control_path", "CONTROL"},
		{"mail_alt_path", "ALT"}, {"mail_volatile_path", "VOLATILEDIR"}, {"mailbox_list_layout", "LAYOUT"}} {
		if value := take(key[0]); value != "" {
			mail += ":" + key[1] + "=" + value
		}
	}
	return setField(fields, "mail", mail)
}
