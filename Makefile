# A bare `make` prints what there is.

DESTDIR  ?=
PREFIX   ?= /usr/local
# A count, not a time: at the end of a time `go test -fuzz` may fail with "context deadline exceeded".
FUZZTIME ?= 3000x

GO      ?= go
DAEMONS := lookupd authd lmtpd policyd
UNITS   := $(wildcard contrib/systemd/*)

# The real programs that the demo, the tests and the benchmarks run.
PEERS    := postfix postfix-mysql dovecot-core dovecot-imapd dovecot-pop3d dovecot-lmtpd dovecot-managesieved dovecot-mysql \
            mariadb-server mariadb-client systemd openssl curl fail2ban gsasl e2fsprogs mount postfwd
UNITTEST  = $(shell $(GO) list ./... | grep -v /cmd/internal/e2e)

.PHONY: help build check test race fuzz bench bench-auth bench-lookup bench-delivery bench-policy demo install unit e2e peers modules test-matrix

help: ## print this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the daemons and the dovepost command into bin/
	$(GO) build -trimpath -o bin/ $(DAEMONS:%=./cmd/%) ./cmd/dovepost

check: ## gofmt, go vet, staticcheck
	@unformatted=$$(gofmt -l $$($(GO) list -f '{{.Dir}}' ./...)); test -z "$$unformatted" || { echo "gofmt: $$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

test: peers modules build check unit fuzz e2e ## everything: checks, unit tests, short fuzzing, the real Postfix, Dovecot and MariaDB

unit:
	$(GO) test $(UNITTEST)

e2e: peers build
	$(GO) test -count=1 -p 2 -timeout 40m ./cmd/internal/e2e/...

race: peers build ## all tests under the race detector
	$(GO) test -race $(UNITTEST)
	$(GO) test -race -count=1 -p 1 -timeout 60m ./cmd/internal/e2e/...

test-matrix: peers ## the end-to-end tests of lookup, auth and delivery against Debian 13 and sid; needs root and debootstrap
	command -v debootstrap >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends debootstrap >/dev/null
	$(GO) run ./cmd/internal/matrix

fuzz: ## each fuzz target for FUZZTIME (3000x; or 60s)
	@set -e; for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "fuzz $$pkg $$target"; \
	    $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg; \
	  done; \
	done

bench: peers build ## the whole chain, native and dovepost alternating in one run
	$(GO) run ./cmd/internal/bench

bench-auth: peers ## logins alone, Dovecot's own auth and authd alternating in one run
	$(GO) run ./cmd/internal/bench/auth

bench-lookup: peers ## lookups alone, native and dovepost alternating in one run
	$(GO) run ./cmd/internal/bench/lookup

bench-delivery: peers ## delivery alone, Dovecot's LMTP and lmtpd alternating in one run
	$(GO) run ./cmd/internal/bench/delivery

bench-policy: peers ## policy requests, postfwd and policyd, and smtpd without and with policyd, alternating in one run
	$(GO) run ./cmd/internal/bench/policy

demo: peers build ## walk every arrow of the flow chart with real clients; KEEP=1 leaves it running
	$(GO) run ./cmd/internal/demo

install: build ## install into $(DESTDIR)$(PREFIX); settings go to $(DESTDIR)/etc/dovepost and are never overwritten
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/libexec/dovepost $(DESTDIR)$(PREFIX)/lib/systemd/system \
	  $(DESTDIR)$(PREFIX)/lib/sysusers.d $(DESTDIR)$(PREFIX)/lib/tmpfiles.d $(DESTDIR)$(PREFIX)/share/doc/dovepost \
	  $(DESTDIR)/etc/dovepost
	install bin/dovepost $(DESTDIR)$(PREFIX)/bin/
	install $(DAEMONS:%=bin/%) $(DESTDIR)$(PREFIX)/libexec/dovepost/
	for unit in $(UNITS); do \
	  sed 's,/usr/local/,$(PREFIX)/,' $$unit > $(DESTDIR)$(PREFIX)/lib/systemd/system/$$(basename $$unit) || exit 1; \
	done
	install -m 644 contrib/sysusers.d/dovepost.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/
	install -m 644 contrib/tmpfiles.d/dovepost.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/
	install -m 644 README.md CHANGELOG.md LICENSE $(DESTDIR)$(PREFIX)/share/doc/dovepost/
	cp -r contrib/mysql contrib/postfix contrib/dovecot contrib/fail2ban $(DESTDIR)$(PREFIX)/share/doc/dovepost/
	for file in contrib/etc/*; do \
	  test -e $(DESTDIR)/etc/dovepost/$$(basename $$file) || install -m 640 $$file $(DESTDIR)/etc/dovepost/ || exit 1; \
	done

# Downloads the modules that are missing; the proxy may need more than one try.
modules:
	@for pause in 5 20 60; do \
	  $(GO) list -deps -test ./... tool >/dev/null && exit 0; echo "go list failed: again in $$pause s"; sleep $$pause; \
	done; $(GO) list -deps -test ./... tool >/dev/null

# Installs what is missing of the peers with apt, on Debian; a mirror may need more than one
# try. No service of theirs is started by that, and without a main.cf no Postfix of the system's
# own comes to life.
peers:
	@missing=; for p in $(PEERS); do dpkg-query -W -f='$${Status}\n' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	test -n "$$missing" || exit 0; \
	echo "installing:$$missing"; set -e; export DEBIAN_FRONTEND=noninteractive; \
	command -v postconf >/dev/null || echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections; \
	if test ! -e /usr/sbin/policy-rc.d; then \
	  trap 'rm -f /usr/sbin/policy-rc.d' EXIT; printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d; \
	fi; \
	for pause in 5 20 60 stop; do \
	  apt-get update -q -o Acquire::Retries=5 >/dev/null && \
	    apt-get install -y -q --no-install-recommends -o Acquire::Retries=5 -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 $$missing >/dev/null && exit 0; \
	  test $$pause != stop || exit 1; echo "apt-get failed: again in $$pause s"; sleep $$pause; \
	done
