package scheme

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

// vectors holds hashes that doveadm pw of Dovecot 2.3.19 made of "secret" (user
// test@example.com), and published or libxcrypt-made ones of other passwords.
var vectors = []struct{ name, stored, password string }{
	{"PLAIN", "{PLAIN}secret", "secret"},
	{"PLAIN in hex", "{PLAIN.hex}736563726574", "secret"},
	{"PLAIN in base64", "{PLAIN.b64}c2VjcmV0", "secret"},
	{"CLEARTEXT in small letters", "{cleartext}secret", "secret"},
	{"PLAIN, empty", "{PLAIN}", ""},
	{"PLAIN with braces", "{PLAIN}{x}y}", "{x}y}"},
	{"PLAIN-TRUNC, not truncated", "{PLAIN-TRUNC}100-secret", "secret"},
	{"PLAIN-TRUNC, truncated", "{PLAIN-TRUNC}3-sec", "secret"},
	{"SHA1", "{SHA1}5en6G6MezRroT3XKqkdPOmY/BfQ=", "secret"},
	{"SHA in hex by its length", "{SHA}e5e9fa1ba31ecd1ae84f75caaa474f3a663f05f4", "secret"},
	{"SHA256", "{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=", "secret"},
	{"SHA512", "{SHA512}vSsar3708Jvp9Szi2NWZZ02Bqp1qRCFpbcTZPdBhnWgs5WtNZKnvCXdhztmeD2cmW192CF5bDufKRpayrW/isg==", "secret"},
	{"SHA512.hex", "{SHA512.HEX}bd2b1aaf7ef4f09be9f52ce2d8d599674d81aa9d6a4421696dc4d93dd0619d682ce56b4d64a9ef097761ced99e0f67265b5f76085e5b0ee7ca4696b2ad6fe2b2", "secret"},
	{"base64 with blanks", "{LDAP-MD5}Xr4ilOzQ4PC Oq3aQ0qbuaQ== ", "secret"},
	{"SSHA", "{SSHA}/KIHUjY+vsY+g4Bw4Z+Zm5nmtgjX/hDq", "secret"},
	{"SSHA.hex", "{SSHA.hex}fca20752363ebec63e838070e19f999b99e6b608d7fe10ea", "secret"},
	{"SSHA256", "{SSHA256}eX0UUMwxSdjZ9M1yP+86cTH3QlRtVO3niDYfR42ewIokKaLI", "secret"},
	{"SSHA512", "{SSHA512}g1Wixmk5ewbT5r4XdnAh5SEOPikEtntY0i6XDNL/5t0stzL4sZyFS4ecnLeYBkgr7UdAlTV8wpzOcbmLT3oYmbACErw=", "secret"},
	{"SMD5", "{SMD5}hk+JUuYXOzZIfxMK3GoHQtg3lgY=", "secret"},
	{"LDAP-MD5", "{LDAP-MD5}Xr4ilOzQ4PCOq3aQ0qbuaQ==", "secret"},
	{"PLAIN-MD5", "{PLAIN-MD5}5ebe2294ecd0e0f08eab7690d2a6ee69", "secret"},
	{"PLAIN-MD5 in capitals", "{PLAIN-MD5}5EBE2294ECD0E0F08EAB7690D2A6EE69", "secret"},
	{"PLAIN-MD5 in base64", "{PLAIN-MD5}Xr4ilOzQ4PCOq3aQ0qbuaQ==", "secret"},
	{"PLAIN-MD4", "{PLAIN-MD4}67d3dafef63ff00603aeef3769cfbf0d", "secret"},
	{"DIGEST-MD5", "{DIGEST-MD5}e02f7ac200bc57887c7f0fa03bd4eeb2", "secret"},
	{"MD5-CRYPT", "{MD5-CRYPT}$1$JCtc7YOn$Z5eFsmK.TQ6CDhPv5xfW11", "secret"},
	{"MD5-CRYPT without a salt", "{MD5-CRYPT}$1$$ysVNzQc4CTMkp5daOdZ.3/", "secret"},
	{"MD5 as md5-crypt", "{MD5}$1$kMsLgOcK$6ckMINn9opystD6qGbzsJ.", "secret"},
	{"MD5 as hex digest", "{MD5}5ebe2294ecd0e0f08eab7690d2a6ee69", "secret"},
	{"MD5 as base64 digest", "{MD5}Xr4ilOzQ4PCOq3aQ0qbuaQ==", "secret"},
	{"DES-CRYPT", "{DES-CRYPT}.fk9zytwqdBZQ", "secret"},
	{"DES-CRYPT, eight octets count", "{CRYPT}.fk9zytwqdBZQ", "secret"},
	{"CRYPT with bcrypt", "{CRYPT}$2y$05$oj4b2w/SH3YsA5GICJkcfuiumFEeNB0ecFYfyN7FZFVDmTnqLWU9i", "secret"},
	{"BLF-CRYPT", "{BLF-CRYPT}$2y$05$uay6wmhQm0FFJsvDnU1xpOQG5UwyteUPK8qr64OX5IgFCgqvWn.pi", "secret"},
	{"BLF-CRYPT, empty", "{BLF-CRYPT}$2y$04$32.zN38N2KYgZvg2o8LoeONjbAD5L95sMGolRhTObewfT53uULZEK", ""},
	{"SHA256-CRYPT", "{SHA256-CRYPT}$5$c4f/8rxZ6kJ4LnPT$4wq3invfphtVLZLJUkAChE2WEhBY4RmZ8/pSS8MGv08", "secret"},
	{"SHA512-CRYPT", "{SHA512-CRYPT}$6$qniKPDWMhtrMQLOD$jtVgO7aU.0/d/NVQzULH5JdSuNJDISMzbCwspHntCtjbvmVLI2DZy0tgqYOp30ViV5GIBEauYiskG5LEKP.TF1", "secret"},
	{"SHA512-CRYPT holding another crypt", "{SHA512-CRYPT}$1$0vgEzPVj$DBqSq2gkrl1lr.VcJvEVC.", "secret"},
	{"SHA512-CRYPT with the usual rounds named", "{SHA512-CRYPT}$6$rounds=5000$abc$IdWKNKTJEb8LxY7CGg8YBXlvtfZzFw7Mp/r6niK9YB2mdvgY..TKjv1T..8RadRt2qvUHYRLr/TsVArtr91iR1", "secret"},
	{"SHA512-CRYPT with 1000 rounds", "{SHA512-CRYPT}$6$rounds=1000$abc$MqEcPZUYRGGcOeq7PhMpfjfu/F0HrVEI0OlZBijWvO8mSG77iNUDP5MqFceKpJTBc8iITVtNyLiNTRNCxv6oh0", "secret"},
	{"SHA512-CRYPT without a salt", "{SHA512-CRYPT}$6$$2M9DchxW4txWyTYoZrH9D3VvAAQxBpEezYsLY6Cao.jwzEXpyL9xwip9hiUZX7GqTqe/E/z6iKvZqXUuqniQH.", "secret"},
	{"SHA256-CRYPT with 1000 rounds", "{SHA256-CRYPT}$5$rounds=1000$a$JdAKMvsrk7egGbpqdXqpKD4FMOs3L5rCSG.Wjkzh2n3", "secret"},
	{"SHA512-CRYPT, Drepper's first vector", "{SHA512-CRYPT}$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1", "Hello world!"},
	{"SHA256-CRYPT, Drepper's first vector", "{SHA256-CRYPT}$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5", "Hello world!"},
	{"SHA512-CRYPT, Drepper's second vector with its salt cut", "{SHA512-CRYPT}$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.", "Hello world!"},
	{"bcrypt of 8-bit octets", "{CRYPT}$2y$05$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e", "\xff\xff\xa3"},
	{"bcrypt of 8-bit octets and digits", "{CRYPT}$2y$05$/OK.fbVrR/bpIqNJ5ianF.nRht2l/HRhr6zmCp9vYUvvsqynflf9e", "\xff\xa3345"},
	{"yescrypt", "{CRYPT}$y$j9T$abcdefgh$IUWJt2doU4Kf6E/JP1UkAT3S5O3Q7SSA8SJirXIlEu9", "secret"},
	{"yescrypt, write once", "{CRYPT}$y$/75$abcdefgh$jnijCVbMELG6cyUYTUDSRDfCqfDxH4yKX4iBPAkccZ3", "secret"},
	{"yescrypt with p", "{CRYPT}$y$j750..$abcd$Lb9Tv2gA5rhVMDJkW1a1JEO/H5FD.UZf2421jmRly91", "secret"},
	{"yescrypt with t", "{CRYPT}$y$j75//$$2Kx1zKvJdn881ddvSQHxftztBnQq8Ul7oV6T21jnKn0", "secret"},
	{"yescrypt, no password and no salt", "{CRYPT}$y$j75$$k3/RXWgfuXdQ./MyGwcEs.LrD4d.k/Vvg9CTtKCC1.B", ""},
	{"scrypt", "{CRYPT}$7$86..../....SodiumChloride$TaDtHWKU41v4X6YmolM14yNelhNnv8K0esvBKQZ/EJ8", "secret"},
	{"scrypt with p=3", "{CRYPT}$7$86....1....a$ZbfLSYwJCY.kTzlc9nuc5GhDeD8Wfb9GTTC6DJJYcqB", "secret"},
	{"NT", "{CRYPT}$3$$878d8014606cda29677a44efa1353fc7", "secret"},
	{"SunMD5", "{CRYPT}$md5,rounds=10$salt$$igdAQkD4Cuo09S9zBr9gA1", "secret"},
	{"SunMD5 with one $ before the hash", "{CRYPT}$md5,rounds=10$salt$1nTC2XlFuUhkTY4Hqn.xl1", "secret"},
	{"SunMD5 with $rounds", "{CRYPT}$md5$rounds=10$salt$$jjO3SQj1rSvOAYpQlQkK2/", "secret"},
	{"sha1-crypt", "{CRYPT}$sha1$1000$salt$8jAzD0wdO9Nt9BiOxLRcu50VwbnD", "secret"},
	{"BSDi's DES", "{CRYPT}_J9..saltLXKE4peqNCg", "secret"},
	{"BSDi's DES with a long password", "{CRYPT}_J9..salt.8QL.FAxy/o", "a long password of this kind"},
	{"bigcrypt", "{CRYPT}abhqhiWnMDuHUw7WMKVJaDGkZIeYqlM4eJErO17s8GYogQ", "a long password of this kind"},
	{"bcrypt 2b", "{CRYPT}$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW", "secret"},
	{"bcrypt 2x of 8-bit octets", "{CRYPT}$2x$04$abcdefghijklmnopqrstuuRYRX5VC4nthKo7h6U37SxyZazTR0WNK", "\xa3\xff\xff"},
	{"bcrypt 2a where 2x has a collision", "{CRYPT}$2a$04$abcdefghijklmnopqrstuuZQhQBRpiYJCaQFgyHlB.t/F01cqLCIu", "\xff\xff\xa3"},
	{"bcrypt 2y of the same", "{CRYPT}$2y$04$abcdefghijklmnopqrstuuMOaOTHB4gEm.rriBjXNwBNh.Oc4mKGG", "\xff\xff\xa3"},
	{"bcrypt 2a of other 8-bit octets", "{CRYPT}$2a$04$abcdefghijklmnopqrstuu0TMUC2aQTU2IsT.N9UqwuGobWxo/yna", "\xff\x61\xa3\x62"},
	{"ARGON2ID", "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$N1f5v6UDJ1qqTsBTt7o4eA$AdQvz+R1YTnSipj6hcP1v2PpGprwxWOznc0ygMQI8XA", "secret"},
	{"ARGON2I", "{ARGON2I}$argon2i$v=19$m=32768,t=4,p=1$S+oBKhXUhFzNc388i1O79w$kpoD72+v3jSnHbRRTXF5DYBniZgeo/KmOfFF3scabEw", "secret"},
	{"ARGON2ID holding argon2i", "{ARGON2ID}$argon2i$v=19$m=32768,t=4,p=1$PhKRDAiyHzX/BhnEshlkmQ$pf1kuTJrA9ZtN/uo12cESy8lXMIDNNIfYC7gU5uU9oI", "secret"},
	{"PBKDF2", "{PBKDF2}$1$sf2uPdpcJK2a8ab4$5000$d8343c766b26f782f0a56980542923b558b6a617", "secret"},
	{"PBKDF2 with capitals", "{PBKDF2}$1$fzRuy1Na83KPLIQr$5000$83DAC9f979b2c819a9b70c3659585315479bc390", "secret"},
	{"CRAM-MD5", "{CRAM-MD5}cd3ba7deaad6e5ca23448ba42e379747a9e0f7f1fbc00c8a81bbaac395731b56", "secret"},
	{"HMAC-MD5", "{HMAC-MD5}cd3ba7deaad6e5ca23448ba42e379747a9e0f7f1fbc00c8a81bbaac395731b56", "secret"},
	{"SCRAM-SHA-1", "{SCRAM-SHA-1}4096,2dHpfBASCGj7LJTBPadYdQ==,EF+KQSjeR+mjs7olF8L/KkDxwXk=,zGdifLP0TZ1SPf/PN9dkVP248sM=", "secret"},
	{"SCRAM-SHA-1 with a blank behind it", "{SCRAM-SHA-1}4096,2dHpfBASCGj7LJTBPadYdQ==,EF+KQSjeR+mjs7olF8L/KkDxwXk=,zGdifLP0TZ1SPf/PN9dkVP248sM= ", "secret"},
	{"SCRAM-SHA-256", "{SCRAM-SHA-256}4096,euP7UU+fQB43rS4cL/lHeg==,YaGa90KiCQen8MnjDlcTVshhWLKZkSKZZDbDd53uLm4=,C09n5pa4R5buJLbfTViWKhXe5HTQp/6hevvnHlDQmPo=", "secret"},
}

