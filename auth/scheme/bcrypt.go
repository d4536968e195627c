package scheme

import (
	"errors"
	"fmt"

	"golang.org/x/crypto/bcrypt"
)

const (
	bcryptCost    = 5 // Dovecot's default
	bcryptMinCost = 4
	bcryptMaxCost = 16 // about four seconds
	bcryptKey     = 72 // octets of the password that count
	bcryptLen     = 60 // $2y$NN$ + 22 of salt + 31 of hash
)

// verifyBcrypt takes $2a$, $2b$ and $2y$, which are the same for passwords without
// NUL. (libxcrypt's $2a$ differs from its $2y$ for a few passwords that begin with
// 8-bit octets, where the sign-extension bug of 2011 made collisions; that is not
// imitated, and $2x$, which is that bug, is not supported.)
func verifyBcrypt(value, password []byte) (bool, error) {
	if len(value) != bcryptLen || value[6] != '$' {
		return false, fmt.Errorf("%w: length", ErrMalformed)
	}
	if value[4] < '0' || value[4] > '9' || value[5] < '0' || value[5] > '9' {
		return false, fmt.Errorf("%w: cost", ErrMalformed)
	}
	cost := int(value[4]-'0')*10 + int(value[5]-'0')
	if cost < bcryptMinCost || cost > 31 {
		return false, fmt.Errorf("%w: cost", ErrMalformed)
	}
	if cost > bcryptMaxCost {
		return false, fmt.Errorf("%w: cost %d, limit %d", ErrTooCostly, cost, bcryptMaxCost)
	}
	switch err := bcrypt.CompareHashAndPassword(value, password); {
	case err == nil:
		return true, nil
	case errors.Is(err, bcrypt.ErrMismatchedHashAndPassword):
		return false, nil
	default:
		return false, fmt.Errorf("%w: salt", ErrMalformed)
	}
}

func hashBcrypt(password []byte, o Options) ([]byte, error) {
	if len(password) > maxCryptPassword {
		return nil, fmt.Errorf("%w: longer than %d octets", ErrPassword, maxCryptPassword)
	}
	cost, err := chooseCount(o.Rounds, bcryptCost, bcryptMinCost, bcryptMaxCost)
	if err != nil {
		return nil, err
	}
	value, err := bcrypt.GenerateFromPassword(password[:min(len(password), bcryptKey)], cost)
	if err != nil {
		return nil, err
	}
	value[2] = 'y' // as Dovecot and PHP write it; the computation is the same
	return value, nil
}
