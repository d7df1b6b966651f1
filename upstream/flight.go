package upstream

import (
	"context"

	"github.com/opencontainers/go-digest"

	"mirrorctl/store"
)

// flight is content that is on its way into the store.
type flight struct {
	repo    store.Repository // where it is asked for
	done    chan struct{}    // closed when err is set
	err     error
	aborted bool // whoever asked for it gave up
}

// once runs fn for a digest unless that is running already, and then waits for
// it: a byte is transferred once. Whoever waits is hurt neither when the one who
// runs fn gives up nor when another repository fails to deliver.
func (c *Client) once(ctx context.Context, repo store.Repository, d digest.Digest, fn func() error) error {
	for {
		c.mu.Lock()
		f, running := c.flights[d]
		if !running {
			f = &flight{repo: repo, done: make(chan struct{})}
			c.flights[d] = f
		}
		c.mu.Unlock()
		if !running {
			defer func() {
				c.mu.Lock()
				delete(c.flights, d)
				c.mu.Unlock()
				close(f.done)
			}()
			f.err = fn()
			f.aborted = ctx.Err() != nil
			return f.err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.done:
		}
		if f.err == nil || f.repo == repo && !f.aborted {
			return f.err
		}
	}
}
