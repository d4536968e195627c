package maildir

import (
	"context"
	"errors"
	"fmt"
	"time"

	"dovepost/lmtp"

	"golang.org/x/sys/unix"
)

var (
	errNoSpace = &lmtp.Status{Code: 452, Enhanced: "4.3.1", Text: "Insufficient system storage"}
	errDisk    = &lmtp.Status{Code: 452, Enhanced: "4.2.2", Text: lmtp.ErrOverQuota.Text}
)

// status words err for the client and keeps the cause for the log: it wraps a
// *lmtp.Status and err. What the filesystem refuses is always temporary: the disk
// that is full today has room tomorrow.
func status(err error) error {
	var st *lmtp.Status
	switch {
	case err == nil:
		return nil
	case errors.As(err, &st):
		return err
	case errors.Is(err, unix.EDQUOT):
		st = errDisk
	case errors.Is(err, unix.ENOSPC):
		st = errNoSpace
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		st = lmtp.ErrTempFail
	default:
		st = &lmtp.Status{Code: 451, Enhanced: "4.2.0", Text: "Internal error occurred. Refer to server log for more information. " +
			time.Now().Format("[2006-01-02 15:04:05]")}
	}
	return fmt.Errorf("%w: %w", st, err)
}
