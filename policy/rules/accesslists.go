package rules

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"dovepost/policy"
)

// AccessList is a list of what is allowed and denied: an Access, an AccessTable, or
// AccessMaps.
type AccessList interface {
	// Find returns the action for a request, and whether the list has any: DUNNO that is
	// found exempts. An error says nothing about the request.
	Find(ctx context.Context, r *policy.Request) (action policy.Action, found bool, err error)
}

// AccessLists are asked in turn. The first that has something to say decides.
type AccessLists []AccessList

// Decide implements policy.Decider. Its errors are those of the lists.
func (l AccessLists) Decide(ctx context.Context, r *policy.Request) (policy.Action, error) {
	for _, list := range l {
		if action, found, err := list.Find(ctx, r); found || err != nil {
			return action, err
		}
	}
	return policy.Dunno, nil
}

// AccessRow is one rule of a table, as a line of a file has it.
type AccessRow struct{ Field, Pattern, Action string }

// maxAccessRows bounds a table that is read as a whole.
const maxAccessRows = 100_000

// AccessTable is an Access that is read from a table, and read again every Interval. While
// the table cannot be read the last list stays. A row that makes no sense is left out, and the
// log says so.
type AccessTable struct {
	Rows      func(ctx context.Context) ([]AccessRow, error) // in the order in which they count
	Delimiter string
	Interval  time.Duration
	Timeout   time.Duration // for reading it once
	Log       *slog.Logger

	list   atomic.Pointer[Access] // nil: it was never read
	failed atomic.Pointer[error]  // why
	asked  chan struct{}          // closed after the first try
	wrong  string                 // what the log has heard of wrong rows
	cancel context.CancelFunc     // nil before Start
	done   chan struct{}
}

// Start begins to read. The table must be closed.
func (t *AccessTable) Start() {
	var ctx context.Context
	ctx, t.cancel = context.WithCancel(context.Background())
	t.asked, t.done = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(t.done)
		t.read(ctx)
		close(t.asked)
		tick := time.NewTicker(t.Interval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				t.read(ctx)
			}
		}
	}()
}

// Close ends the reading.
func (t *AccessTable) Close() error {
	if t.cancel != nil {
		t.cancel()
		<-t.done
	}
	return nil
}

// read makes a list of the table.
func (t *AccessTable) read(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, t.Timeout)
	defer cancel()
	rows, err := t.Rows(ctx)
	if err == nil && len(rows) > maxAccessRows {
		err = fmt.Errorf("the table has more than %d rows", maxAccessRows)
	}
	if err != nil {
		if before := t.failed.Swap(&err); (before == nil || *before == nil) && ctx.Err() != context.Canceled {
			t.Log.Warn("the access table cannot be read", "err", err, "old_list", t.list.Load() != nil)
		}
		return
	}
	list := newAccess(t.Delimiter)
	wrong, why := 0, ""
	for i, row := range rows {
		if err := list.addRule(i+1, row.Field, strings.TrimSpace(row.Pattern), row.Action); err != nil {
			if wrong++; wrong == 1 {
				why = fmt.Sprintf("%.20q %.80q: %v", row.Field, row.Pattern, err)
			}
		}
	}
	if why != t.wrong && wrong > 0 {
		t.Log.Warn("rows of the access table are left out", "rows", wrong, "first", why)
	}
	t.wrong = why
	var none error
	if before := t.failed.Swap(&none); t.list.Load() == nil || before != nil && *before != nil {
		t.Log.Info("access table read", "rows", list.Len())
	}
	t.list.Store(list)
}

var errNotRead = errors.New("the access table was not read yet")

// Find implements AccessList. It fails while the table has never been read.
func (t *AccessTable) Find(ctx context.Context, r *policy.Request) (policy.Action, bool, error) {
	list := t.list.Load()
	if list == nil {
		select {
		case <-t.asked:
		case <-ctx.Done():
			return policy.Dunno, false, errNotRead
		}
		if list = t.list.Load(); list == nil {
			return policy.Dunno, false, errors.Join(errNotRead, *t.failed.Load())
		}
	}
	return list.Find(ctx, r)
}

