package mysql

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	driver "github.com/go-sql-driver/mysql"
)

// trouble is told once when it begins and once when it is over.
func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		var h health
		c := Config{Hosts: "unix:/s", User: "u", DBName: "d", Password: "secret"}
		full := fmt.Errorf("connect: %w", &driver.MySQLError{Number: 1040, Message: "Too many connections"})
		own := &driver.MySQLError{Number: 1054, Message: "Unknown column"}
		h.note(c, full) // nobody listens
		h.log.Store(slog.New(slog.NewTextHandler(&out, nil)))
		note := func(want string, errs ...error) {
			t.Helper()
			out.Reset()
			for _, err := range errs {
				h.note(c, err)
			}
			got := out.String()
			if strings.Count(got, "\n") != min(1, len(want)) || !strings.Contains(got, want) || strings.Contains(got, "secret") {
				t.Errorf("got %s; want %q", got, want)
			}
		}
		note("", nil, nil, own, context.Canceled)
		note(errLimit.Error(), full, full, nil, own, full, nil)
		time.Sleep(calm / 2)
		note("", nil, full, &hostsError{[]error{&driver.MySQLError{Number: 1203}, &driver.MySQLError{Number: 1226}}})
		time.Sleep(calm - time.Nanosecond)
		note("", nil)
		time.Sleep(time.Nanosecond)
		note("works again", nil, nil, nil)
		note(errAway.Error(), &hostsError{[]error{errHanging}}, context.DeadlineExceeded)
		note(errNotNow.Error(), &driver.MySQLError{Number: 1290})
		note(errRefuses.Error(), &hostsError{[]error{&driver.MySQLError{Number: 1045}}})
		time.Sleep(calm)
		note("works again", nil)
	})
}
