package upstream

import (
	"context"
	"errors"
	"sync"

	"github.com/opencontainers/go-digest"

	"mirrorctl/store"
)

// flight is content that is on its way into the store.
type flight struct {
	repo    store.Repository // where it is asked for
	done    chan struct{}    // closed when err is set
	err     error
	aborted bool // whoever asked for it gave up, or was told to

	begun  chan struct{} // closed when writer is set; never if there is nothing to write
	writer *store.Writer

	urgent  chan struct{} // closed when a client waits for it
	urgency sync.Once

	doubts int // that an endpoint sends it better in parts; of whoever writes it
}

func newFlight(repo store.Repository) *flight {
	return &flight{repo: repo, done: make(chan struct{}), begun: make(chan struct{}), urgent: make(chan struct{})}
}

// hurry says that a client waits for a flight.
func (f *flight) hurry() {
	f.urgency.Do(func() { close(f.urgent) })
}

func (f *flight) isUrgent() bool {
	select {
	case <-f.urgent:
		return true
	default:
		return false
	}
}

// begin says who writes the content, so that it can be followed.
func (f *flight) begin(w *store.Writer) {
	f.writer = w
	close(f.begun)
}

// join returns the flight of a digest. If there was none, it is the caller's to
// fly.
func (c *Client) join(repo store.Repository, d digest.Digest) (f *flight, mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, running := c.flights[d]
	if !running {
		f = newFlight(repo)
		c.flights[d] = f
	}
	return f, !running
}

// fly runs fn for a flight that join gave to the caller.
func (c *Client) fly(ctx context.Context, d digest.Digest, f *flight, fn func(*flight) error) error {
	defer func() {
		c.mu.Lock()
		delete(c.flights, d)
		c.mu.Unlock()
		close(f.done)
	}()
	f.err = fn(f)
	f.aborted = ctx.Err() != nil || errors.Is(f.err, store.ErrLeaseEnded)
	return f.err
}

// once runs fn for a digest unless that is running already, and then waits for
// it: a byte is transferred once. Whoever waits is hurt neither when the one who
// runs fn gives up nor when another repository fails to deliver.
func (c *Client) once(ctx context.Context, repo store.Repository, d digest.Digest, fn func(*flight) error) error {
	for {
		f, mine := c.join(repo, d)
		if mine {
			return c.fly(ctx, d, f, fn)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.done:
		}
		if f.final(repo) {
			return f.err
		}
	}
}

// final reports whether the end of a flight is an answer for a repository, and
// not only for whoever flew it.
func (f *flight) final(repo store.Repository) bool {
	return f.err == nil || f.repo == repo && !f.aborted
}
