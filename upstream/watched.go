package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// silentError ends the reading of a body that does not come.
type silentError struct{ limit time.Duration }

func (e silentError) Error() string { return fmt.Sprintf("next to nothing came for %v", e.limit) }
func (silentError) Timeout() bool   { return true }

// watched is a body whose request is cancelled when reads wait too long for too
// little. The time that the reader takes for itself does not count.
type watched struct {
	body     io.ReadCloser
	exchange *exchange
	limit    time.Duration
	left     time.Duration // until the request is cancelled
	got      int           // bytes since left was the whole limit
	timer    *time.Timer   // runs while a read waits
	late     atomic.Bool   // it ran out
	cancel   context.CancelFunc
}

func newWatched(body io.ReadCloser, ex *exchange, limit time.Duration, cancel context.CancelFunc) *watched {
	w := &watched{body: body, exchange: ex, limit: limit, left: limit, cancel: cancel}
	w.timer = time.AfterFunc(limit, func() {
		w.late.Store(true)
		cancel()
	})
	w.timer.Stop()
	return w
}

func (w *watched) Read(p []byte) (int, error) {
	began := time.Now()
	w.timer.Reset(w.left)
	n, err := w.body.Read(p)
	w.timer.Stop()
	w.left = max(w.left-time.Since(began), time.Millisecond)
	if w.got += n; w.got >= crawl {
		w.left, w.got = w.limit, 0
	}
	if err != nil && !errors.Is(err, io.EOF) {
		if w.late.Load() {
			err = silentError{w.limit}
		}
		w.exchange.update(func(a *answer) { a.broken = err })
	}
	return n, err
}

func (w *watched) Close() error {
	w.timer.Stop()
	defer w.cancel()
	return w.body.Close()
}
