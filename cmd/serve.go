package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/platforms"
	"github.com/urfave/cli/v2"

	"mirrorctl/serve"
	"mirrorctl/serve/page"
	"mirrorctl/store"
	"mirrorctl/upstream"
)

const defaultListen = "127.0.0.1:5000"

func (p *program) serveCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "serve the pinned images as a read-only registry",
		Description: "Answers docker, BuildKit, containerd, podman, kaniko and other clients from the\n" +
			"store. Pins and removals by other mirrorctl processes show within moments. Ctrl-C or\n" +
			"SIGTERM lets downloads in flight finish.\n\n" +
			"No upstream is contacted, unless --pull-through names registries: then what is\n" +
			"missing of them is pinned when it is first asked for, fetched for all platforms,\n" +
			"and kept; clients get it while it arrives.\n\n" +
			"One port serves all registries: by ?ns=, by a first path component, and by the\n" +
			"aliases and host names that [serve] of the configuration has.\n\n" +
			"--scrub hashes the store in the background, when there is little else to do, and\n" +
			"says in the log what is damaged and which images that hurts. It goes on where it\n" +
			"was after a restart, if it may write to the store.\n\n" +
			"   mirrorctl serve --listen 0.0.0.0:5000\n" +
			"   mirrorctl serve --pull-through docker.io --pull-through ghcr.io\n" +
			"   docker pull 127.0.0.1:5000/docker.io/library/debian:bookworm",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "listen", Usage: "listen on `HOST:PORT` (default: " + defaultListen + ")", EnvVars: []string{"MIRRORCTL_LISTEN"}},
			&cli.StringFlag{Name: "access-log", Usage: "log requests to standard error in `FORMAT`: off, text or json (default: text)"},
			&cli.StringFlag{Name: "default-registry", Usage: "the `REGISTRY` of names without one (default: docker.io)"},
			&cli.StringSliceFlag{Name: "pull-through", Usage: "fetch what is missing from `REGISTRY`, and pin it"},
			&cli.StringSliceFlag{Name: "platform", Usage: "with --pull-through, fetch only `OS/ARCH` without being asked (default: all platforms)"},
			&cli.DurationFlag{Name: "scrub", Usage: "hash the whole store again in every `DURATION`, such as 24h, and serve nothing damaged (default: never)", Action: checkScrub},
			&cli.DurationFlag{Name: "grace", Value: 30 * time.Second, Usage: "`DURATION` that downloads in flight may go on after a stop"},
		},
		Action: p.serve,
	}
}

func (p *program) serve(c *cli.Context) error {
	if c.Args().Present() {
		return usageErrorf("serve takes no arguments; see mirrorctl serve --help")
	}
	through, err := p.pullThroughOptions(c)
	if err != nil {
		return err
	}
	if len(through.Registries) == 0 {
		return p.withStoreReadOnly(c, func(st *store.Store) error { return p.listen(c, st, nil, nil) })
	}
	c.Context = store.WithNote(c.Context, "pull-through")
	return p.withStore(c, func(st *store.Store) error {
		return p.withPullThrough(c, st, through, func(missing serve.Fetcher) error { return p.listen(c, st, missing, through.Registries) })
	})
}

// pullThroughOptions reads what may be fetched; without registries it is off.
func (p *program) pullThroughOptions(c *cli.Context) (upstream.PullThroughOptions, error) {
	opts := upstream.PullThroughOptions{Registries: p.config.Serve.PullThrough, Platforms: p.config.Serve.Platforms}
	if c.IsSet("pull-through") {
		opts.Registries = nil
	}
	for _, name := range c.StringSlice("pull-through") {
		registry, err := serve.RegistryName(name)
		if err != nil {
			return opts, usageErrorf("--pull-through %w, such as docker.io", err)
		}
		opts.Registries = append(opts.Registries, registry)
	}
	if c.IsSet("platform") {
		opts.Platforms = nil
	}
	for _, s := range c.StringSlice("platform") {
		platform, err := platforms.Parse(s)
		if err != nil {
			return opts, usageErrorf("--platform %q: must be OS/ARCH, such as linux/arm64", s)
		}
		opts.Platforms = append(opts.Platforms, platform)
	}
	if len(opts.Platforms) > 0 && len(opts.Registries) == 0 {
		return opts, usageErrorf("--platform limits what --pull-through fetches; without it all that is pinned is served")
	}
	return opts, nil
}

