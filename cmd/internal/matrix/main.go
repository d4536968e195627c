// Matrix runs tests against the Postfix, the Dovecot and the database of later releases
// of Debian.
//
//	go run ./cmd/internal/matrix [--dir DIR] [--release NAME]... [PACKAGE...] [-- FLAG...]
//
// Each release is a directory below DIR, made by debootstrap from the mirror that this
// machine uses, and kept: it takes half a minute, and is only ever read. The packages are
// tested inside of it by go test, with the machine's own Go, module cache and build
// cache, in mount and process namespaces that end with the tests. It needs root, and Debian's
// packages debootstrap and util-linux.
//
//	trixie  Dovecot 2.4.1, Postfix 3.10, MariaDB 11.8
//	sid     Dovecot 2.4.5, Postfix 3.11, MySQL 9.7; these move. MySQL lies in a
//	        directory of its own, for it cannot be installed beside Dovecot's client of it
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// suites are the tests that depend on Postfix, Dovecot or the database.
var suites = []string{
	"./cmd/internal/e2e",
	"./cmd/internal/e2e/lookup",
	"./cmd/internal/e2e/auth",
	"./cmd/internal/e2e/authcache",
	"./cmd/internal/e2e/guard",
	"./cmd/internal/e2e/scheme",
	"./cmd/internal/e2e/mech",
	"./cmd/internal/e2e/delivery",
	"./cmd/internal/e2e/lmtp",
	"./cmd/internal/e2e/quota",
}

var (
	peers = strings.Fields("postfix postfix-mysql dovecot-core dovecot-imapd dovecot-pop3d dovecot-lmtpd dovecot-mysql " +
		"dovecot-managesieved dovecot-submissiond systemd openssl curl make gsasl python3 fail2ban mariadb-client")

	releases = []release{
		{name: "trixie", suite: "trixie", packages: append(slices.Clip(peers), "mariadb-server")},
		{name: "sid", suite: "sid", packages: peers, mysql: &release{name: "sid-mysql", suite: "sid", packages: []string{"mysql-server-core"}}},
	}
)

// release is a root directory with programs.
type release struct {
	name     string
	suite    string // of Debian
	packages []string
	mysql    *release // where the database server is, if it is not among packages
}

func main() {
	log := func(format string, args ...any) { fmt.Printf("matrix: "+format+"\n", args...) }
	dir := pflag.String("dir", "/var/tmp/dovepost-matrix", "`directory` that keeps the releases")
	names := pflag.StringSlice("release", nil, "the releases; all if none is named")
	pflag.Parse()
	packages, flags := pflag.Args(), []string(nil)
	if n := pflag.CommandLine.ArgsLenAtDash(); n >= 0 {
		packages, flags = packages[:n], packages[n:]
	}
	if len(packages) == 0 {
		packages = suites
	}
	var failed []string
	known := 0
	for _, r := range releases {
		if len(*names) > 0 && !slices.Contains(*names, r.name) {
			continue
		}
		known++
		if err := r.make(*dir); err != nil {
			log("%s cannot be had: %v", r.name, err)
			failed = append(failed, r.name)
			continue
		}
		log("%s: %s", r.name, r.versions(*dir))
		if err := r.test(*dir, packages, flags); err != nil {
			log("%s: %v", r.name, err)
			failed = append(failed, r.name)
			continue
		}
		log("%s: ok", r.name)
	}
	if known == 0 || known < len(*names) {
		log("unknown release in %q", *names)
		os.Exit(64)
	}
	if len(failed) > 0 {
		log("failed: %s", strings.Join(failed, " "))
		os.Exit(1)
	}
}

// installScript installs packages into a root ($1, the rest). /proc is there for that alone.
const installScript = `root=$1; shift
printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"; chmod 755 "$root/usr/sbin/policy-rc.d"
mount -t proc proc "$root/proc"
echo 'postfix postfix/main_mailer_type select No configuration' | chroot "$root" debconf-set-selections
chroot "$root" apt-get -o Acquire::Check-Valid-Until=false update -q
chroot "$root" apt-get install -y -q --no-install-recommends -o Dpkg::Options::=--force-unsafe-io "$@"
chroot "$root" apt-get clean
`

