// Package auth is the vocabulary of authentication: what Dovecot calls passdb,
// userdb and auth request.
//
// Results start as "internal failure" and are improved only on proof: an error
// that is neither ErrUnknownUser nor ErrPasswordMismatch (nor one of the other
// refusals below) is temporary, and every protocol must say so to its client.
//
// This package knows no wire and no database. The protocols are in auth/dovecot,
// the mechanisms in auth/sasl, the hashes in auth/scheme, the SQL in auth/sqldb.
package auth

import (
	"context"
	"errors"
	"iter"
	"net/netip"
)

// The refusals. Whoever answers a client must not let it tell the first two apart.
var (
	ErrUnknownUser      = errors.New("unknown user")
	ErrPasswordMismatch = errors.New("password mismatch")
	ErrUserDisabled     = errors.New("user disabled")        // code=user_disabled
	ErrPassExpired      = errors.New("password expired")     // code=pass_expired
	ErrAuthzFailed      = errors.New("authorization failed") // code=authz_fail
	ErrMalformed        = errors.New("malformed response")   // the client's message breaks the rules of its mechanism
)

// Refused reports whether err is a proven "no". Anything else that is not nil is temporary.
func Refused(err error) bool {
	for _, refusal := range []error{ErrUnknownUser, ErrPasswordMismatch, ErrUserDisabled, ErrPassExpired, ErrAuthzFailed, ErrMalformed} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}

// Refusal is a refusal with the details that the row of the user gave for it.
type Refusal struct {
	Err     error  // one of the refusals above
	Reason  string // reason=: a text for the end user; or empty
	NoDelay bool   // nodelay: the answer need not be late
	Again   bool   // the same user with the same wrong password as before, from the same network
}

func (r *Refusal) Error() string { return r.Err.Error() }
func (r *Refusal) Unwrap() error { return r.Err }

// Request is what is known of one authentication or lookup. The zero value of a
// field means that the client did not say.
type Request struct {
	User    string // the name that is looked up: canonical, folded; empty until the rules have made it from Login
	Login   string // the name as it was typed
	Authzid string // whom the client wants to be, where it is not Login (PLAIN's authzid)
	Service string // imap, pop3, smtp, sieve, submission, lmtp, doveadm ...
	Mech    string // upper case; empty outside an exchange
	Secured bool   // TLS, or the client's address is the server's own
	TLS     bool   // secured=tls
	Session string // the client's session id, for the log

	LocalIP, RemoteIP         netip.Addr // lip=, rip=
	LocalPort, RemotePort     uint16     // lport=, rport=
	RealLocalIP, RealRemoteIP netip.Addr // real_lip=, real_rip=: the peer, where a proxy stands between
	RealLocalPort             uint16     // real_lport=
	RealRemotePort            uint16     // real_rport=
	LocalName                 string     // local_name=: TLS SNI
	ClientID                  string     // client_id=: what the client said in IMAP ID
	Forward                   Fields     // forward_fields=, sent by a trusted proxy; names without forward_
	NoPenalty                 bool       // no-penalty
	Debug                     bool       // debug
	MTA                       bool       // the asker is Postfix or Exim, whatever its service: it waits for 10 s in all
	Modern                    bool       // the asker is Dovecot 2.4 or later: it says protocol= and wants 2.4's field names

	ClientCert      bool   // valid-client-cert: the client's certificate has been verified
	CertUsername    string // cert_username=: the user that it names
	CertFingerprint string // ssl_client_cert_fp=, of the certificate
	CertPubkey      string // ssl_client_cert_pubkey_fp=, of its public key
	JA3             string // ssl_ja3_hash=, of the client's TLS hello

	// SPID and CUID are what the client has seen in the handshake, and what the
	// challenge of APOP has to begin with.
	SPID, CUID uint32

	// MasterUser is the final name of the master user who has proven to be himself
	// and logs in as User; empty otherwise. The Verifier sets it.
	MasterUser string

	// LoginUser is the canonical name of the user whom a master user wants to be,
	// while his own password is being looked up; empty otherwise.
	LoginUser string

	// Password is the password in clear, for a query that wants to compare it in the
	// database (%w); empty where no query does.
	Password string

	// Token is the bearer token that has been validated, which a proxy repeats. The
	// mechanism sets it with success.
	Token string

	// NoCache wants what the database says now.
	NoCache bool

	// Stale says that the database does not answer and that this login is decided by
	// what it has said before: then no refusal is a proof. The Verifier sets it.
	Stale bool

	// Row is what the passdb has said of this login, for its userdb lookup (%{passdb:...});
	// nil in all other lookups.
	Row *Credentials

	// Binding is for mechanisms with channel binding. See Exchange.
	Binding ChannelBinding
}

