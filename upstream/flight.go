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

	begun  chan struct{} // closed when source is set; never if there is nothing to write
	source source

	mu      sync.Mutex
	clients int           // that wait for it
	changed chan struct{} // closed when the first comes or the last leaves

	// Of whoever writes it.
	slot   *slot // nil if it takes none
	doubts int   // that an endpoint sends it better in parts
}

func newFlight(repo store.Repository) *flight {
	return &flight{repo: repo, done: make(chan struct{}), begun: make(chan struct{}), changed: make(chan struct{})}
}

// hurry says that a client waits for a flight, until leave is called.
func (f *flight) hurry() (leave func()) {
	f.count(1)
	return sync.OnceFunc(func() { f.count(-1) })
}

func (f *flight) count(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.clients > 0
	f.clients += n
	if before != (f.clients > 0) {
		close(f.changed)
		f.changed = make(chan struct{})
	}
}

// urgency reports whether a client waits for a flight, and what is closed when
// that changes.
func (f *flight) urgency() (bool, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.clients > 0, f.changed
}

// source is content that is being written, by this process or another one.
type source interface {
	Follow(ctx context.Context) (*store.Follower, error)
}

// begin says where the content is written, so that it can be followed.
func (f *flight) begin(s source) {
	f.source = s
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

// flying reports whether a digest is on its way.
func (c *Client) flying(d digest.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flights[d] != nil
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
