// Package stack boots a private mail server in one directory: MariaDB, Postfix,
// Dovecot, and dovepost's daemons beside them. It needs root and the real
// programs; it touches neither /etc nor a running mail server, uses loopback
// ports that no other stack of this machine has, and needs no systemd.
//
// It serves the demonstration, the end-to-end tests and the benchmarks. What it
// starts ends with it: by Stop, and also when the process that called it dies,
// however that happens.
package stack