// withPullThrough runs fn with what fetches what the store lacks.
func (p *program) withPullThrough(c *cli.Context, st *store.Store, opts upstream.PullThroughOptions, fn func(serve.Fetcher) error) error {
	clientOpts, err := p.upstreamOptions()
	if err != nil {
		return err
	}
	clientOpts.Guarded = true // clients say what is asked for
	// A blob is one request, which all clients follow; and the memory for parts
	// is needed for them.
	clientOpts.Connections = 1
	client := upstream.New(st, clientOpts)
	defer p.closeUpstream(client)
	opts.Log = p.log
	if !p.quiet && c.String("log-level") == "" && p.config.LogLevel == "" {
		// That a mirror pins something should be seen without being asked for.
		opts.Log = slog.New(slog.NewTextHandler(p.stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	}
	through, err := upstream.NewPullThrough(c.Context, client, opts)
	if err != nil {
		return err
	}
	return errors.Join(fn(through), through.Close())
}

// listen serves a store until the command is stopped. missing and pullThrough are
// nil without pull-through.
func (p *program) listen(c *cli.Context, st *store.Store, missing serve.Fetcher, pullThrough []string) error {
	var handler *serve.Handler
	var err error
	pages := page.New(c.Context, page.Options{
		Store: st, PullThrough: pullThrough, Aliases: p.config.Serve.Aliases, Log: p.log,
		Pending: func(repo store.Repository, reference string) store.Usage { return handler.Usage(repo, reference) },
	})
	handler, err = serve.New(st, serve.Options{
		DefaultRegistry: cmp.Or(c.String("default-registry"), p.config.Serve.DefaultRegistry),
		Aliases:         p.config.Serve.Aliases,
		Hosts:           p.config.Serve.Hosts,
		Missing:         missing,
		Page:            pages,
		Log:             p.log,
	})
	if err != nil {
		return usageErrorf("%w", err)
	}
	if missing != nil { // the store can be written to
		if err := st.StartRecording(c.Context); err != nil {
			return storeError(err)
		}
		defer p.recordUsage(c.Context, st, handler)()
	}
	format := cmp.Or(c.String("access-log"), p.config.Serve.AccessLog, string(serve.LogText))
	if p.quiet {
		format = string(serve.LogOff)
	}
	lines := newLineBuffer(p.stderr)
	logged, err := serve.AccessLog(handler, serve.LogFormat(format), lines)
	if err != nil {
		return usageErrorf("%w", err)
	}
	address := cmp.Or(c.String("listen"), p.config.Serve.Listen, defaultListen)
	if _, _, err := net.SplitHostPort(address); err != nil {
		return usageErrorf("--listen %s: must be HOST:PORT, as 127.0.0.1:5000 or :5000", address)
	}
	ln, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("listen on %s: the port is in use; choose another with --listen", address)
	}
	if err != nil {
		return fmt.Errorf("listen on %s: %w", address, cause(err))
	}
	grace := c.Duration("grace")
	if grace == 0 {
		grace = -1 // the server takes 0 for its default
	}
	p.say("serving %s on http://%s", st.Dir(), ln.Addr())
	scrubbed, end := p.scrubbed(c, st, logged)
	defer end()
	stopped, err := (&serve.Server{Handler: scrubbed, Grace: grace, Log: p.log}).Run(c.Context, ln)
	_ = lines.Flush() // nobody would read that standard error is broken
	if err != nil {
		return err
	}
	if stopped.Cut > 0 {
		p.say("stopped; %s cut off after %s", plural(stopped.Cut, "download", "downloads"), stopped.Took.Round(time.Second))
		return nil
	}
	p.say("stopped")
	return nil
}

// usageEvery is how often is recorded what was asked for. Each time the manifests
// that are kept in memory are read anew.
const usageEvery = time.Minute

// recordUsage writes down what is asked for, until the function that it returns
// is called.
func (p *program) recordUsage(ctx context.Context, st *store.Store, handler *serve.Handler) (stop func()) {
	record := func() {
		// Also when the server stops, so not with its context.
		if err := st.RecordUsage(context.WithoutCancel(ctx), handler.TakeUsage()); err != nil {
			p.log.Warn("not recorded", "error", err)
		}
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(usageEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				record()
			case <-done:
				record()
				return
			}
		}
	})
	return func() {
		close(done)
		wg.Wait()
	}
}
