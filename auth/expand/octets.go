package expand

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// modernHash is sha256, or hash(sha256, rounds=2, salt=x), of Dovecot 2.4.
func modernHash(algorithm string, options []string) (filterFunc, error) {
	h := hashing{new: digests[algorithm], rounds: 1}
	if h.new == nil || algorithm == "size" {
		return nil, fmt.Errorf("unknown hash %s", algorithm)
	}
	salt := ""
	for _, option := range options {
		name, value, _ := strings.Cut(option, "=")
		value = strings.Trim(value, `'"`)
		switch name {
		case "rounds":
			if err := h.option("rounds="+value, 0); err != nil {
				return nil, err
			}
		case "salt":
			salt = value
		default:
			return nil, fmt.Errorf("%s: unknown option %s", algorithm, option)
		}
	}
	return func(v filtered) (filtered, error) {
		return filtered{string(h.octets(v.text, salt)), true}, nil
	}, nil
}

// calculation is %{port + 1}. Of octets the last eight are a number for the sake of %.
func calculation(operator byte, argument string) (filterFunc, error) {
	right, err := strconv.ParseInt(argument, 10, 64)
	if err != nil || right == 0 && (operator == '/' || operator == '%') || right < 0 && operator == '%' {
		return nil, fmt.Errorf("%c %s cannot be computed", operator, argument)
	}
	return func(v filtered) (filtered, error) {
		if v.octets && operator == '%' {
			var n uint64
			for _, c := range []byte(v.text[max(0, len(v.text)-8):]) {
				n = n<<8 | uint64(c)
			}
			return filtered{text: strconv.FormatUint(n%uint64(right), 10)}, nil
		}
		n, err := strconv.ParseInt(v.text, 10, 64)
		if err != nil {
			return v, fmt.Errorf("%q is not a number", v.text)
		}
		switch operator {
		case '+':
			n += right
		case '-':
			n -= right
		case '*':
			n *= right
		case '/':
			n /= right
		default:
			n %= right
		}
		return filtered{text: strconv.FormatInt(n, 10)}, nil
	}, nil
}

// maxWidth bounds what is filled up.
const maxWidth = 1024

// hexadecimal is hex(width) of a number and hexlify(width) of octets: filled up with
// zeros on the left, and cut.
func hexadecimal(name, argument string) (filterFunc, error) {
	width, err := strconv.Atoi(argument)
	if err != nil || width < -maxWidth || width > maxWidth || width < 0 && name == "hexlify" {
		return nil, fmt.Errorf("%s(%s): no width", name, argument)
	}
	return ofText(func(s string) (string, error) {
		digits := hex.EncodeToString([]byte(s))
		if name == "hex" {
			n, err := strconv.ParseUint(s, 10, 64)
			if err != nil {
				return "", fmt.Errorf("%q is not a number", s)
			}
			digits = strconv.FormatUint(n, 16)
		}
		missing := strings.Repeat("0", max(0, max(width, -width)-len(digits)))
		switch {
		case width == 0:
			return digits, nil
		case width < 0: // its other end
			return (digits + missing)[:-width], nil
		case name == "hexlify":
			return (missing + digits)[:width], nil
		}
		digits = missing + digits
		return digits[len(digits)-width:], nil
	}), nil
}
