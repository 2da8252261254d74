// Command dray serves live driver positions, stock and reservations, and helps to try that out:
// a moving fleet, recorded traces, a live table of what a subscription sees, carts from the shell.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/redis/go-redis/v9"

	"dray/redisconn"
)

// commands is the whole command line: flags, their environment and their help. Each
// subcommand has its own file.
type commands struct {
	Serve    serveCmd    `cmd:"" help:"Run the server."`
	Demo     demoCmd     `cmd:"" help:"Run a server with a simulated fleet, to see it move."`
	Watch    watchCmd    `cmd:"" help:"Show live drivers in a table, or as JSON lines."`
	Replay   replayCmd   `cmd:"" help:"Send recorded traces (CSV) as live positions."`
	Stock    stockCmd    `cmd:"" help:"Show and set stock, and its ledger."`
	Reserve  reserveCmd  `cmd:"" help:"Hold a cart for a time, all of it or nothing."`
	Commit   commitCmd   `cmd:"" help:"Take held units out of the stock."`
	Release  releaseCmd  `cmd:"" help:"Give held units back."`
	Extend   extendCmd   `cmd:"" help:"Hold a reservation for longer."`
	Claim    claimCmd    `cmd:"" help:"Hold the nearest free drivers for a time."`
	Unclaim  unclaimCmd  `cmd:"" help:"Give a claim's drivers back."`
	Loadtest loadtestCmd `cmd:"" help:"Measure a server, and check what it promises while it works."`
	Audit    auditCmd    `cmd:"" help:"Check the counters of stock against reservations and ledger."`
	Archive  archiveCmd  `cmd:"" help:"Copy the ledger of stock to files, and follow it."`

	LogLevel  slog.Level       `help:"Least level of log lines on stderr: debug, info, warn or error." default:"info" env:"DRAY_LOG_LEVEL"`
	LogFormat string           `help:"Form of log lines: ${enum}." enum:"text,json" default:"text" env:"DRAY_LOG_FORMAT"`
	Version   kong.VersionFlag `help:"Print the version and exit."`
}

const description = `dray tells many watchers where drivers are, now, and keeps stock that is never oversold.

    dray demo            a moving fleet; then, in a second terminal:
    dray watch           a live table of it
    dray serve           a server, on the Redis that REDIS_URL names
    dray replay FILE     recorded traces as live positions
    dray reserve apple=2 a cart, held until it is committed or its time is up

Settings come from flags, then the environment, then the file .env in the working directory.`

// The exit codes.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitInterrupted = 130 // Ctrl-C before the work was done
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// app is what every subcommand is given.
type app struct {
	ctx            context.Context // ends at the first signal
	stdout, stderr io.Writer
	log            *slog.Logger
	lookup         func(name string) (string, bool) // environment, then .env
}

// errInterrupted ends a command whose work a signal cut short.
var errInterrupted = errors.New("interrupted")

// A usageError is a mistake in flags or settings.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// run is main without the process: it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	fail := func(code int, err error) int {
		fmt.Fprintf(stderr, "dray: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
		return code
	}
	lookup, err := redisconn.Env(".env")
	if err != nil {
		return fail(exitFailure, err)
	}
	inFile, err := redisconn.Names(".env")
	if err != nil {
		return fail(exitFailure, err)
	}
	var cli commands
	exited := -1
	parser, err := kong.New(&cli,
		kong.Name("dray"),
		kong.Description(description),
		kong.Vars{"version": "dray " + version(), "demo_place": austin.String()},
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { exited = code; panic(stopParsing{}) }),
		kong.Resolvers(fromLookup(lookup)),
		durations(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
	)
	if err != nil {
		return fail(exitFailure, err)
	}
	var variables []string
	for flag := range flags(parser) {
		variables = append(variables, flag.Envs...)
		for _, name := range flag.Envs {
			if v, ok := os.LookupEnv(name); ok && v == "" {
				os.Unsetenv(name) // not set, as redisconn and Compose files mean it; kong takes it for a value
			}
		}
	}
	args = spell(args)
	kctx, err := parse(parser, args)
	if exited >= 0 {
		return exited
	}
	if err != nil {
		return fail(exitUsage, fmt.Errorf("%w%s (%s --help tells more)", err, fromWhere(parser, args, err, lookup), commandOf(err)))
	}
	a := &app{ctx: ctx, stdout: stdout, stderr: stderr, lookup: lookup}
	a.log = slog.New(logHandler(stderr, cli.LogFormat, cli.LogLevel))
	redis.SetLogger(redisLog{a.log}) // what matters of it comes back as errors, and would be told twice
	if !kctx.Selected().Hidden {
		warnOfUnknown(a.log, settings(variables), environment(), inFile)
	}
	err = kctx.Run(a)
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errInterrupted):
		return exitInterrupted
	case isUsage(err):
		return fail(exitUsage, err)
	}
	return fail(exitFailure, err)
}

func isUsage(err error) bool {
	_, ok := errors.AsType[usageError](err)
	return ok
}

// stopParsing unwinds --help and --version, after which kong would otherwise go on parsing.
type stopParsing struct{}

func parse(parser *kong.Kong, args []string) (kctx *kong.Context, err error) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(stopParsing); !ok {
				panic(r)
			}
		}
	}()
	return parser.Parse(args)
}

// commandOf is the command that err is about, as far as it was read.
func commandOf(err error) string {
	if e, ok := errors.AsType[*kong.ParseError](err); ok && e.Context.Selected() != nil {
		return e.Context.Selected().FullPath()
	}
	return "dray"
}

// fromLookup gives flags the values of their variables in .env.
func fromLookup(lookup func(string) (string, bool)) kong.Resolver {
	return kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
		for _, name := range flag.Envs {
			if v, ok := lookup(name); ok && v != "" {
				return v, nil
			}
		}
		return nil, nil
	})
}

// fromWhere names the variable that an unfit value came from, where it was no flag.
func fromWhere(parser *kong.Kong, args []string, err error, lookup func(string) (string, bool)) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(err.Error(), "--"), " ")
	name = strings.TrimSuffix(name, ":")
	if slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "--"+name) }) {
		return ""
	}
	for flag := range flags(parser) {
		for _, env := range flag.Envs {
			if v, ok := lookup(env); ok && v != "" && flag.Name == name {
				return " (from " + env + ")"
			}
		}
	}
	return ""
}

// flags are those of dray and of every subcommand.
func flags(parser *kong.Kong) iter.Seq[*kong.Flag] {
	return func(yield func(*kong.Flag) bool) {
		nodes := []*kong.Node{parser.Model.Node}
		for len(nodes) > 0 {
			for _, flag := range nodes[0].Flags {
				if !yield(flag) {
					return
				}
			}
			nodes = append(nodes[1:], nodes[0].Children...)
		}
	}
}

// redisLog is the log of go-redis, for those who look for it.
type redisLog struct{ log *slog.Logger }

func (r redisLog) Printf(ctx context.Context, format string, v ...any) {
	r.log.DebugContext(ctx, "go-redis", "message", fmt.Sprintf(format, v...))
}

func logHandler(w io.Writer, format string, level slog.Level) slog.Handler {
	options := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.NewJSONHandler(w, options)
	}
	return slog.NewTextHandler(w, options)
}

// version is the module's version, and the commit it was built from where that is known.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	if v == "" || v == "(devel)" {
		v = "devel"
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v += "-" + s.Value[:min(12, len(s.Value))]
			}
		}
	}
	return v
}
