package maildir

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// stamp is the time of the last name this process made, in microseconds: names
// are unique in the process and sort by delivery, and Dovecot numbers new
// messages in that order.
var stamp atomic.Int64

func nextStamp() int64 {
	for {
		now, last := time.Now().UnixMicro(), stamp.Load()
		if now <= last {
			now = last + 1
		}
		if stamp.CompareAndSwap(last, now) {
			return now
		}
	}
}

var pid = strconv.Itoa(os.Getpid())

// appendName appends "<seconds>.M<microseconds>P<pid>.<host>".
func appendName(dst []byte, host string) []byte {
	t := nextStamp()
	dst = strconv.AppendInt(dst, t/1e6, 10)
	dst = append(dst, ".M"...)
	dst = strconv.AppendInt(dst, t%1e6, 10)
	dst = append(dst, 'P')
	dst = append(dst, pid...)
	dst = append(dst, '.')
	return append(dst, host...)
}

// appendSizes appends ",S=<size>,W=<virtual size>": what the file holds, and what it
// would hold if each line ended in CRLF. Dovecot takes both for granted, and a wrong
// one breaks reading.
func appendSizes(dst []byte, size, vsize int64) []byte {
	dst = append(dst, ",S="...)
	dst = strconv.AppendInt(dst, size, 10)
	dst = append(dst, ",W="...)
	return strconv.AppendInt(dst, vsize, 10)
}

// Sizes reads ",S=" and ",W=" from the name of a message; -1 for what is not there.
func Sizes(name string) (size, vsize int64) {
	return field(name, ",S="), field(name, ",W=")
}

func field(name, key string) int64 {
	i := strings.Index(name, key)
	if i < 0 {
		return -1
	}
	digits := name[i+len(key):]
	if end := strings.IndexAny(digits, ",:"); end >= 0 {
		digits = digits[:end]
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil {
		return -1
	}
	return int64(n)
}

// hostname is host as a part of file names; what has a meaning in them is written
// in octal, as the Maildir specification does. Empty is the machine's name.
func hostname(host string) string {
	if host == "" {
		host, _ = os.Hostname()
	}
	if host == "" {
		host = "localhost"
	}
	host = strings.NewReplacer("/", `\057`, ":", `\072`, ",", `\054`, "\x00", "").Replace(host)
	return host[:min(len(host), 128)] // a file name has 255 octets
}
