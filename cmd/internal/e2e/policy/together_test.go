package policy

import (
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"dovepost/policy/ledger"
)

// Several policyds that write the same accounts in the same moment wait for none of the others for ever, with a server
// that looks for such and with one that does not, and all is counted.
func TestAccountsThatAreWrittenTogether(t *testing.T) {
	const nodes, writes = 4, 150
	for _, detect := range []string{"ON", "OFF"} {
		t.Run("deadlocks are detected: "+detect, func(t *testing.T) {
			d := newDatabase(t)
			if d.query("SHOW GLOBAL VARIABLES LIKE 'innodb_deadlock_detect'") == nil {
				t.Fatal("the server has no innodb_deadlock_detect")
			}
			d.exec("SET GLOBAL innodb_deadlock_detect = " + detect)
			t.Cleanup(func() { d.exec("SET GLOBAL innodb_deadlock_detect = DEFAULT") })
			deadlocks := func() string { // MySQL counts none
				return fmt.Sprint(d.query("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'"))
			}
			before := deadlocks()
			start := time.Now().Unix() / 60 * 60
			var wait sync.WaitGroup
			for i, c := range d.counters(nodes) {
				wait.Go(func() {
					for n := range int64(writes) {
						var rows []ledger.Row
						for _, name := range []string{"@example.com", "joe@example.com"} {
							rows = append(rows, ledger.Row{Key: ledger.Key{Name: name, Step: 60}, Start: start + n/50*60, Counts: ledger.Counts{n + 1, 1, 1}})
						}
						if _, _, err := c.Write(t.Context(), int64(i+1), rows); err != nil {
							t.Error(err)
						}
					}
				})
			}
			wait.Wait()
			if after := deadlocks(); after != before {
				t.Errorf("deadlocks: %s, %s before", after, before)
			}
			want := strconv.Itoa(nodes * 2 * (50 + 100 + 150))
			if got := d.query("SELECT SUM(messages) FROM rate_counts"); got[0] != want {
				t.Errorf("counted are %s, want %s", got[0], want)
			}
		})
	}
}
