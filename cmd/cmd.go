// Package cmd is the command line: one file per command, and the one place that
// wires the other packages together. It owns flags, configuration, output and
// exit codes. Data goes to standard output, everything else to standard error.
package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/urfave/cli/v2"

	"mirrorctl/store"
	"mirrorctl/upstream"
)

// program is one run of mirrorctl.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string

	// Set before a command runs.
	config config
	log    *slog.Logger
	quiet  bool

	logFormat string // text or json

	name        string        // what the program was started as
	evaluations chan struct{} // has room for as many as may run at a time
}

// Main runs the command line and returns the exit code. args[0] is the
// program's name. When ctx ends, the command stops and leaves things in order.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 2 && args[1] == evaluateCommand {
		return evaluateFor(ctx, stdin, stdout, stderr)
	}
	p := &program{
		stdin: stdin, stdout: stdout, stderr: stderr, getenv: os.Getenv,
		name: args[0], evaluations: make(chan struct{}, maxEvaluations),
	}
	app := p.app()
	err := app.RunContext(ctx, permute(app, args))
	if ctx.Err() != nil && err != nil {
		fmt.Fprintln(stderr, "mirrorctl: interrupted")
		return exitInterrupted
	}
	code := exitCode(err)
	p.printError(err)
	return code
}

func (p *program) app() *cli.App {
	app := &cli.App{
		Name:  "mirrorctl",
		Usage: "a lockfile for base images, and a mirror that keeps its word",
		Description: "mirrorctl sync finds the images that your Dockerfiles need, pulls them for all\n" +
			"platforms into a local store and writes mirror.lock, which goes into git.\n" +
			"mirrorctl serve hands that store to docker, BuildKit, containerd, podman and the\n" +
			"rest as a read-only registry. A tag, once pinned, never changes and never\n" +
			"disappears until mirrorctl rm drops it.",
		Version:              version(),
		Reader:               p.stdin,
		Writer:               p.stdout,
		ErrWriter:            p.stderr,
		Suggest:              true,
		EnableBashCompletion: true,
		HideHelpCommand:      true,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "store", Usage: "keep images in `DIR` (default: $XDG_DATA_HOME/mirrorctl or ~/.local/share/mirrorctl)", EnvVars: []string{"MIRRORCTL_STORE"}},
			&cli.StringFlag{Name: "config", Usage: "read the configuration from `FILE` (default: ./mirrorctl.toml, else $XDG_CONFIG_HOME/mirrorctl/config.toml) [$MIRRORCTL_CONFIG]"},
			&cli.StringFlag{Name: "log-level", Usage: "show log messages from `LEVEL` on: debug, info, warn or error", EnvVars: []string{"MIRRORCTL_LOG_LEVEL"}},
			&cli.StringFlag{Name: "log-format", Usage: "log as `FORMAT`: text or json", EnvVars: []string{"MIRRORCTL_LOG_FORMAT"}},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "say nothing but errors"},
		},
		Before: p.before,
		Action: func(c *cli.Context) error {
			switch name := c.Args().First(); {
			case name == "help" && c.App.Command(c.Args().Get(1)) != nil:
				return cli.ShowCommandHelp(c, c.Args().Get(1))
			case name != "help" && name != "":
				return p.unknownCommand(c)
			}
			return cli.ShowAppHelp(c)
		},
		OnUsageError:   usageErrorFrom,
		ExitErrHandler: func(*cli.Context, error) {}, // its default exits and skips deferred calls
		Commands: []*cli.Command{
			p.syncCommand(), p.findCommand(), p.addCommand(), p.lsCommand(), p.inspectCommand(), p.rmCommand(),
			p.serveCommand(), p.verifyCommand(), p.gcCommand(), p.historyCommand(), p.outdatedCommand(), p.whyCommand(), p.policyCommand(), p.pinCommand(), p.clientCommand(), p.doctorCommand(), p.certCommand(), p.configCommand(), p.completionCommand(), p.manCommand(),
		},
	}
	flags := app.Flags
	for _, c := range app.Commands {
		c.OnUsageError = usageErrorFrom
		c.HideHelpCommand = true
		flags = append(flags, c.Flags...)
	}
	for _, f := range flags {
		if b, ok := f.(*cli.BoolFlag); ok {
			b.DisableDefaultText = true // "default: false" tells nobody anything
		}
	}
	return app
}

// before reads the configuration, which is the same for all commands.
func (p *program) before(c *cli.Context) error {
	if c.Args().First() == "completion" { // which shells ask for at every start
		return nil
	}
	var err error
	if p.config, err = openConfig(c.String("config"), p.getenv); err != nil {
		return err
	}
	p.quiet = c.Bool("quiet")
	level, err := logLevel(cmp.Or(c.String("log-level"), p.config.LogLevel, "warn"))
	if err != nil {
		return err
	}
	if p.quiet {
		level = slog.LevelError
	}
	p.logFormat = cmp.Or(c.String("log-format"), p.config.LogFormat, "text")
	if _, err := oneOf(p.logFormat, "text", "json"); err != nil {
		return usageErrorf("--log-format %s: %w", p.logFormat, err)
	}
	p.log = slog.New(p.logHandler(level))
	for _, w := range p.config.Warnings {
		p.say("warning: %s", w)
	}
	return nil
}

// logHandler writes a log from a level on.
func (p *program) logHandler(level slog.Level) slog.Handler {
	opts := &slog.HandlerOptions{Level: level}
	if p.logFormat == "json" {
		return slog.NewJSONHandler(p.stderr, opts)
	}
	return slog.NewTextHandler(p.stderr, opts)
}

