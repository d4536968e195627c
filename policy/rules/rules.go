// Package rules holds the rules of policyd, one file each. A rule is a
// policy.Decider that knows neither the wire nor SQL: what it must ask, it asks
// through a narrow interface of its own.
package rules
