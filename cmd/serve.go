package cmd

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"mirrorctl/cmd/systemd"
	"mirrorctl/serve"
	"mirrorctl/store"
	"mirrorctl/upstream"
)

func (p *program) serveCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "serve the pinned images as a read-only registry",
		Description: "Answers docker, BuildKit, containerd, podman, kaniko and other clients from the\n" +
			"store. Pins and removals by other mirrorctl processes show within moments. Ctrl-C or\n" +
			"SIGTERM lets downloads in flight finish; SIGHUP reads the configuration again.\n\n" +
			"No upstream is contacted, unless --pull-through names registries: then what is\n" +
			"missing of them is pinned when it is first asked for, fetched for all platforms,\n" +
			"and kept; clients get it while it arrives.\n\n" +
			"One port serves all registries: by ?ns=, by a first path component, and by the\n" +
			"aliases and host names that [serve] of the configuration has.\n\n" +
			"--scrub hashes the store in the background, when there is little else to do, and\n" +
			"says in the log what is damaged and which images that hurts. It goes on where it\n" +
			"was after a restart, if it may write to the store.\n\n" +
			"Each flag has a key in [serve], max_connections for --max-connections, and an\n" +
			"environment variable, MIRRORCTL_MAX_CONNECTIONS.\n\n" +
			"   mirrorctl serve --listen 0.0.0.0:5000\n" +
			"   mirrorctl serve --pull-through docker.io --pull-through ghcr.io\n" +
			"   mirrorctl serve --listen :5000 --tls-cert server.pem --tls-key server.key\n" +
			"   mirrorctl serve --htpasswd users --require-login read --allow 10.0.0.0/8\n" +
			"   docker pull 127.0.0.1:5000/docker.io/library/debian:bookworm",
		Flags:  serveFlags(),
		Action: p.serve,
	}
}

func serveFlags() []cli.Flag {
	var flags []cli.Flag
	for _, s := range serveSettings {
		flags = append(flags, s.flag())
	}
	return flags
}

func (p *program) serve(c *cli.Context) error {
	if c.Args().Present() {
		return usageErrorf("serve takes no arguments; see mirrorctl serve --help")
	}
	o, err := p.serveOptions(c, p.config)
	if err != nil {
		return err
	}
	if len(o.through.Registries) == 0 && len(o.given["admin"].values) > 0 {
		return p.withExistingStore(c, func(st *store.Store) error { return p.listen(c, st, o, nil) })
	}
	if len(o.through.Registries) == 0 {
		return p.withStoreReadOnly(c, func(st *store.Store) error { return p.listen(c, st, o, nil) })
	}
	c.Context = store.WithNote(c.Context, "pull-through")
	return p.withStore(c, func(st *store.Store) error {
		return p.withPullThrough(c, st, o.through, func(missing *upstream.PullThrough) error { return p.listen(c, st, o, missing) })
	})
}

// withPullThrough runs fn with what fetches what the store lacks.
func (p *program) withPullThrough(c *cli.Context, st *store.Store, opts upstream.PullThroughOptions, fn func(*upstream.PullThrough) error) error {
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
		opts.Log = slog.New(p.logHandler(slog.LevelInfo))
	}
	through, err := upstream.NewPullThrough(c.Context, client, opts)
	if err != nil {
		return err
	}
	return errors.Join(fn(through), through.Close())
}

// listen serves a store until the command is stopped. missing is nil without
// pull-through.
func (p *program) listen(c *cli.Context, st *store.Store, o serveOptions, missing *upstream.PullThrough) error {
	s, err := p.newService(c.Context, st, o, missing)
	if err != nil {
		return err
	}
	listeners, admin, err := p.listeners(o)
	if err != nil {
		return err
	}
	if admin != nil {
		p.say("metrics on %s", admin.Addr())
	}
	for _, ln := range listeners {
		p.say("serving %s on %s", st.Dir(), s.address(ln))
	}
	if text := s.who(o); text != "" {
		p.say("%s", text)
	}
	if missing != nil { // the store can be written to
		if err := st.StartRecording(c.Context); err != nil {
			return storeError(err)
		}
		defer s.recordUsage(c.Context)()
	}
	scrubbed, end := p.scrubbed(c, st, o.scrub(), s)
	defer end()
	server := &serve.Server{Handler: scrubbed, TLS: s.tls(), Limit: s.limiter, Grace: o.grace(), Log: p.log}
	group, ctx := errgroup.WithContext(c.Context)
	var stopped serve.Stopped
	group.Go(func() (err error) {
		stopped, err = server.Run(ctx, listeners...)
		return err
	})
	if admin != nil {
		group.Go(func() error {
			server := &serve.Server{Handler: s.status(http.NotFoundHandler(), s.metrics.Handler()), Grace: -1, Log: p.log}
			_, err := server.Run(ctx, admin)
			return err
		})
	}
	group.Go(func() error { return s.follow(c, ctx) })
	p.notify("READY=1")
	context.AfterFunc(ctx, func() { p.notify("STOPPING=1") })
	err = group.Wait()
	_ = s.lines.Flush() // nobody would read that standard error is broken
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

// notify tells the service manager, if there is one.
func (p *program) notify(lines ...string) {
	if err := systemd.Notify(p.getenv, lines...); err != nil {
		p.log.Warn("the service manager cannot be told", "err", err)
	}
}

// address is where clients find a listener.
func (s *service) address(ln net.Listener) string {
	switch {
	case ln.Addr().Network() == "unix":
		return unixScheme + ln.Addr().String()
	case s.options.pair != nil:
		return "https://" + ln.Addr().String()
	}
	return "http://" + ln.Addr().String()
}

// ServeHTTP answers with what was built last.
func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	(*s.handler.Load()).ServeHTTP(w, r)
}