// AccessMap answers keys with the text of an action.
type AccessMap interface {
	// First returns the action of the first of the keys that there is, or "".
	First(ctx context.Context, keys []string) (action string, err error)
}

// AccessMaps ask tables of any layout, one for each field, for keys in the order
//
//	client             192.0.2.1, 192.0.2.0/24, 192.0.0.0/16, 192.0.0.0/8, *
//	                   2001:db8::1, 2001:db8::/64, /48, /32, *
//	sender, recipient  user+ext@domain, user@domain, domain, .domain and its parents, user+ext@, user@, *
//	sender             <> for the null sender
//	login              the login, and if it is an address the same as above with @domain for domain
//
// in small letters. The fields are asked in the order client, sender, recipient, login, and the
// first action decides. A field without a table is nil.
type AccessMaps struct {
	Client, Sender, Recipient, Login AccessMap

	Delimiter string
}

// Find implements AccessList.
func (m *AccessMaps) Find(ctx context.Context, r *policy.Request) (policy.Action, bool, error) {
	type question struct {
		field string
		table AccessMap
		keys  []string
	}
	questions := []question{{"client", m.Client, clientKeys(r.ClientAddress)}}
	switch {
	case isNullSender(r):
		questions = append(questions, question{"sender", m.Sender, []string{"<>"}})
	case r.Sender != "":
		questions = append(questions, question{"sender", m.Sender, m.addressKeys(r.Sender, "")})
	}
	if r.Recipient != "" {
		questions = append(questions, question{"recipient", m.Recipient, m.addressKeys(r.Recipient, "")})
	}
	if r.SASLUsername != "" {
		questions = append(questions, question{"login", m.Login, m.addressKeys(r.SASLUsername, "@")})
	}
	for _, q := range questions {
		if q.table == nil {
			continue
		}
		text, err := q.table.First(ctx, q.keys)
		if err != nil {
			return policy.Dunno, false, fmt.Errorf("%s: %w", q.field, err)
		}
		if text == "" {
			continue
		}
		action, err := policy.ParseAction(text)
		if err != nil {
			return policy.Dunno, false, fmt.Errorf("%s: %w", q.field, err)
		}
		return action, true, nil
	}
	return policy.Dunno, false, nil
}

func clientKeys(client netip.Addr) (keys []string) {
	client = client.Unmap().WithZone("")
	lengths := []int{64, 48, 32}
	if client.Is4() {
		lengths = []int{24, 16, 8}
	}
	if client.IsValid() {
		keys = append(keys, client.String())
		for _, bits := range lengths {
			if network, err := client.Prefix(bits); err == nil {
				keys = append(keys, network.String())
			}
		}
	}
	return append(keys, "*")
}

// maxParents bounds the parents of a domain that are asked for; a host name has fewer labels.
const maxParents = 10

// addressKeys returns the forms of an address. at is what stands before a bare domain.
func (m *AccessMaps) addressKeys(address, at string) (keys []string) {
	address = strings.ToLower(address)
	local, domain := address, ""
	if i := strings.LastIndexByte(address, '@'); i >= 0 {
		local, domain = address[:i], address[i+1:]
	}
	locals := []string{local}
	if ext := strings.IndexAny(local, m.Delimiter); ext > 0 {
		locals = append(locals, local[:ext])
	}
	keys = append(keys, address)
	if domain != "" {
		if len(locals) > 1 {
			keys = append(keys, locals[1]+"@"+domain)
		}
		keys = append(keys, at+domain)
		for rest, n := domain, 0; n < maxParents; n++ {
			dot := strings.IndexByte(rest, '.')
			if dot < 0 {
				break
			}
			keys = append(keys, rest[dot:])
			rest = rest[dot+1:]
		}
	}
	for _, l := range locals {
		keys = append(keys, l+"@")
	}
	return append(keys, "*")
}