// make makes the root directory of r below dir, unless it is there with all its packages.
func (r *release) make(dir string) error {
	if r.mysql != nil {
		if err := r.mysql.make(dir); err != nil {
			return err
		}
	}
	root, made := filepath.Join(dir, r.name), filepath.Join(dir, r.name+".packages")
	want := strings.Join(r.packages, "\n") + "\n"
	if have, err := os.ReadFile(made); err == nil && string(have) == want {
		return nil
	}
	fmt.Printf("matrix: making %s\n", root)
	if _, err := os.Stat(filepath.Join(root, "var/lib/apt")); err != nil {
		mirror, err := mirror()
		if err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := quiet("debootstrap", "--variant=minbase", r.suite, root, mirror); err != nil {
			return errors.Join(err, os.RemoveAll(root))
		}
	}
	err := quiet("unshare", append([]string{"--mount", "--pid", "--fork", "sh", "-ec", installScript, "install", root}, r.packages...)...)
	if err != nil {
		return err
	}
	return os.WriteFile(made, []byte(want), 0o644)
}

// mirror returns where this machine gets its packages.
func mirror() (string, error) {
	files, _ := filepath.Glob("/etc/apt/sources.list.d/debian.sources")
	for _, file := range append(files, "/etc/apt/sources.list") {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			words := strings.Fields(line)
			if len(words) > 1 && (words[0] == "URIs:" || words[0] == "deb") {
				for _, word := range words[1:] {
					if strings.HasPrefix(word, "http") {
						return word, nil
					}
				}
			}
		}
	}
	return "", errors.New("no mirror in /etc/apt")
}

// versions says what is in the root directory.
func (r *release) versions(dir string) string {
	root := filepath.Join(dir, r.name)
	database := []string{root, "mariadbd", "--version"}
	if r.mysql != nil {
		database = []string{filepath.Join(dir, r.mysql.name), "mysqld", "--version"}
	}
	var all []string
	for _, args := range [][]string{
		{root, "dovecot", "--version"},
		{root, "postconf", "-c", "/etc/postfix", "-dh", "mail_version"},
		database,
	} {
		out, _ := exec.Command("chroot", args...).Output()
		all = append(all, args[1]+" "+strings.TrimSpace(string(out)))
	}
	return strings.Join(all, ", ")
}

// testScript runs a command ($4...) with the module ($2) and Go's directories ($3) in
// a root ($1).
const testScript = `root=$1; module=$2; goroot=$3; modules=$4; cache=$5; mysql=$6; tmp=$7; shift 7
share() { mkdir -p "$root$1"; mount --bind "$1" "$root$1"; }
mount --make-rprivate /
mount --bind "$tmp" "$root/tmp"
if test -n "$mysql"; then
	mkdir -p "$root/srv/mysql"; mount --bind "$mysql" "$root/srv/mysql"; mount --bind "$tmp" "$root/srv/mysql/tmp"
fi
share "$module"; share "$goroot"; share "$modules"; share "$cache"
for dir in $(echo "$DOVEPOST_LAYOUTS" | tr : ' '); do share "$dir"; done
mount -t proc proc "$root/proc"; mount --rbind /dev "$root/dev"
exec chroot "$root" env -i -C "$module" "$@"
`

// test runs go test in the root directory.
func (r *release) test(dir string, packages, flags []string) error {
	values, err := exec.Command("go", "env", "GOROOT", "GOMODCACHE", "GOCACHE", "GOMOD").Output()
	if err != nil {
		return err
	}
	env := strings.Split(string(values), "\n")
	mysql := ""
	if r.mysql != nil {
		mysql = filepath.Join(dir, r.mysql.name)
	}
	tmp, err := os.MkdirTemp("", "matrix")
	if err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o777|os.ModeSticky); err != nil {
		return err
	}
	args := []string{"--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", testScript, "test",
		filepath.Join(dir, r.name), filepath.Dir(env[3]), env[0], env[1], env[2], mysql, tmp,
		"HOME=/root", "LC_ALL=C.UTF-8", "PATH=" + env[0] + "/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"CGO_ENABLED=0", "GOTOOLCHAIN=local", "GOPROXY=off", "GOFLAGS=-buildvcs=false", "GOMODCACHE=" + env[1], "GOCACHE=" + env[2]}
	if mysql != "" {
		args = append(args, "DOVEPOST_MYSQL_ROOT=/srv/mysql")
	}
	for _, v := range os.Environ() {
		if strings.HasPrefix(v, "DOVEPOST_") {
			args = append(args, v)
		}
	}
	args = append(args, "go", "test", "-count=1", "-p", "1", "-timeout", "40m")
	cmd := exec.Command("unshare", append(append(args, flags...), packages...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w; /tmp of the tests is %s", err, tmp)
	}
	return os.RemoveAll(tmp)
}

// quiet runs a command, and has what it printed in the error.
func quiet(name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
		lines = lines[max(0, len(lines)-10):]
		err = fmt.Errorf("%s: %w\n%s", name, err, bytes.Join(lines, []byte("\n")))
	}
	return err
}