const vectorUser = "test@example.com"

func TestVerifyHandles(t *testing.T) {
	for _, tt := range vectors {
		t.Run(tt.name, func(t *testing.T) {
			for password, want := range map[string]bool{
				tt.password:          true,
				tt.password + "\x00": false,
				"x" + tt.password:    false,
				"Secret":             false,
			} {
				got, err := Verify(tt.stored, []byte(password), vectorUser)
				if err != nil || got != want {
					t.Errorf("Verify(%q, %q) = %v, %v; want %v, nil", tt.stored, password, got, err, want)
				}
			}
		})
	}
}

func TestVerifyIsNeverTrueFor(t *testing.T) {
	long := strings.Repeat("x", maxPassword+1)
	for _, tt := range []struct {
		name, stored, password string
		err                    error
	}{
		{"an empty value", "", "", ErrUnknownScheme},
		{"a value without a scheme", "secret", "secret", ErrUnknownScheme},
		{"an open brace", "{PLAIN", "", ErrUnknownScheme},
		{"an empty scheme", "{}secret", "secret", ErrUnknownScheme},
		{"a scheme nobody knows", "{XX}secret", "secret", ErrUnknownScheme},
		{"an encoding nobody knows", "{PLAIN.foo}secret", "secret", ErrUnknownScheme},
		{"two encodings", "{PLAIN.hex.hex}secret", "secret", ErrUnknownScheme},
		{"a stored value of 65 KiB", "{PLAIN}" + strings.Repeat("x", 65<<10), "x", ErrMalformed},
		{"a password of more than 16 KiB", "{PLAIN}" + long, long, nil},
		{"a password with NUL", "{PLAIN}a\x00", "a\x00", nil},
		{"half a hex digit", "{SHA.hex}foo", "secret", ErrMalformed},
		{"a digest of another length", "{SHA}Xr4ilOzQ4PCOq3aQ0qbuaQ==", "secret", ErrMalformed},
		{"base64 without padding", "{LDAP-MD5}Xr4ilOzQ4PCOq3aQ0qbuaQ", "secret", ErrMalformed},
		{"an empty digest", "{SHA256}", "", ErrMalformed},
		{"SSHA without a salt", "{SSHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "secret", ErrMalformed},
		{"SSHA, empty", "{SSHA}", "", ErrMalformed},
		{"PLAIN-TRUNC without a length", "{PLAIN-TRUNC}secret", "secret", ErrMalformed},
		{"PLAIN-TRUNC of length 0", "{PLAIN-TRUNC}0-", "secret", ErrMalformed},
		{"PLAIN-TRUNC of a negative length", "{PLAIN-TRUNC}-1-", "secret", ErrMalformed},
		{"PLAIN-TRUNC with less than its length", "{PLAIN-TRUNC}5-sec", "secret", nil},
		{"an empty crypt hash", "{CRYPT}", "", nil},
		{"a locked crypt hash", "{CRYPT}*", "*", nil},
		{"a locked crypt hash with a hash behind", "{SHA512-CRYPT}!$6$abc$x", "secret", nil},
		{"a locked BLF-CRYPT hash", "{BLF-CRYPT}!!", "!!", nil},
		{"crypt(3)'s failure token", "{CRYPT}*0", "*0", nil},
		{"MD5 locked", "{MD5}*", "", nil},
		{"a crypt format nobody knows", "{CRYPT}$9$abc$def", "secret", ErrMalformed},
		{"crypt without a format", "{CRYPT}$", "", ErrMalformed},
		{"crypt of one character", "{CRYPT}x", "x", ErrMalformed},
		{"DES with a foreign character", "{DES-CRYPT}.fk9zytwqdBZ=", "secret", ErrMalformed},
		{"BLF-CRYPT with md5-crypt", "{BLF-CRYPT}$1$0vgEzPVj$DBqSq2gkrl1lr.VcJvEVC.", "secret", ErrMalformed},
		{"bcrypt too short", "{CRYPT}$2y$05$short", "secret", ErrMalformed},
		{"bcrypt of 2z", "{CRYPT}$2z$05$oj4b2w/SH3YsA5GICJkcfuiumFEeNB0ecFYfyN7FZFVDmTnqLWU9i", "secret", ErrMalformed},
		{"bcrypt whose salt ends with bits that are none", "{CRYPT}$2y$05$oj4b2w/SH3YsA5GICJkcfviumFEeNB0ecFYfyN7FZFVDmTnqLWU9i", "secret", nil},
		{"yescrypt cut off", "{CRYPT}$y$j9T$abcdefgh$IUWJt2doU4Kf6E", "secret", ErrMalformed},
		{"yescrypt without parameters", "{CRYPT}$y$" + strings.Repeat(".", 60), "secret", ErrMalformed},
		{"yescrypt of a flavour nobody knows", "{CRYPT}$y$k85$abcd$" + strings.Repeat(".", 43), "secret", ErrMalformed},
		{"yescrypt with a ROM", "{CRYPT}$y$j756.$abcd$" + strings.Repeat(".", 43), "secret", ErrMalformed},
		{"yescrypt with half an octet of salt", "{CRYPT}$y$j85$a$" + strings.Repeat(".", 43), "secret", ErrMalformed},
		{"yescrypt with 65 octets of salt", "{CRYPT}$y$j85$" + strings.Repeat("./..", 22) + "$" + strings.Repeat(".", 43), "secret", ErrMalformed},
		{"yescrypt with 4 GiB", "{CRYPT}$y$jHT$abcd$" + strings.Repeat(".", 43), "secret", ErrTooCostly},
		{"yescrypt with 2^64 octets", "{CRYPT}$y$jwzzzzz$abcd$" + strings.Repeat(".", 43), "secret", ErrMalformed},
		{"yescrypt with many passes", "{CRYPT}$y$j9T/xzzz$abcd$" + strings.Repeat(".", 43), "secret", ErrTooCostly},
		{"scrypt with N=2", "{CRYPT}$7$/..../....a$VP/UWQVlxWKpNW6OjUzvxQwvHBSc2HCOiTXAR4NzRP8", "secret", ErrMalformed},
		{"scrypt with N=2^63", "{CRYPT}$7$z6..../....a$" + strings.Repeat(".", 43), "secret", ErrTooCostly},
		{"scrypt with many lanes", "{CRYPT}$7$C6....zz...a$" + strings.Repeat(".", 43), "secret", ErrTooCostly},
		{"scrypt with a lane more than fits", "{CRYPT}$7$C6....zzzzza$" + strings.Repeat(".", 43), "secret", ErrMalformed},
		{"NT cut off", "{CRYPT}$3$$878d8014606cda29677a44efa1353f", "secret", ErrMalformed},
		{"NT in capitals, which crypt(3) does not write", "{CRYPT}$3$$878D8014606CDA29677A44EFA1353FC7", "secret", nil},
		{"SunMD5 cut off", "{CRYPT}$md5$salt$$igdA", "secret", ErrMalformed},
		{"SunMD5 with no salt", "{CRYPT}$md5,rounds=10" + strings.Repeat(".", 22), "secret", ErrMalformed},
		{"SunMD5 with two salts", "{CRYPT}$md5$a$b$$" + strings.Repeat(".", 22), "secret", ErrMalformed},
		{"SunMD5 with many rounds", "{CRYPT}$md5,rounds=4294963199$salt$$" + strings.Repeat(".", 22), "secret", ErrTooCostly},
		{"sha1-crypt cut off", "{CRYPT}$sha1$1000$salt$", "secret", ErrMalformed},
		{"sha1-crypt with many rounds", "{CRYPT}$sha1$4294967295$salt$" + strings.Repeat(".", 28), "secret", ErrTooCostly},
		{"BSDi's DES with a high count", "{CRYPT}_zzzzsalt" + strings.Repeat(".", 11), "secret", ErrTooCostly},
		{"BSDi's DES cut off", "{CRYPT}_J9..saltLXKE4peqNC", "secret", ErrMalformed},
		{"bigcrypt of another length than the password's", "{CRYPT}ab" + strings.Repeat(".", 22), "secret", nil},
		{"bigcrypt of 17 parts", "{CRYPT}ab" + strings.Repeat(".", 17*11), "secret", ErrMalformed},
		{"bcrypt with cost 3", "{CRYPT}$2y$03$oj4b2w/SH3YsA5GICJkcfuiumFEeNB0ecFYfyN7FZFVDmTnqLWU9i", "secret", ErrMalformed},
		{"bcrypt with cost 32", "{CRYPT}$2y$32$oj4b2w/SH3YsA5GICJkcfuiumFEeNB0ecFYfyN7FZFVDmTnqLWU9i", "secret", ErrMalformed},
		{"bcrypt with cost 17", "{CRYPT}$2y$17$oj4b2w/SH3YsA5GICJkcfuiumFEeNB0ecFYfyN7FZFVDmTnqLWU9i", "secret", ErrTooCostly},
		{"bcrypt with cost +5", "{CRYPT}$2y$+5$oj4b2w/SH3YsA5GICJkcfuiumFEeNB0ecFYfyN7FZFVDmTnqLWU9i", "secret", ErrMalformed},
		{"bcrypt with a foreign character", "{CRYPT}$2y$05$=j4b2w/SH3YsA5GICJkcfuiumFEeNB0ecFYfyN7FZFVDmTnqLWU9i", "secret", ErrMalformed},
		{"SHA512-CRYPT cut off", "{SHA512-CRYPT}$6$abc$", "secret", ErrMalformed},
		{"SHA512-CRYPT with a salt alone", "{SHA512-CRYPT}$6$abc", "secret", ErrMalformed},
		{"SHA512-CRYPT with a long salt", "{SHA512-CRYPT}$6$12345678901234567$" + strings.Repeat(".", 86), "secret", ErrMalformed},
		{"SHA512-CRYPT with a colon", "{SHA512-CRYPT}$6$a:b$" + strings.Repeat(".", 86), "secret", ErrMalformed},
		{"SHA512-CRYPT with an 8-bit salt", "{SHA512-CRYPT}$6$\xe9$" + strings.Repeat(".", 86), "secret", ErrMalformed},
		{"SHA512-CRYPT with 999 rounds", "{SHA512-CRYPT}$6$rounds=999$abc$" + strings.Repeat(".", 86), "secret", ErrMalformed},
		{"SHA512-CRYPT with 01000 rounds", "{SHA512-CRYPT}$6$rounds=01000$abc$" + strings.Repeat(".", 86), "secret", ErrMalformed},
		{"SHA512-CRYPT with 999999999 rounds", "{SHA512-CRYPT}$6$rounds=999999999$abc$" + strings.Repeat(".", 86), "secret", ErrTooCostly},
		{"SHA512-CRYPT with 2^64 rounds", "{SHA512-CRYPT}$6$rounds=18446744073709551616$abc$" + strings.Repeat(".", 86), "secret", ErrMalformed},
		{"SHA512-CRYPT with rounds and no more", "{SHA512-CRYPT}$6$rounds=5000", "secret", ErrMalformed},
		{"MD5-CRYPT cut off", "{MD5-CRYPT}$1$abc", "secret", ErrMalformed},
		{"MD5-CRYPT with bcrypt", "{MD5-CRYPT}$2y$05$uay6wmhQm0FFJsvDnU1xpOQG5UwyteUPK8qr64OX5IgFCgqvWn.pi", "secret", ErrMalformed},
		{"MD5-CRYPT as a digest", "{MD5-CRYPT}5ebe2294ecd0e0f08eab7690d2a6ee69", "secret", ErrMalformed},
		{"MD5 as nothing known", "{MD5}zz", "secret", ErrMalformed},
		{"ARGON2ID as nothing known", "{ARGON2ID}foo", "secret", ErrMalformed},
		{"ARGON2ID, empty", "{ARGON2ID}", "", nil},
		{"argon2d", "{ARGON2ID}$argon2d$v=19$m=64,t=1,p=1$N1f5v6UDJ1qqTsBTt7o4eA$AdQvz+R1YTnSipj6hcP1v2PpGprwxWOznc0ygMQI8XA", "secret", ErrMalformed},
		{"argon2 of version 16", "{ARGON2ID}$argon2id$v=16$m=64,t=1,p=1$N1f5v6UDJ1qqTsBTt7o4eA$AdQvz+R1YTnSipj6hcP1v2PpGprwxWOznc0ygMQI8XA", "secret", ErrMalformed},
		{"argon2 with 4 GiB", "{ARGON2ID}$argon2id$v=19$m=4194304,t=1,p=1$N1f5v6UDJ1qqTsBTt7o4eA$AdQvz+R1YTnSipj6hcP1v2PpGprwxWOznc0ygMQI8XA", "secret", ErrTooCostly},
		{"argon2 with 2^32 KiB", "{ARGON2ID}$argon2id$v=19$m=4294967296,t=1,p=1$N1f5v6UDJ1qqTsBTt7o4eA$AdQvz+R1YTnSipj6hcP1v2PpGprwxWOznc0ygMQI8XA", "secret", ErrTooCostly},
		{"argon2 with many passes", "{ARGON2ID}$argon2id$v=19$m=65536,t=1000000,p=1$N1f5v6UDJ1qqTsBTt7o4eA$AdQvz+R1YTnSipj6hcP1v2PpGprwxWOznc0ygMQI8XA", "secret", ErrTooCostly},
		{"argon2 with no pass", "{ARGON2ID}$argon2id$v=19$m=64,t=0,p=1$N1f5v6UDJ1qqTsBTt7o4eA$AdQvz+R1YTnSipj6hcP1v2PpGprwxWOznc0ygMQI8XA", "secret", ErrMalformed},
		{"argon2 with no lane", "{ARGON2ID}$argon2id$v=19$m=64,t=1,p=0$N1f5v6UDJ1qqTsBTt7o4eA$AdQvz+R1YTnSipj6hcP1v2PpGprwxWOznc0ygMQI8XA", "secret", ErrMalformed},
		{"argon2 with 256 lanes", "{ARGON2ID}$argon2id$v=19$m=65536,t=1,p=256$N1f5v6UDJ1qqTsBTt7o4eA$AdQvz+R1YTnSipj6hcP1v2PpGprwxWOznc0ygMQI8XA", "secret", ErrTooCostly},
		{"argon2 with too little memory for its lanes", "{ARGON2ID}$argon2id$v=19$m=8,t=1,p=2$N1f5v6UDJ1qqTsBTt7o4eA$AdQvz+R1YTnSipj6hcP1v2PpGprwxWOznc0ygMQI8XA", "secret", ErrMalformed},
		{"argon2 with another order", "{ARGON2ID}$argon2id$v=19$t=1,m=64,p=1$N1f5v6UDJ1qqTsBTt7o4eA$AdQvz+R1YTnSipj6hcP1v2PpGprwxWOznc0ygMQI8XA", "secret", ErrMalformed},
		{"argon2 without a salt", "{ARGON2ID}$argon2id$v=19$m=64,t=1,p=1$$AdQvz+R1YTnSipj6hcP1v2PpGprwxWOznc0ygMQI8XA", "secret", ErrMalformed},
		{"argon2 with a hash of one octet", "{ARGON2ID}$argon2id$v=19$m=64,t=1,p=1$N1f5v6UDJ1qqTsBTt7o4eA$AA", "secret", ErrMalformed},
		{"PBKDF2 of another kind", "{PBKDF2}$2$sf2uPdpcJK2a8ab4$5000$d8343c766b26f782f0a56980542923b558b6a617", "secret", ErrMalformed},
		{"PBKDF2 without rounds", "{PBKDF2}$1$sf2uPdpcJK2a8ab4$0$d8343c766b26f782f0a56980542923b558b6a617", "secret", ErrMalformed},
		{"PBKDF2 with 2^31 rounds", "{PBKDF2}$1$sf2uPdpcJK2a8ab4$2147483648$d8343c766b26f782f0a56980542923b558b6a617", "secret", ErrTooCostly},
		{"PBKDF2 cut off", "{PBKDF2}$1$sf2uPdpcJK2a8ab4$5000$", "secret", ErrMalformed},
		{"SCRAM with 100 iterations", "{SCRAM-SHA-1}100,2dHpfBASCGj7LJTBPadYdQ==,EF+KQSjeR+mjs7olF8L/KkDxwXk=,zGdifLP0TZ1SPf/PN9dkVP248sM=", "secret", ErrMalformed},
		{"SCRAM with too many iterations", "{SCRAM-SHA-1}4000001,2dHpfBASCGj7LJTBPadYdQ==,EF+KQSjeR+mjs7olF8L/KkDxwXk=,zGdifLP0TZ1SPf/PN9dkVP248sM=", "secret", ErrTooCostly},
		{"SCRAM without keys", "{SCRAM-SHA-1}4096,2dHpfBASCGj7LJTBPadYdQ==,,", "secret", ErrMalformed},
		{"SCRAM cut off", "{SCRAM-SHA-1}foo", "secret", ErrMalformed},
		{"SCRAM with wrong base64", "{SCRAM-SHA-1}4096,*,EF+KQSjeR+mjs7olF8L/KkDxwXk=,zGdifLP0TZ1SPf/PN9dkVP248sM=", "secret", ErrMalformed},
		{"DIGEST-MD5 of another user", "{DIGEST-MD5}00000000000000000000000000000000", "secret", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Verify(tt.stored, []byte(tt.password), vectorUser)
			if got || !errors.Is(err, tt.err) {
				t.Errorf("Verify(%.80q, %.20q) = %v, %v; want false, %v", tt.stored, tt.password, got, err, tt.err)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error shows the secret: %v", err)
			}
		})
	}
}

