package session

import (
	"strings"
	"testing"
)

func TestTopReceived(t *testing.T) {
	for _, tt := range []struct {
		name, head, want string
		found            bool
	}{
		{"Postfix, from the net", "Received: from a (b [192.0.2.1])\n\tby mx.test (Postfix) with ESMTPS id 4XYZab\n\tfor <u@d>; Sun, 22 Nov 2026 07:07:18 +0000 (UTC)\nFrom: x\n\n", "4XYZab", true},
		{"Postfix, from a user", "Received: by mx.test (Postfix, from userid 0)\n\tid 5D0F1; Sun, 22 Nov 2026 07:07:18 +0000 (UTC)\n\nbody\n", "5D0F1", true},
		{"fields before it", "DKIM-Signature: v=1; a=rsa-sha256;\n\tid abc\nrEcEiVeD: by mx id Q1;\n\n", "Q1", true},
		{"the top one alone", "Received: by mx; date\nReceived: by other id Q2; date\n\n", "", true},
		{"none", "From: a\nSubject: id 7\n\nReceived: by mx id Q3;\n", "", false},
		{"no header", "Hello\nReceived: by mx id Q4;\n", "", false},
		{"no message", "", "", false},
		{"an id without a value", "Received: by mx id\n\n", "", true},
		{"a field without an end", "Received: by mx id Q5", "Q5", true},
	} {
		t.Run("it handles "+tt.name, func(t *testing.T) {
			if got, found := topReceived([]byte(tt.head)); got != tt.want || found != tt.found {
				t.Errorf("got %q, %v; want %q, %v", got, found, tt.want, tt.found)
			}
		})
	}
}

// FuzzTopReceived: an id is one word of the header.
func FuzzTopReceived(f *testing.F) {
	f.Add([]byte("Received: from a\n\tby mx (Postfix) with ESMTP id 4XYZ; date\n\nbody\n"))
	f.Add([]byte("A: b\n c\nReceived: by x id y\n"))
	f.Fuzz(func(t *testing.T, head []byte) {
		id, found := topReceived(head)
		if id != "" && !found || strings.ContainsAny(id, " \t\n;") || len(id) > 100 || !strings.Contains(string(head), id) {
			t.Errorf("%q: id %q", head, id)
		}
	})
}
