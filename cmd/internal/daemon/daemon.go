// Package daemon is the skeleton that all daemons share: settings, log, listeners,
// readiness, signals, metrics, exit codes.
//
// A daemon is a Program; Main runs it. It listens on what systemd passes (sd_listen_fds(3),
// FileDescriptorName= is the kind) and on its --listen values, tells the service
// manager READY=1, STOPPING=1 and WATCHDOG=1 (sd_notify(3)), drains on SIGTERM and
// reads its files again on SIGHUP. Exit codes are those of sysexits(3).
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"dovepost/cmd/internal/loop"
	"dovepost/cmd/internal/serve"
)

// Exit codes, sysexits(3).
const (
	exitOK     = 0
	exitUsage  = 64 // wrong command line
	exitTemp   = 75 // trying again may help
	exitConfig = 78 // a setting or a file is wrong
)

// A Program is one daemon.
type Program struct {
	Name  string
	Doc   string   // the manual, printed by --help
	Kinds []string // listener kinds; "metrics" is added

	// Flags adds the program's own settings. Names as Postfix and Dovecot write them.
	Flags func(fs *pflag.FlagSet)

	// Print answers a setting that asks for some text instead of a service: it writes
	// to w and returns true, and the program ends. Nothing is listened on. May be nil.
	Print func(w io.Writer, log *slog.Logger) (done bool, err error)

	// Start makes ready to serve. It must not wait for a database that does not answer.
	// An error made with ConfigError ends the program with code 78, any other with 75.
	Start func(ctx context.Context, env *Env) (*Service, error)
}

// Env is what a Program finds when it starts.
type Env struct {
	Log     *slog.Logger
	Metrics *Metrics
	Check   bool     // --check: verify everything, a database that does not answer included
	Kinds   []string // what is listened on, such as "tcp_table=relay"; empty under --check without --listen
}

// Service is a started Program.
type Service struct {
	// Handler returns what serves connections of a kind. Called once for each kind.
	Handler func(kind string) (serve.Handler, error)
	// Looped says that requests come now and then, and are mostly answered from memory: see package loop.
	Looped bool
	// Reload reads the files again. On an error the old state stays. May be nil.
	Reload func(ctx context.Context) error
	// Last are kinds that go on accepting until the others have drained, because
	// what those have in flight still needs them.
	Last []string
	// Usr1 is called on SIGUSR1, to tell the log how things are. May be nil.
	Usr1 func()
	// Close is called after the last connection has gone. May be nil.
	Close func() error
}

type configError struct{ error }

func (e configError) Unwrap() error { return e.error }

// ConfigError marks err as the administrator's to mend: exit code 78.
func ConfigError(err error) error {
	if err == nil {
		return nil
	}
	return configError{err}
}

// Main runs p and ends the process.
func Main(p Program) { os.Exit(run(p, os.Args[1:], os.Stdout, os.Stderr)) }

// options are the settings that every daemon has.
type options struct {
	config   string
	listen   []string
	check    bool
	version  bool
	logLevel string
	maxConns int
	drain    time.Duration
}

func (p Program) flags(o *options) *pflag.FlagSet {
	fs := pflag.NewFlagSet(p.Name, pflag.ContinueOnError)
	fs.SetNormalizeFunc(normalize)
	fs.SortFlags = true
	fs.Usage = func() {}
	kinds := strings.Join(append(p.Kinds[:len(p.Kinds):len(p.Kinds)], "metrics"), ", ")
	fs.StringVar(&o.config, "config", "", "read settings from `FILE`: name = value lines, the command line wins")
	fs.StringArrayVar(&o.listen, "listen", nil, "`KIND:unix:PATH`[,mode=0660][,owner=USER][,group=GROUP] or KIND:inet:HOST:PORT, repeatable; kinds: "+kinds)
	fs.BoolVar(&o.check, "check", false, "verify settings, files and statements, then exit")
	fs.BoolVar(&o.version, "version", false, "print the version and exit")
	fs.StringVar(&o.logLevel, "log_level", "info", "debug, info, warn or error")
	fs.IntVar(&o.maxConns, "max_connections", 10000, "connections at a time for each kind of listener; more wait")
	DurationVar(fs, &o.drain, "drain_timeout", 30*time.Second, "how long requests in flight may take after SIGTERM")
	p.Flags(fs)
	return fs
}

