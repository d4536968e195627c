package store

import (
	"context"
	"errors"
	"testing"

	"dovepost/auth"
	"dovepost/lookup"
)

// One lookup is one round trip: the figures are close to that of a bare SELECT.
func BenchmarkLookup(b *testing.B) {
	for name, host := range map[string]string{"unix": socket(), "inet": db.Addr()} {
		for key, found := range map[string]bool{"alice@example.com": true, "nobody@example.com": false} {
			m, _ := table(b, cfFile(b, usersQuery+account(host)), 8)
			b.Run(name+"/"+key, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					_, err := m.Lookup(context.Background(), key)
					if found != (err == nil) || !found && !errors.Is(err, lookup.ErrNotFound) {
						b.Fatal(err)
					}
				}
			})
			b.Run(name+"/"+key+"/parallel", func(b *testing.B) {
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						m.Lookup(context.Background(), key)
					}
				})
			})
		}
	}
}

func BenchmarkLookupUser(b *testing.B) {
	d, _ := openSQL(b, "dovecot-seed.conf.ext", db.Socket())
	r := &auth.Request{User: "alice@example.com", Service: "imap"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.LookupUser(context.Background(), r); err != nil {
			b.Fatal(err)
		}
	}
}
