// Mirrorctl keeps the base images that builds need: it finds them in
// Dockerfiles, pulls them whole into a local store, locks their digests in
// mirror.lock, and serves them as a read-only registry.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"mirrorctl/cmd"
)

func main() {
	// A reader that goes away (| head) makes a write fail; it must not end a
	// sync or a server whose messages nobody reads any more.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second Ctrl-C ends the program at once.
	context.AfterFunc(ctx, stop)
	os.Exit(cmd.Main(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr))
}