// hashable passwords for every scheme: 8-bit, blanks, braces, longer than bcrypt's
// 72 octets and md5's block of 64.
var samplePasswords = [][]byte{
	[]byte("a"),
	[]byte("correct horse battery staple"),
	[]byte("{PLAIN}\t$1$ \\ '\"%u"),
	[]byte("p\xe4ssw\xf6rd"),
	[]byte("пароль-密码"),
	{0xff, 0xfe, 0x80, 0x01},
	bytes.Repeat([]byte("0123456789abcdef"), 9),
}

func TestHashThenVerify(t *testing.T) {
	for _, name := range Known() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, suffix := range []string{"", ".hex", ".b64"} {
				for i, password := range samplePasswords {
					slow := strings.HasPrefix(name, "ARGON2")
					if i > 1 && suffix != "" || slow && (i > 0 || suffix == ".b64") {
						continue
					}
					stored, err := HashWith(name+suffix, password, Options{User: vectorUser})
					if err != nil {
						t.Fatalf("HashWith(%s, %q): %v", name+suffix, password, err)
					}
					other := append([]byte("!"), password...)
					for _, try := range []struct {
						password []byte
						want     bool
					}{{password, true}, {other, false}, {nil, false}} {
						got, err := Verify(stored, try.password, vectorUser)
						if err != nil || got != try.want {
							t.Errorf("Verify(%q, %q) = %v, %v; want %v, nil", stored, try.password, got, err, try.want)
						}
					}
				}
			}
		})
	}
}

func TestHashRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, scheme string
		password     []byte
		options      Options
		err          error
	}{
		{"a NUL", "PLAIN", []byte("a\x00b"), Options{}, ErrPassword},
		{"a password of 512 octets for crypt", "SHA512-CRYPT", make512(), Options{}, ErrPassword},
		{"DIGEST-MD5 without a user", "DIGEST-MD5", []byte("a"), Options{}, ErrPassword},
		{"a scheme nobody knows", "FOO", []byte("a"), Options{}, ErrUnknownScheme},
		{"bcrypt with cost 3", "BLF-CRYPT", []byte("a"), Options{Rounds: 3}, ErrTooCostly},
		{"bcrypt with cost 40", "BLF-CRYPT", []byte("a"), Options{Rounds: 40}, ErrTooCostly},
		{"negative rounds", "SHA512-CRYPT", []byte("a"), Options{Rounds: -1}, ErrTooCostly},
		{"too many passes", "ARGON2ID", []byte("a"), Options{Rounds: 1 << 30}, ErrTooCostly},
	} {
		if got, err := HashWith(tt.scheme, tt.password, tt.options); !errors.Is(err, tt.err) || got != "" {
			t.Errorf("%s: HashWith(%s) = %q, %v; want %v", tt.name, tt.scheme, got, err, tt.err)
		}
	}
}

