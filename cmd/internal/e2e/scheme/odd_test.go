package scheme

import (
	"strings"
	"testing"

	"dovepost/auth/scheme"
)

// Values that no doveadm makes but that may stand in a row: both must agree on
// whether the password is right.
func TestOddValues(t *testing.T) {
	for _, tt := range []struct{ name, stored, password string }{
		{"an empty password", "{PLAIN}", ""},
		{"an empty bcrypt password", "{BLF-CRYPT}$2y$04$32.zN38N2KYgZvg2o8LoeONjbAD5L95sMGolRhTObewfT53uULZEK", ""},
		{"an empty crypt value", "{CRYPT}", ""},
		{"a locked crypt value", "{CRYPT}*", "secret"},
		{"capitals and small letters in the scheme", "{Sha512-Crypt}$6$qniKPDWMhtrMQLOD$jtVgO7aU.0/d/NVQzULH5JdSuNJDISMzbCwspHntCtjbvmVLI2DZy0tgqYOp30ViV5GIBEauYiskG5LEKP.TF1", "secret"},
		{"another crypt under SHA512-CRYPT", "{SHA512-CRYPT}$1$0vgEzPVj$DBqSq2gkrl1lr.VcJvEVC.", "secret"},
		{"bcrypt under MD5-CRYPT", "{MD5-CRYPT}$2y$05$uay6wmhQm0FFJsvDnU1xpOQG5UwyteUPK8qr64OX5IgFCgqvWn.pi", "secret"},
		{"bcrypt of PHP", "{CRYPT}$2a$05$uay6wmhQm0FFJsvDnU1xpOQG5UwyteUPK8qr64OX5IgFCgqvWn.pi", "secret"},
		{"bcrypt of OpenBSD", "{CRYPT}$2b$05$uay6wmhQm0FFJsvDnU1xpOQG5UwyteUPK8qr64OX5IgFCgqvWn.pi", "secret"},
		{"md5-crypt under BLF-CRYPT", "{BLF-CRYPT}$1$0vgEzPVj$DBqSq2gkrl1lr.VcJvEVC.", "secret"},
		{"a digest under MD5-CRYPT", "{MD5-CRYPT}5ebe2294ecd0e0f08eab7690d2a6ee69", "secret"},
		{"a digest under MD5", "{MD5}5ebe2294ecd0e0f08eab7690d2a6ee69", "secret"},
		{"a salt of 17 characters", "{CRYPT}$6$12345678901234567$d2HCAnimIF5VMqUnwaZ/4JhNDJ.ttsjm0nbbmc9eE7xUYiw79GMvXUc5ZqG5BlqkXSbASZxrvR0QefAgdLbeH.", "secret"},
		{"a salt of 16 characters", "{CRYPT}$6$1234567890123456$d2HCAnimIF5VMqUnwaZ/4JhNDJ.ttsjm0nbbmc9eE7xUYiw79GMvXUc5ZqG5BlqkXSbASZxrvR0QefAgdLbeH.", "secret"},
		{"no salt", "{CRYPT}$6$$2M9DchxW4txWyTYoZrH9D3VvAAQxBpEezYsLY6Cao.jwzEXpyL9xwip9hiUZX7GqTqe/E/z6iKvZqXUuqniQH.", "secret"},
		{"999 rounds", "{CRYPT}$6$rounds=999$abc$MqEcPZUYRGGcOeq7PhMpfjfu/F0HrVEI0OlZBijWvO8mSG77iNUDP5MqFceKpJTBc8iITVtNyLiNTRNCxv6oh0", "secret"},
		{"argon2i under ARGON2ID", "{ARGON2ID}$argon2i$v=19$m=32768,t=4,p=1$PhKRDAiyHzX/BhnEshlkmQ$pf1kuTJrA9ZtN/uo12cESy8lXMIDNNIfYC7gU5uU9oI", "secret"},
		{"argon2 with two lanes", "{ARGON2ID}$argon2id$v=19$m=1024,t=2,p=2$c29tZXNhbHRzb21lc2FsdA$6b4UKew5+f7HHg6T4lQLh+TbmsNqTpKc5pdqC/I1cjI", "secret"},
		{"argon2 with a short salt and hash", "{ARGON2ID}$argon2id$v=19$m=1024,t=2,p=1$c29tZXNhbHQ$JfwpXLlxxjAvECQQk5f+Gw", "secret"},
		{"a long password of md5-crypt", "{MD5-CRYPT}$1$0vgEzPVj$DBqSq2gkrl1lr.VcJvEVC.", strings.Repeat("x", 600)},
		{"PLAIN-TRUNC, cut", "{PLAIN-TRUNC}3-sec", "secret"},
		{"PLAIN-TRUNC, not cut", "{PLAIN-TRUNC}9-sec", "secret"},
		{"DES, only eight octets count", "{DES-CRYPT}.fk9zytwqdBZQ", "secret"},
		{"hex by length", "{SSHA256}5ebe2294ecd0e0f08eab7690d2a6ee69", "secret"},
		{"base64 where hex is usual", "{PLAIN-MD5}Xr4ilOzQ4PCOq3aQ0qbuaQ==", "secret"},
		{"hex by suffix", "{LDAP-MD5.hex}5ebe2294ecd0e0f08eab7690d2a6ee69", "secret"},
		{"base64 by suffix", "{PLAIN-MD5.base64}Xr4ilOzQ4PCOq3aQ0qbuaQ==", "secret"},
		{"a suffix nobody knows", "{PLAIN-MD5.foo}Xr4ilOzQ4PCOq3aQ0qbuaQ==", "secret"},
		{"no padding", "{LDAP-MD5}Xr4ilOzQ4PCOq3aQ0qbuaQ", "secret"},
		{"blanks in base64", "{LDAP-MD5} Xr4ilOzQ4PC\tOq3aQ0qbuaQ== ", "secret"},
		{"no salt in SSHA", "{SSHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "secret"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := verified(t, tt.stored, tt.password)
			if got, err := scheme.Verify(tt.stored, []byte(tt.password), user); got != want {
				t.Errorf("Verify(%q) = %v, %v; doveadm says %v", tt.stored, got, err, want)
			}
		})
	}
}
