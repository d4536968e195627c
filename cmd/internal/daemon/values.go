package daemon

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// The kinds of values that Postfix and Dovecot write in ways of their own.

// BoolVar adds a flag that reads yes and no, as well as true and false; the bare
// --name means yes.
func BoolVar(fs *pflag.FlagSet, p *bool, name string, value bool, usage string) {
	*p = value
	fs.Var((*yesNo)(p), name, usage)
	fs.Lookup(name).NoOptDefVal = "yes"
}

// DurationVar adds a flag that reads a time as Go, Postfix and Dovecot write it: 2s,
// 2 secs, 500ms, 1h; a number alone is in seconds.
func DurationVar(fs *pflag.FlagSet, p *time.Duration, name string, value time.Duration, usage string) {
	*p = value
	fs.Var((*duration)(p), name, usage)
}

// SizeVar adds a flag that reads a number of octets: 4096, 64K, 64 MB, 1G. K is 1024.
func SizeVar(fs *pflag.FlagSet, p *int64, name string, value int64, usage string) {
	*p = value
	fs.Var((*size)(p), name, usage)
}

type yesNo bool

func (b *yesNo) Type() string { return "yes|no" }

func (b *yesNo) String() string {
	if *b {
		return "yes"
	}
	return "no"
}

func (b *yesNo) Set(s string) error {
	switch strings.ToLower(s) {
	case "yes", "y", "true", "1":
		*b = true
	case "no", "n", "false", "0":
		*b = false
	default:
		return errors.New("want yes or no")
	}
	return nil
}

type duration time.Duration

func (d *duration) Type() string   { return "time" }
func (d *duration) String() string { return time.Duration(*d).String() }

func (d *duration) Set(s string) error {
	digits, unit := cutUnit(s)
	n, err := strconv.ParseUint(digits, 10, 31)
	if err != nil { // 1.5s, 1m30s
		t, err := time.ParseDuration(strings.TrimSpace(s))
		if err != nil || t < 0 {
			return errors.New("want a time such as 2s, 500ms or 2 mins")
		}
		*d = duration(t)
		return nil
	}
	var one time.Duration
	switch strings.TrimSuffix(unit, "s") {
	case "", "sec", "second":
		one = time.Second
	case "m":
		if one = time.Minute; unit == "ms" {
			one = time.Millisecond
		}
	case "msec", "millisecond":
		one = time.Millisecond
	case "min", "minute":
		one = time.Minute
	case "h", "hour":
		one = time.Hour
	case "d", "day":
		one = 24 * time.Hour
	case "w", "week":
		one = 7 * 24 * time.Hour
	default:
		return fmt.Errorf("unknown unit %q of time", unit)
	}
	if n > uint64(math.MaxInt64/one) {
		return errors.New("time too long")
	}
	*d = duration(time.Duration(n) * one)
	return nil
}

type size int64

func (v *size) Type() string { return "size" }

func (v *size) String() string {
	n, units := int64(*v), "KMGT"
	suffix := ""
	for n != 0 && n%1024 == 0 && units != "" {
		n, suffix, units = n/1024, units[:1], units[1:]
	}
	return strconv.FormatInt(n, 10) + suffix
}

func (v *size) Set(s string) error {
	digits, unit := cutUnit(s)
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil {
		return errors.New("want a size such as 65536, 64K or 1G")
	}
	shift := 0
	if unit = strings.TrimSuffix(strings.TrimSuffix(unit, "b"), "i"); unit != "" {
		i := strings.Index("kmgt", unit)
		if i < 0 || len(unit) > 1 {
			return fmt.Errorf("unknown unit %q of size", unit)
		}
		shift = 10 * (i + 1)
	}
	if n > math.MaxInt64>>shift {
		return errors.New("size too large")
	}
	*v = size(n << shift)
	return nil
}

// cutUnit splits "2 secs" into its number and its unit in small letters.
func cutUnit(s string) (digits, unit string) {
	s = strings.ToLower(strings.TrimSpace(s))
	digits = strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyz")
	return strings.TrimSpace(digits), s[len(digits):]
}