func run(p Program, args []string, stdout, stderr *os.File) int {
	var o options
	fs := p.flags(&o)
	switch err := fs.Parse(args); {
	case errors.Is(err, pflag.ErrHelp):
		fmt.Fprintf(stdout, "%s\n\nSettings:\n%s", strings.TrimSpace(p.Doc), fs.FlagUsages())
		return exitOK
	case err != nil:
		fmt.Fprintf(stderr, "%s: %v\n", p.Name, err)
		return exitUsage
	case fs.NArg() > 0:
		fmt.Fprintf(stderr, "%s: unexpected argument %q\n", p.Name, fs.Arg(0))
		return exitUsage
	case o.version:
		fmt.Fprintln(stdout, p.Name, Version())
		return exitOK
	}
	journal := journalReads(stderr)
	log := newLogger(stderr, slog.LevelInfo, journal)
	if o.config != "" {
		if err := applyFile(fs, o.config, log); err != nil {
			return fail(log, ConfigError(err))
		}
	}
	level, err := parseLevel(o.logLevel)
	if err != nil {
		return fail(log, ConfigError(err))
	}
	log = newLogger(stderr, level, journal)
	slog.SetDefault(log)
	// A reader of stderr that went away must not end a mail daemon.
	signal.Ignore(syscall.SIGPIPE)
	if p.Print != nil {
		if done, err := p.Print(stdout, log); done || err != nil {
			return fail(log, err)
		}
	}
	return fail(log, p.serve(&o, log, stdout))
}

// fail logs err and returns the exit code for it.
func fail(log *slog.Logger, err error) int {
	if err == nil {
		return exitOK
	}
	log.Error("exit", "err", err)
	if errors.As(err, new(configError)) {
		return exitConfig
	}
	return exitTemp
}

// Version is the module's version as the Go tool stamped it.
func Version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// serve does everything from the listeners to the drain.
func (p Program) serve(o *options, log *slog.Logger, stdout io.Writer) error {
	// A channel each: what comes while a reload waits for the database fills no other's.
	stops, hup, usr1 := make(chan os.Signal, 2), make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(stops, syscall.SIGTERM, syscall.SIGINT)
	signal.Notify(hup, syscall.SIGHUP)
	signal.Notify(usr1, syscall.SIGUSR1)
	defer func() {
		signal.Stop(stops)
		signal.Stop(hup)
		signal.Stop(usr1)
	}()

	listeners, err := p.listeners(o)
	if err != nil {
		return err
	}
	defer func() {
		for _, b := range listeners {
			b.Close()
		}
	}()
	env := &Env{Log: log, Metrics: NewMetrics(p.Name), Check: o.check, Kinds: kindsOf(listeners)}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	service, err := p.Start(ctx, env)
	if err != nil {
		return err
	}
	if service.Close != nil {
		defer service.Close()
	}
	if o.check {
		fmt.Fprintf(stdout, "%s: ok\n", p.Name)
		return nil
	}

	stages, failed, err := p.startServers(ctx, o, env, service, listeners)
	if err != nil {
		return err
	}
	notify("READY=1")
	log.Info("ready", "version", Version(), "listeners", describe(listeners))
	stopWatchdog := startWatchdog(ctx)
	defer stopWatchdog()

	for {
		select {
		case err := <-failed:
			// One listener is broken: end the process in good order, the manager starts it anew.
			return errors.Join(err, drain(o, log, stages, stops))
		case sig := <-stops:
			log.Info("stopping", "signal", sig.String())
			return drain(o, log, stages, stops)
		case <-hup:
			reload(ctx, log, service)
		case <-usr1:
			if service.Usr1 != nil {
				service.Usr1()
			}
		}
	}
}

