package cmd

import (
	"context"
	"net/http"
	"time"

	"mirrorctl/serve"
	"mirrorctl/serve/access"
	"mirrorctl/serve/metrics"
	"mirrorctl/upstream"
)

// loaded is what came of reading the configuration last.
type loaded struct {
	at time.Time
	ok bool
}

// newMetrics returns what is counted of a service.
func (s *service) newMetrics(missing *upstream.PullThrough) *metrics.Metrics {
	sources := metrics.Sources{
		Version: version(),
		Totals:  s.store.Totals,
		Connections: func() map[string]float64 {
			c := s.limiter.Counts()
			return map[string]float64{
				"open": float64(c.Open), "client": float64(c.RefusedClient), "total": float64(c.RefusedTotal),
				"evicted": float64(c.Evicted), "slow": float64(c.TooSlow),
			}
		},
		Refused: s.refusals,
		Reload: func() (time.Time, bool) {
			last := s.loaded.Load()
			return last.at, last.ok
		},
	}
	if pair := s.options.pair; pair != nil {
		sources.Expiry = func() (time.Time, bool) { return pair.Expiry(), true }
	}
	if missing != nil {
		sources.Upstream = missing.Received
		sources.Budgets = func() map[string]metrics.Budget {
			all := map[string]metrics.Budget{}
			for name, b := range missing.Budgets() {
				all[name] = metrics.Budget{Limit: b.Limit, Remaining: b.Remaining}
			}
			return all
		}
	}
	return metrics.New(sources)
}

// refusals counts requests that were refused, by all rules that there have been.
func (s *service) refusals() map[string]float64 {
	all := map[string]float64{}
	for _, why := range access.Refusals() {
		all[why.String()] = float64(s.refused[why].Load() + s.guard.Load().Refused(why))
	}
	return all
}

// status answers for those who watch the mirror, and else with next.
func (s *service) status(next, metrics http.Handler) http.Handler {
	return serve.Status(next, metrics,
		serve.Check{Name: "store readable", Works: func(ctx context.Context) error {
			_, err := s.store.Version(ctx)
			if err != nil {
				s.log.Error("the store cannot be read", "err", err)
			}
			return err
		}},
		serve.Check{Name: "listening", Works: func(context.Context) error { return s.stopping.Err() }},
	)
}
