package scheme

import "testing"

func TestMemory(t *testing.T) {
	for _, tt := range []struct {
		name, stored string
		want         int64
	}{
		{"argon2id", "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$N1f5v6UDJ1qqTsBTt7o4eA$AdQvz+R1YTnSipj6hcP1v2PpGprwxWOznc0ygMQI8XA", 64 << 20},
		{"argon2id with 4 GiB, which is refused", "{ARGON2ID}$argon2id$v=19$m=4194304,t=1,p=1$N1f5v6UDJ1qqTsBTt7o4eA$AdQvz+R1YTnSipj6hcP1v2PpGprwxWOznc0ygMQI8XA", 0},
		{"yescrypt", "{CRYPT}$y$j9T$abcdefgh$IUWJt2doU4Kf6E/JP1UkAT3S5O3Q7SSA8SJirXIlEu9", 16 << 20},
		{"scrypt", "{SHA512-CRYPT}$7$C6..../....SodiumChloride$TaDtHWKU41v4X6YmolM14yNelhNnv8K0esvBKQZ/EJ8", 16 << 20},
		{"yescrypt with 4 GiB, which is refused", "{CRYPT}$y$jHT$abcd$IUWJt2doU4Kf6E/JP1UkAT3S5O3Q7SSA8SJirXIlEu9", 0},
		{"sha512-crypt", "{CRYPT}$6$abc$x", 0},
		{"a scheme without a cost", "{SSHA}/KIHUjY+vsY+g4Bw4Z+Zm5nmtgjX/hDq", 0},
		{"an encoding that is wrong", "{ARGON2ID.hex}zz", 0},
		{"no scheme", "secret", 0},
	} {
		if got := Memory(tt.stored); got != tt.want {
			t.Errorf("it handles %s: Memory = %d, want %d", tt.name, got, tt.want)
		}
	}
}
