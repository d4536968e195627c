package guard

import (
	"context"
	"errors"
	"testing"

	"dovepost/auth"
)

// says is a Verifier with one answer, which it gives to everybody.
type says struct{ err error }

func (s says) VerifyPlain(_ context.Context, r *auth.Request, _ []byte) (*auth.Credentials, error) {
	r.User += "+" // what one does to the request is none of the next one's business
	if s.err != nil {
		return nil, s.err
	}
	return &auth.Credentials{User: r.User}, nil
}

func (s says) LookupCredentials(ctx context.Context, r *auth.Request, _ string) (*auth.Credentials, error) {
	return s.VerifyPlain(ctx, r, nil)
}

func TestVerifiers(t *testing.T) {
	away := errors.New("away")
	again := &auth.Refusal{Err: auth.ErrPasswordMismatch, Again: true}
	for name, tt := range map[string]struct {
		answers []error
		want    error
	}{
		"the first has him":                            {[]error{nil, auth.ErrPasswordMismatch}, nil},
		"the second has his other password":            {[]error{auth.ErrPasswordMismatch, nil}, nil},
		"the second knows him":                         {[]error{auth.ErrUnknownUser, nil}, nil},
		"the first is away, the second has him":        {[]error{away, nil}, nil},
		"the first is away, the second does not":       {[]error{away, auth.ErrPasswordMismatch}, away},
		"the first does not know him, the second away": {[]error{auth.ErrUnknownUser, away}, away},
		"nobody knows him":                             {[]error{auth.ErrUnknownUser, auth.ErrUnknownUser}, auth.ErrUnknownUser},
		"one knows him with another password":          {[]error{auth.ErrUnknownUser, again, auth.ErrUnknownUser}, again},
		"he is disabled":                               {[]error{auth.ErrUserDisabled, nil}, auth.ErrUserDisabled},
	} {
		var all Verifiers
		for _, err := range tt.answers {
			all = append(all, says{err})
		}
		r := &auth.Request{User: "u"}
		row, err := all.VerifyPlain(t.Context(), r, nil)
		if err != tt.want || (row == nil) != (err != nil) || r.User != "u+" {
			t.Errorf("it handles that %s: %v, %v, %q; want %v", name, row, err, r.User, tt.want)
		}
		if _, err := all.LookupCredentials(t.Context(), &auth.Request{}, ""); err != tt.want {
			t.Errorf("it handles that %s, with stored secrets: %v, want %v", name, err, tt.want)
		}
	}
}
