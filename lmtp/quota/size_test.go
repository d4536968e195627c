package quota

import (
	"math"
	"strings"
	"testing"
)

func TestSizeFile(t *testing.T) {
	tests := []struct {
		name, in string
		want     sizeFile
	}{
		{"it handles a new file", "20480S\n0 0\n", sizeFile{Limits{Bytes: 20480}, usage{}, 1, 0}},
		{"it sums up", "20480S,10C\n100 1\n50 1\n-100 -1\n", sizeFile{Limits{20480, 10}, usage{50, 1}, 3, 0}},
		{"it handles no limits", "0S\n100 1\n", sizeFile{Limits{}, usage{100, 1}, 1, 0}},
		{"it handles limits in any order", "5C,7S\n1 1\n", sizeFile{Limits{7, 5}, usage{1, 1}, 1, 0}},
		{"it handles limits that it does not know", "7S,9X\n1 1\n", sizeFile{Limits{Bytes: 7}, usage{1, 1}, 1, 0}},
		{"it handles an empty header", "\n1 1\n", sizeFile{Limits{}, usage{1, 1}, 1, 0}},
		{"it skips a line that is being written", "7S\n1 1\n12345", sizeFile{Limits{Bytes: 7}, usage{1, 1}, 1, 0}},
		{"it handles signs and more words", "7S\n+10 +2 x\n-3\t-1 4\r\n", sizeFile{Limits{Bytes: 7}, usage{7, 1}, 2, 0}},
		{"it handles leading zeros", "7S\n0000000000000000000000000000010 001\n", sizeFile{Limits{Bytes: 7}, usage{10, 1}, 1, 0}},
		{"it handles the largest numbers", "7S\n4611686018427387903 2147483647\n", sizeFile{Limits{Bytes: 7}, usage{math.MaxInt64 / 2, math.MaxInt32}, 1, 0}},
		{"it handles padded lines", "7S\n           1            1\n", sizeFile{Limits{Bytes: 7}, usage{1, 1}, 1, 0}},
	}
	for _, tt := range tests {
		got, err := parseSizeFile([]byte(tt.in))
		if err != nil || got != tt.want {
			t.Errorf("%s: parseSizeFile(%q) = %+v, %v; want %+v", tt.name, tt.in, got, err, tt.want)
		}
	}
	for _, in := range []string{
		"", "7S", "7S\n", "7S\n1 1", "7S\n1\n", "7S\nx 1\n", "7S\n1 x\n", "7S\n\n", "7S\n-1 0\n", "7S\n1 -1\n", "7S\n1 1\x00\n",
		"7S\n9223372036854775807 1\n9223372036854775807 1\n", "7S\n4611686018427387904 1\n", "7S\n-9223372036854775809 1\n5 1\n",
		"7S\n99999999999999999999999999 1\n", "7S\n1 2147483648\n", "7S\n1x 1\n", "7S\n- 1\n", "7S\n1 --1\n", "7S\n1\n1\n", "7S\n" + strings.Repeat("1 1\n", 1300),
	} {
		if got, err := parseSizeFile([]byte(in)); err == nil {
			t.Errorf("parseSizeFile(%.20q) = %+v; want an error", in, got)
		}
	}
}

// What is read and written anew reads the same, and one more line adds to it.
func FuzzSizeFile(f *testing.F) {
	f.Add([]byte("20480S,10C\n100 1\n50 1\n-100 -1\n"))
	f.Add([]byte("0S\n0 0\n"))
	f.Add([]byte("7C\n1 1\n5"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseSizeFile(data)
		if err != nil {
			return
		}
		out := s.append(nil)
		again, err := parseSizeFile(out)
		if err != nil || again.limits != s.limits || again.used != s.used {
			t.Fatalf("%q -> %q -> %+v, %v", data, out, again, err)
		}
		more, err := parseSizeFile(usage{5, 1}.append(out))
		if err != nil || more.used.bytes != s.used.bytes+5 || more.used.messages != s.used.messages+1 {
			t.Fatalf("%q and a line: %+v, %v", out, more, err)
		}
	})
}
