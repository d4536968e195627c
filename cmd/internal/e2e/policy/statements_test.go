package policy

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"dovepost/lookup/mysql"
	"dovepost/policy/ledger"
	"dovepost/policy/sqldb"
)

// counters returns n times what a policyd counts with, each with connections of its own.
func (d *database) counters(n int) []*sqldb.Counters {
	d.t.Helper()
	f, err := mysql.ReadFile(d.file(server.Addr()))
	must(d.t, err)
	all := make([]*sqldb.Counters, n)
	for i := range all {
		pool := mysql.OpenPool(f.Config(), 2)
		d.t.Cleanup(func() { pool.Close() })
		b := sqldb.NewBreaker(pool, 20*time.Second, slog.Default())
		d.t.Cleanup(b.Close)
		all[i] = sqldb.New(pool, b).RateCounters()
		must(d.t, all[i].Prepare(d.t.Context()))
	}
	return all
}

// general has the server log what it executes until the test ends.
func (d *database) general() {
	d.t.Helper()
	must(d.t, server.Exec("SET GLOBAL log_output = 'TABLE'; TRUNCATE mysql.general_log; SET GLOBAL general_log = 1"))
	d.t.Cleanup(func() { server.Exec("SET GLOBAL general_log = 0; TRUNCATE mysql.general_log") })
}

// executed returns how many statements on a table policyd has executed since the log began.
func (d *database) executed(table string) (n int) {
	d.t.Helper()
	rows := d.query("SELECT COUNT(*) FROM mysql.general_log WHERE command_type = 'Execute' AND user_host LIKE 'dovepost_policyd%' AND argument LIKE '%" + table + "%'")
	_, err := fmt.Sscan(rows[0], &n)
	must(d.t, err)
	return n
}

// MariaDB's own log says that a message of a known sender costs one statement, with several limits and also
// when it comes alone, to two policyds in turn.
func TestAMessageCostsOneStatement(t *testing.T) {
	const messages = 40
	costs := 1
	if !strings.Contains(newDatabase(t).query("SELECT VERSION()")[0], "MariaDB") {
		costs = 2 // MySQL knows no RETURNING
	}
	limits := func(most int64) []ledger.Ask {
		return []ledger.Ask{
			{Name: "joe@example.com", Limits: []ledger.Limit{{What: 0, Most: most, Window: time.Hour}, {What: 1, Most: 1000, Window: 24 * time.Hour}, {What: 2, Most: 1 << 30, Window: 7 * 24 * time.Hour}}},
			{Name: "@example.com", Limits: []ledger.Limit{{What: 0, Most: 1000, Window: time.Hour}, {What: 2, Most: 1 << 30, Window: 24 * time.Hour}}},
		}
	}
	for _, tt := range []struct {
		name  string
		most  int64
		pause time.Duration
		plain bool
		want  [2]int // statements, passed
	}{
		{"one by one", 1000, 5 * time.Second, false, [2]int{costs * messages, messages}},
		{"one by one over the limit, beyond which one passes", 20, 5 * time.Second, false, [2]int{costs*21 + messages - 21, 21}},
		{"a burst", 1000, 0, false, [2]int{2 * costs, messages}},
		{"one by one, with a server that knows no RETURNING", 1000, 5 * time.Second, true, [2]int{2 * messages, messages}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDatabase(t)
			now := time.Now()
			var all []*ledger.Ledger
			for _, c := range d.counters(2) {
				if tt.plain {
					c.WithoutReturning()
				}
				l := ledger.New(c)
				l.Now = func() time.Time { return now }
				all = append(all, l)
			}
			flush := func() {
				for _, l := range all {
					must(t, l.Flush(t.Context()))
				}
			}
			for _, l := range all { // now they know the account
				l.Take(t.Context(), limits(tt.most), ledger.Counts{}, ledger.Look)
			}
			d.general()
			passed := 0
			for i := range messages {
				if all[i%2].Take(t.Context(), limits(tt.most), ledger.Counts{1, 2, 1000}, ledger.Commit).OK {
					passed++
				}
				if tt.pause > 0 {
					now = now.Add(tt.pause)
					flush()
				}
			}
			flush()
			if got := [2]int{d.executed("rate_counts"), passed}; got != tt.want {
				t.Errorf("%d statements for %d messages, of which %d have passed; want %d and %d", got[0], messages, got[1], tt.want[0], tt.want[1])
			}
			now = now.Add(time.Second)
			for i, l := range all {
				if got := l.Sum(t.Context(), "joe@example.com", 24*time.Hour); got != (ledger.Counts{int64(passed), int64(2 * passed), int64(1000 * passed)}) {
					t.Errorf("policyd %d counts %d, want %d messages", i, got, passed)
				}
			}
		})
	}
}

// What others have is known after a write, too, where the server cuts the answer short, or somebody has locked the
// rows of others.
func TestAWriteThatIsNotAnswered(t *testing.T) {
	d := newDatabase(t)
	d.exec(`INSERT INTO rate_counts WITH RECURSIVE numbers AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM numbers WHERE n < 40)
		SELECT 'joe@example.com', 60, UNIX_TIMESTAMP() DIV 60 * 60 - n * 60, 1, 1, 1, 1, UNIX_TIMESTAMP() + 9999 FROM numbers`)
	row := ledger.Row{Key: ledger.Key{Name: "joe@example.com", Step: 60}, Start: time.Now().Unix() / 60 * 60, Counts: ledger.Counts{3, 3, 3}}
	write := func() {
		t.Helper()
		found, _, err := d.counters(1)[0].Write(t.Context(), 2, []ledger.Row{row, row})
		must(t, err)
		var sum ledger.Counts
		for _, r := range found {
			if !r.Own {
				sum = sum.Plus(r.Counts)
			}
		}
		if sum != (ledger.Counts{40, 40, 40}) {
			t.Errorf("others have counted %d, want 40", sum)
		}
	}
	write()
	d.exec("SET GLOBAL group_concat_max_len = 64")
	t.Cleanup(func() { d.exec("SET GLOBAL group_concat_max_len = DEFAULT") })
	write()
	d.exec("SET GLOBAL group_concat_max_len = DEFAULT; SET GLOBAL innodb_lock_wait_timeout = 1")
	t.Cleanup(func() { d.exec("SET GLOBAL innodb_lock_wait_timeout = DEFAULT") })
	ended := make(chan error, 1)
	go func() {
		_, err := server.Query("USE " + d.name + "; START TRANSACTION; UPDATE rate_counts SET expires = expires + 1 WHERE node = 1; SELECT SLEEP(2); ROLLBACK")
		ended <- err
	}()
	waitFor(t, func() bool {
		return d.query("SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP(2)%'")[0] == "1"
	})
	row.Counts = ledger.Counts{4, 4, 4}
	write()
	must(t, <-ended)
	if got := d.query("SELECT messages FROM rate_counts WHERE node = 2"); got[0] != "4" {
		t.Errorf("stored are %q, want 4", got)
	}
}
