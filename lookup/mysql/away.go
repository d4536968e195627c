package mysql

import (
	"context"
	"errors"
	"net"
)

// Away reports whether err says that servers did not answer, and how. Unlike
// Unreachable it is false for what it does not know, such as an error about the values of
// one row: it is for those who stop asking after it.
func Away(err error) bool {
	var all *hostsError
	var network net.Error
	switch {
	case !Unreachable(err):
		return false
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, errHanging), errors.Is(err, errCut):
		return true
	}
	return busy(err) || lost(err) || errors.As(err, &all) || errors.As(err, &network)
}