// ChannelBinding ties an exchange to the TLS connection below it (RFC 5056).
type ChannelBinding struct {
	Type string // tls-unique, tls-server-end-point, tls-exporter; the mechanism sets it
	Data []byte // the TLS connection's data of this type; nil: the asker has none
}

// Field is one name=value of a passdb or userdb result. HasValue tells "nologin=" from "nologin".
type Field struct {
	Name, Value string
	HasValue    bool
}

// Fields is an ordered list of fields; a name stands in it at most once.
type Fields []Field

// Get returns the value of the field name, and whether it is there.
func (f Fields) Get(name string) (string, bool) {
	for _, field := range f {
		if field.Name == name {
			return field.Value, true
		}
	}
	return "", false
}

// Credentials is one passdb row.
type Credentials struct {
	User       string // the user's final name, as the database or the request spells it; never empty
	Password   string // "{SCHEME}hash": the default scheme is already put in front where the row has none
	NoPassword bool   // nopassword: any password is right
	Fields     Fields // the other passdb fields: nologin, reason, allow_nets, proxy, host ...
	Userdb     Fields // userdb_* prefetch fields, without the prefix

	Stored          string // the password as the row spells it, without a default scheme
	AppPassword     string // the name of the app password that was given, where it was one
	AppPasswordOnly bool   // app_password_only: Password does not count
	Cached          bool   // it is from a cache: before a refusal ask again, with Request.NoCache
	Stale           bool   // Cached, and old, because the database does not answer
}

// User is one userdb row, in Dovecot 2.3's terms. The wire translates for 2.4.
type User struct {
	Name   string // final name
	Home   string // absolute path, or empty
	Mail   string // mail location, "maildir:~/Maildir"; or empty
	UID    string // decimal number, or a name that the asker resolves; or empty
	GID    string
	Fields Fields // quota_rule and everything else, in the order of the row
}

// Passdb finds password rows.
type Passdb interface {
	// LookupPass returns the row of r.User. Errors: ErrUnknownUser when the
	// database has answered that there is none; any other error is temporary.
	LookupPass(ctx context.Context, r *Request) (*Credentials, error)
}

// Userdb finds users.
type Userdb interface {
	// LookupUser returns the row of r.User. Errors as for Passdb.
	LookupUser(ctx context.Context, r *Request) (*User, error)

	// Users yields all user names that match mask, a glob of * and ?; an empty
	// mask matches all. A non-nil error ends the sequence and is temporary.
	Users(ctx context.Context, mask string) iter.Seq2[string, error]
}

// Mechanism is one SASL mechanism.
type Mechanism interface {
	Name() string    // as registered, upper case: "PLAIN"
	Flags() []string // as auth-client names them: "plaintext", "mutual-auth" ...

	// Start begins an exchange. The mechanism writes the names that the client
	// claims into r.Login and r.Authzid and asks v about them.
	Start(r *Request, v Verifier) Exchange
}

// Exchange is the server's side of one SASL exchange. It is used by one goroutine at a time.
type Exchange interface {
	// Next takes the client's response, decoded. It is nil in the first call where
	// the client gave no initial response, and not nil in all others.
	//
	//	challenge, nil, nil   send challenge (it may be empty) and call again with what comes
	//	final, row, nil       proven; final is the mechanism's last message, or nil
	//	nil, nil, err         the end: a refusal (see Refused), or temporary
	//
	// A mechanism that wants channel binding data sets r.Binding.Type before it
	// returns a challenge. r.Binding.Data is what the asker's TLS connection has of
	// that type when Next is called again, and nil where it has nothing.
	Next(ctx context.Context, response []byte) (challenge []byte, row *Credentials, err error)
}

// Verifier decides about passwords. It is what a SASL mechanism sees.
type Verifier interface {
	// VerifyPlain compares password with the row of r.User. It returns the row
	// only on proof. Errors: a refusal (see Refused), or temporary.
	VerifyPlain(ctx context.Context, r *Request, password []byte) (*Credentials, error)

	// LookupCredentials returns the row of r.User with Password in the given
	// scheme, "{SCHEME}value", or clear, "{PLAIN}value", where it is stored so; for
	// mechanisms that compute with the stored secret. The value is decoded: octets,
	// where the row has hexadecimal or base64. With an empty scheme it is the row
	// without a password, of a user who is proven by other means. Errors as above;
	// a row that cannot serve the scheme is ErrPasswordMismatch.
	LookupCredentials(ctx context.Context, r *Request, scheme string) (*Credentials, error)
}