// listeners returns those passed by the manager and those of --listen.
func (p Program) listeners(o *options) (all []bound, err error) {
	defer func() {
		if err != nil {
			for _, b := range all {
				b.Close()
			}
		}
	}()
	if all, err = passed(); err != nil {
		return all, err
	}
	kinds := append(p.Kinds[:len(p.Kinds):len(p.Kinds)], "metrics")
	for _, b := range all {
		if !knownKind(b.kind, kinds) {
			return all, ConfigError(fmt.Errorf("socket activation: FileDescriptorName=%s is not one of %s", b.kind, strings.Join(kinds, ", ")))
		}
	}
	for _, value := range o.listen {
		l, err := ParseListen(value)
		if err != nil {
			return all, ConfigError(err)
		}
		if !knownKind(l.Kind, kinds) {
			return all, ConfigError(fmt.Errorf("listen %q: kind %q is not one of %s", value, l.Kind, strings.Join(kinds, ", ")))
		}
		if o.check {
			all = append(all, bound{l.Kind, nowhere{}})
			continue
		}
		ln, err := l.Bind()
		if err != nil {
			return all, err
		}
		all = append(all, bound{l.Kind, ln})
	}
	if len(all) == 0 && !o.check {
		return nil, ConfigError(errors.New("nothing to listen on: no socket was passed and there is no --listen"))
	}
	return all, nil
}

// stages are the servers in the order in which they drain.
type stages [2][]*serve.Server

// startServers serves every listener; a loop that ends with an error says so on failed.
func (p Program) startServers(ctx context.Context, o *options, env *Env, service *Service, listeners []bound) (all stages, failed chan error, err error) {
	byKind := map[string]*serve.Server{}
	var handlers *loop.Loop // for the rest of the process
	if service.Looped {
		if handlers, err = loop.New(); err != nil {
			return all, nil, err
		}
	}
	for _, b := range listeners {
		if b.kind == "metrics" || byKind[b.kind] != nil {
			continue
		}
		h, err := service.Handler(b.kind)
		if err != nil {
			return all, nil, ConfigError(fmt.Errorf("listener %s: %w", b.kind, err))
		}
		s := &serve.Server{Handler: h, MaxConns: o.maxConns, Loop: handlers, Log: env.Log.With("kind", b.kind), OnConn: env.Metrics.onConn(b.kind)}
		byKind[b.kind] = s
		stage := 0
		if slices.Contains(service.Last, b.kind) {
			stage = 1
		}
		all[stage] = append(all[stage], s)
	}
	failed = make(chan error, len(listeners))
	for _, b := range listeners {
		go func() {
			var err error
			if b.kind == "metrics" {
				err = env.Metrics.serve(ctx, b.Listener)
			} else {
				err = byKind[b.kind].Serve(b.Listener)
			}
			if err != nil {
				failed <- err
			}
		}()
	}
	return all, failed, nil
}

// drain lets requests in flight finish, for as long as the settings allow or until a second signal.
func drain(o *options, log *slog.Logger, all stages, stops <-chan os.Signal) error {
	notify("STOPPING=1")
	ctx, cancel := context.WithTimeout(context.Background(), o.drain)
	defer cancel()
	go func() {
		select {
		case <-stops:
			cancel()
		case <-ctx.Done():
		}
	}()
	for _, servers := range all {
		var wait sync.WaitGroup
		for _, s := range servers {
			wait.Go(func() {
				if err := s.Shutdown(ctx); err != nil {
					log.Warn("requests in flight were given up", "err", err)
				}
			})
		}
		wait.Wait()
	}
	log.Info("stopped")
	return nil
}

func reload(ctx context.Context, log *slog.Logger, service *Service) {
	if service.Reload == nil {
		log.Info("nothing to reload")
		return
	}
	notifyReloading()
	defer notify("READY=1")
	if err := service.Reload(ctx); err != nil {
		log.Error("reload: the old state stays", "err", err)
		return
	}
	log.Info("reloaded")
}

func kindsOf(listeners []bound) (kinds []string) {
	for _, b := range listeners {
		kinds = append(kinds, b.kind)
	}
	return kinds
}

func describe(listeners []bound) string {
	var all []string
	for _, b := range listeners {
		all = append(all, b.kind+":"+b.Addr().String())
	}
	return strings.Join(all, " ")
}