func make512() []byte { return bytes.Repeat([]byte("x"), 512) }

func TestHashUsesItsOptions(t *testing.T) {
	for _, tt := range []struct{ scheme, prefix string }{
		{"SHA512-CRYPT", "{SHA512-CRYPT}$6$rounds=1200$"},
		{"pbkdf2", "{PBKDF2}$1$"},
		{"sha.hex", "{SHA.HEX}"},
	} {
		got, err := HashWith(tt.scheme, []byte("a"), Options{Rounds: 1200})
		if err != nil || !strings.HasPrefix(got, tt.prefix) {
			t.Errorf("HashWith(%s) = %q, %v; want prefix %q", tt.scheme, got, err, tt.prefix)
		}
	}
}

func TestTwoHashesDiffer(t *testing.T) {
	unsalted := []string{"CLEAR", "CLEARTEXT", "CRAM-MD5", "DIGEST-MD5", "HMAC-MD5", "LDAP-MD5", "PLAIN", "PLAIN-MD4", "PLAIN-MD5", "PLAIN-TRUNC", "SHA", "SHA1", "SHA256", "SHA512"}
	for _, name := range Known() {
		if name == "ARGON2I" {
			continue // the same code as ARGON2ID, which is slow enough
		}
		a, _ := HashWith(name, []byte("secret"), Options{User: "u"})
		same := true
		for range 12 { // of the salts of DES-CRYPT one in 4096 is the one before
			b, _ := HashWith(name, []byte("secret"), Options{User: "u"})
			if same = a == b; !same {
				break
			}
		}
		if same != slices.Contains(unsalted, name) {
			t.Errorf("%s: two hashes are equal: %v", name, same)
		}
	}
}

