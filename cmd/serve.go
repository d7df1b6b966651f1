package cmd

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"mirrorctl/serve"
	"mirrorctl/store"
)

const defaultListen = "127.0.0.1:5000"

func (p *program) serveCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "serve the pinned images as a read-only registry",
		Description: "Answers docker, BuildKit, containerd, podman, kaniko and other clients from the\n" +
			"store, and never contacts an upstream. Pins and removals by other mirrorctl\n" +
			"processes show at once. Ctrl-C or SIGTERM lets downloads in flight finish.\n\n" +
			"   mirrorctl serve --listen 0.0.0.0:5000\n" +
			"   docker pull 127.0.0.1:5000/docker.io/library/debian:bookworm",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "listen", Usage: "listen on `HOST:PORT` (default: " + defaultListen + ")", EnvVars: []string{"MIRRORCTL_LISTEN"}},
			&cli.StringFlag{Name: "access-log", Usage: "log requests to standard error in `FORMAT`: off, text or json (default: text)"},
			&cli.StringFlag{Name: "default-registry", Usage: "the `REGISTRY` of names without one (default: docker.io)"},
			&cli.DurationFlag{Name: "grace", Value: 30 * time.Second, Usage: "`DURATION` that downloads in flight may go on after a stop"},
		},
		Action: p.serve,
	}
}

func (p *program) serve(c *cli.Context) error {
	if c.Args().Present() {
		return usageErrorf("serve takes no arguments; see mirrorctl serve --help")
	}
	return p.withStoreReadOnly(c, func(st *store.Store) error {
		handler, err := serve.New(st, serve.Options{
			DefaultRegistry: cmp.Or(c.String("default-registry"), p.config.Serve.DefaultRegistry),
			Aliases:         p.config.Serve.Aliases,
			Log:             p.log,
		})
		if err != nil {
			return usageErrorf("%w", err)
		}
		format := cmp.Or(c.String("access-log"), p.config.Serve.AccessLog, string(serve.LogText))
		if p.quiet {
			format = string(serve.LogOff)
		}
		logged, err := serve.AccessLog(handler, serve.LogFormat(format), p.stderr)
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
		stopped, err := (&serve.Server{Handler: logged, Grace: grace, Log: p.log}).Run(c.Context, ln)
		if err != nil {
			return err
		}
		if stopped.Cut > 0 {
			p.say("stopped; %s cut off after %s", plural(stopped.Cut, "download", "downloads"), stopped.Took.Round(time.Second))
			return nil
		}
		p.say("stopped")
		return nil
	})
}
