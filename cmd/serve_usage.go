package cmd

import (
	"context"
	"sync"
	"time"
)

// usageEvery is how often is recorded what was asked for. Each time the manifests
// that are kept in memory are read anew.
const usageEvery = time.Minute

// recordUsage writes down what is asked for, until the function that it returns
// is called.
func (s *service) recordUsage(ctx context.Context) (stop func()) {
	record := func() {
		// Also when the server stops, so not with its context.
		if err := s.store.RecordUsage(context.WithoutCancel(ctx), s.registry.TakeUsage()); err != nil {
			s.log.Warn("not recorded", "error", err)
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