func TestBcryptCounts72Octets(t *testing.T) {
	stored, err := Hash("BLF-CRYPT", bytes.Repeat([]byte("x"), 100))
	if err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int]bool{71: false, 72: true, 73: true, 511: true, 512: false} {
		got, err := Verify(stored, bytes.Repeat([]byte("x"), n), "")
		if err != nil || got != want {
			t.Errorf("%d octets: %v, %v; want %v, nil", n, got, err, want)
		}
	}
}

func TestSpendTakesAnything(t *testing.T) {
	for _, like := range append(Known(), "", "{", "{XX}y", "XX", "{SHA512-CRYPT}$6$abc$", "sha512-crypt", "SHA.hex") {
		Spend(like, []byte("secret"))
	}
	Spend("PLAIN", []byte("nobody"))
}

// FuzzVerify: no stored value makes Verify panic, accept a password with NUL, or
// answer both "true" and an error; and a value made from the same password is true.
func FuzzVerify(f *testing.F) {
	for _, tt := range vectors {
		if strings.Contains(tt.stored, "$argon2") || strings.Contains(tt.stored, "$2y$") || strings.Contains(tt.stored, "$j9T$") {
			continue // too slow to vary; small ones follow
		}
		f.Add(tt.stored, []byte(tt.password))
	}
	f.Add("{ARGON2ID}$argon2id$v=19$m=8,t=1,p=1$N1f5v6UDJ1qqTsBTt7o4eA$AdQvz+R1YTnSipj6hcP1v2PpGprwxWOznc0ygMQI8XA", []byte("x"))
	f.Add("{CRYPT}$2y$04$32.zN38N2KYgZvg2o8LoeONjbAD5L95sMGolRhTObewfT53uULZEK", []byte(""))
	f.Add("12345", bytes.Repeat([]byte("long"), 200)) // crypt(3) hashes no such password
	cheap := []string{"PLAIN", "SSHA512", "SMD5", "MD5-CRYPT", "CRAM-MD5", "DES-CRYPT", "SHA256.hex"}
	f.Fuzz(func(t *testing.T, stored string, password []byte) {
		memory := Memory(stored)
		if memory < 0 || memory > MaxMemory {
			t.Fatalf("Memory(%q) = %d", stored, memory)
		}
		if memory > 16<<20 {
			return // allowed, but seconds
		}
		ok, err := Verify(stored, password, vectorUser)
		if ok && (err != nil || bytes.IndexByte(password, 0) >= 0) {
			t.Errorf("Verify(%q, %q) = %v, %v", stored, password, ok, err)
		}
		name := cheap[len(stored)%len(cheap)]
		made, err := Hash(name, password)
		if err != nil {
			if !errors.Is(err, ErrPassword) {
				t.Errorf("Hash(%s, %q): %v", name, password, err)
			}
			return
		}
		if ok, err := Verify(made, password, ""); !ok || err != nil {
			t.Errorf("Verify(%q, %q) = %v, %v; want true", made, password, ok, err)
		}
		if name == "DES-CRYPT" {
			return // only seven bits of eight octets count
		}
		if ok, _ := Verify(made, append([]byte("x"), password...), ""); ok {
			t.Errorf("%q also takes another password", made)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	for _, tt := range vectors {
		switch tt.name {
		case "SHA512-CRYPT", "SHA256-CRYPT", "MD5-CRYPT", "DES-CRYPT", "BLF-CRYPT", "ARGON2ID", "SSHA", "PBKDF2":
			b.Run(tt.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if ok, _ := Verify(tt.stored, []byte(tt.password), ""); !ok {
						b.Fatal("not verified")
					}
				}
			})
		}
	}
}
