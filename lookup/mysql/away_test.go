package mysql

import (
	"context"
	"errors"
	"fmt"
	"testing"

	driver "github.com/go-sql-driver/mysql"

	"dovepost/lookup"
)

func TestAway(t *testing.T) {
	nowhere := OpenPool(Config{Hosts: "unix:/nonexistent/socket"}, 1)
	_, refused := nowhere.Query(t.Context(), "SELECT 1")
	for _, tt := range []struct {
		name string
		err  error
		want bool
	}{
		{"nothing", nil, false},
		{"no key", lookup.ErrNotFound, false},
		{"a value that is not UTF-8", errors.New("the result is not UTF-8"), false},
		{"a row too many", errTooLarge, false},
		{"a wrong password", &driver.MySQLError{Number: 1045, SQLState: [5]byte{'2', '8', '0', '0', '0'}}, false},
		{"too many connections", &driver.MySQLError{Number: 1040, SQLState: [5]byte{'0', '8', '0', '0', '4'}}, true},
		{"a deadlock", &driver.MySQLError{Number: 1213, SQLState: [5]byte{'4', '0', '0', '0', '1'}}, true},
		{"time", context.DeadlineExceeded, true},
		{"a caller who has gone", context.Canceled, false},
		{"a connection that broke", driver.ErrInvalidConn, true},
		{"no server", refused, true},
	} {
		if got := Away(tt.err); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
		if tt.err != nil {
			if got := Away(fmt.Errorf("mysql:x.cf: %w", tt.err)); got != tt.want {
				t.Errorf("%s, wrapped: %v, want %v", tt.name, got, tt.want)
			}
		}
	}
}