func logLevel(s string) (slog.Level, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(s)); err != nil || !strings.Contains(" debug info warn error ", " "+s+" ") {
		return 0, usageErrorf("log level %q: must be debug, info, warn or error", s)
	}
	return level, nil
}

func (p *program) unknownCommand(c *cli.Context) error {
	name := c.Args().First()
	hint := "see mirrorctl --help"
	var names []string
	for _, command := range c.App.Commands {
		names = append(names, command.Name)
	}
	if near := nearest(name, names); near != "" {
		hint = fmt.Sprintf("did you mean %s?", near)
	}
	return usageErrorf("unknown command %q; %s", name, hint)
}

// say prints a message for people.
func (p *program) say(format string, args ...any) {
	switch {
	case p.quiet:
	case p.logFormat == "json":
		slog.New(p.logHandler(slog.LevelInfo)).Info(fmt.Sprintf(format, args...))
	default:
		fmt.Fprintf(p.stderr, "mirrorctl: %s\n", printableLines(fmt.Sprintf(format, args...)))
	}
}

// storeDir is where the store is: flag or environment, file, default.
func (p *program) storeDir(c *cli.Context) (string, error) {
	if dir := cmp.Or(c.String("store"), p.config.Store); dir != "" {
		return dir, nil
	}
	// A relative XDG_DATA_HOME is to be ignored, says its specification.
	if base := p.getenv("XDG_DATA_HOME"); filepath.IsAbs(base) {
		return filepath.Join(base, "mirrorctl"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no place for the store: %w; give one with --store", err)
	}
	return filepath.Join(home, ".local", "share", "mirrorctl"), nil
}

// withStore opens the store for writing, runs fn and closes it.
func (p *program) withStore(c *cli.Context, fn func(*store.Store) error) error {
	return p.with(c, store.Open, fn)
}

// withStoreAnew is withStore for commands that find their way by mirror.lock where
// the index of a store was lost.
func (p *program) withStoreAnew(c *cli.Context, fn func(*store.Store) error) error {
	return p.with(c, func(ctx context.Context, dir string) (*store.Store, error) {
		st, err := store.Open(ctx, dir)
		if !errors.Is(err, store.ErrIndexLost) {
			return st, err
		}
		p.say("warning: store %s: index.db is gone, and what was pinned with it: images come back by mirror.lock, from the blobs that are still here, which are hashed first", dir)
		return store.Recreate(ctx, dir)
	}, fn)
}

// withExistingStore is withStore for commands that make no sense without one: a
// mistyped --store must not create a store.
func (p *program) withExistingStore(c *cli.Context, fn func(*store.Store) error) error {
	return p.with(c, store.OpenExisting, fn)
}

// withStoreReadOnly is withStore for commands that change nothing.
func (p *program) withStoreReadOnly(c *cli.Context, fn func(*store.Store) error) error {
	return p.with(c, store.OpenReadOnly, fn)
}

func (p *program) with(c *cli.Context, open func(context.Context, string) (*store.Store, error), fn func(*store.Store) error) error {
	dir, err := p.storeDir(c)
	if err != nil {
		return err
	}
	st, err := open(c.Context, dir)
	if errors.Is(err, store.ErrNoStore) {
		return fmt.Errorf("%w; run mirrorctl sync first, or say where it is with --store", err)
	}
	if err != nil {
		return storeError(err)
	}
	err = fn(st)
	if errors.Is(err, store.ErrIndexDamaged) && exitCode(err) == exitIntegrity {
		err = storeError(fmt.Errorf("store %s: %w", dir, err))
	}
	return errors.Join(err, st.Close())
}

// noteFor has the history say which command changed pins, for which lock.
func noteFor(c *cli.Context, lockPath string) context.Context {
	path, err := filepath.Abs(lockPath)
	if err != nil { // the working folder is gone
		path = lockPath
	}
	return store.WithNote(c.Context, c.Command.Name+" for "+path)
}

// newUpstream returns a client for the configured registries.
func (p *program) newUpstream(st *store.Store, jobs int) (*upstream.Client, error) {
	opts, err := p.upstreamOptions()
	opts.Jobs = cmp.Or(jobs, opts.Jobs)
	if err != nil {
		return nil, err
	}
	return upstream.New(st, opts), nil
}

func (p *program) upstreamOptions() (upstream.Options, error) {
	registries := map[string]upstream.Registry{}
	for name, r := range p.config.Registries {
		password, err := r.password()
		if err != nil {
			return upstream.Options{}, fmt.Errorf("registry %s: %w", name, err)
		}
		authorities, err := r.authorities()
		if err != nil {
			return upstream.Options{}, fmt.Errorf("registry %s: %w", name, err)
		}
		registries[name] = upstream.Registry{
			URL: r.URL, Mirrors: r.Mirrors, Username: r.Username, Password: password, CA: authorities, Insecure: r.Insecure,
		}
	}
	return upstream.Options{
		Registries:  registries,
		Jobs:        p.config.Jobs,
		Connections: p.config.Connections,
		Timeout:     p.config.Timeout,
		UserAgent:   "mirrorctl/" + version(),
		Log:         p.log,
	}, nil
}

// closeUpstream ends a client. That its lease could not be ended, on a full disk
// for instance, is no failure of what was done: it ends with the process.
func (p *program) closeUpstream(client *upstream.Client) {
	if err := client.Close(); err != nil {
		p.log.Info("the lease is left to gc", "err", err)
	}
}

// version is what the module was built as.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "dev (" + runtime.Version() + ")"
	}
	return info.Main.Version + " (" + runtime.Version() + ")"
}
