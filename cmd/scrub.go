package cmd

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"mirrorctl/store"
)

// scrubbed is handler with a scrub of the store beside it, if serve was asked for
// one. end stops the scrub.
func (p *program) scrubbed(c *cli.Context, st *store.Store, period time.Duration, handler http.Handler) (_ http.Handler, end func()) {
	if period == 0 {
		return handler, func() {}
	}
	log := p.log
	if !p.quiet && c.String("log-level") == "" && p.config.LogLevel == "" {
		// That it was done should be seen without being asked for.
		log = slog.New(p.logHandler(slog.LevelInfo))
	}
	var inFlight atomic.Int64
	ctx, cancel := context.WithCancel(c.Context)
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := st.Scrub(ctx, store.Scrub{
			Period: period,
			Busy:   func() bool { return inFlight.Load() > 0 },
			Began: func(blobs int, bytes int64, after digest.Digest) {
				log.Info("scrub begins", "blobs", blobs, "size", size(bytes), "goes_on_after", after.String())
			},
			Found: func(d store.Damage) {
				log.Error("scrub found damage, which is not served any more: run mirrorctl verify --repair", "damage", damageText(d))
			},
			Ended: func(checked store.Checked, took time.Duration) {
				log.Info("scrub ends", "blobs", checked.Blobs, "size", size(checked.Bytes), "damaged", len(checked.Damage), "took", took.Round(time.Millisecond))
			},
		})
		if err != nil && !errors.Is(err, context.Canceled) {
			log.Error("scrub gave up", "err", storeError(err))
		}
	}()
	counting := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inFlight.Add(1)
		defer inFlight.Add(-1)
		handler.ServeHTTP(w, r)
	})
	return counting, func() { cancel(); <-done }
}
