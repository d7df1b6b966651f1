package upstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

const (
	// tries is how often something is tried in a row at a registry without any
	// progress. A mirror gets one try: there is somebody else to ask.
	tries = 4
	// firstPause is how long the first wait between tries is; each further
	// one is three times as long.
	firstPause = 200 * time.Millisecond
	// maxRetryAfter is the longest wait that a registry may ask for; for a
	// longer one people should decide.
	maxRetryAfter = 10 * time.Second
)

// request makes a small request, of a manifest or a list, and makes it again
// after failures that may pass. fn must not touch anything but its result: it
// may still run when request returns.
//
// regclient's own retries are off: they wait as long as a registry asks, and
// after a failure they hold up all other requests to the same host.
func request[T any](ctx context.Context, c *Client, e *endpoint, fn func(context.Context, *exchange) (T, error)) (T, error) {
	r := c.newRetry(e)
	if e.mirror {
		r.tries = 1
	}
	r.impatient = isUrgent(ctx)
	for {
		v, err := requestOnce(ctx, c, e, fn)
		if err == nil {
			return v, nil
		}
		if err := r.pause(ctx, err); err != nil {
			return v, err
		}
	}
}

func requestOnce[T any](ctx context.Context, c *Client, e *endpoint, fn func(context.Context, *exchange) (T, error)) (T, error) {
	var none T
	if err := e.health.down(); err != nil {
		return none, err
	}
	limit := e.requests
	if isUrgent(ctx) {
		limit = e.urgent
	}
	if err := limit.Acquire(ctx, 1); err != nil {
		return none, err
	}
	defer limit.Release(1)
	ex := &exchange{}
	limited, cancel := context.WithTimeout(ctx, 2*c.silence)
	defer cancel()
	v, err := await(limited, func() (T, error) { return fn(withExchange(limited, ex), ex) })
	if err != nil {
		return none, classify(ctx, e, ex, err)
	}
	e.works()
	if isUrgent(ctx) {
		c.precedence.claim() // what was asked for leads to blobs
	}
	return v, nil
}

// await returns when fn has returned or ctx ends, whichever is first: regclient
// asks for tokens and runs credential helpers without a context. A panic in fn is
// an error: what regclient reads signed manifests of schema 1 with, libtrust,
// panics where one gives a negative length.
func await[T any](ctx context.Context, fn func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		defer func() {
			if p := recover(); p != nil {
				r.err = fmt.Errorf("%w: it makes regclient panic: %v", ErrNotRegistry, p)
			}
			done <- r
		}()
		r.v, r.err = fn()
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// retry counts what fails in a row.
type retry struct {
	endpoint *endpoint
	tries    int
	first    time.Duration // wait
	failures int
	login    int  // that is used
	renewed  bool // it has been
	// impatient gives up where a registry wants to be left alone: a client is
	// told so, and should wait instead.
	impatient bool
	poll      time.Duration // with it, a rate limit is waited for
	waited    time.Duration
	log       *slog.Logger
}

func (c *Client) newRetry(e *endpoint) retry {
	r := retry{endpoint: e, login: e.login(), tries: tries, first: c.pause, log: c.log}
	if c.opts.Wait && !e.mirror {
		r.poll = c.poll
	}
	return r
}

// maxWait is the longest that a budget is waited for, longer than any window
// that is known of.
const maxWait = 8 * time.Hour

// pause waits until it is worth trying again after err. It returns an error if
// it is not, which is err unless ctx has ended.
func (r *retry) pause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var failed *Error
	if !errors.As(err, &failed) {
		return err
	}
	if errors.Is(failed, ErrUnauthorized) && !r.renewed && r.endpoint.renew(r.login) {
		r.login, r.renewed = r.endpoint.login(), true
		return nil
	}
	if errors.Is(failed, ErrRateLimited) && r.poll > 0 && !r.impatient && r.waited < maxWait {
		wait := max(r.poll, failed.retryAfter)
		r.waited += wait
		r.log.Warn("the rate limit is used up, waiting", "registry", r.endpoint.registry, "for", wait)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
			return nil
		}
	}
	r.failures++
	if failed.timeout {
		r.failures++ // a long wait already
	}
	if !failed.temporary || r.impatient && errors.Is(failed, ErrRateLimited) || r.failures >= r.tries || failed.retryAfter > maxRetryAfter {
		r.endpoint.health.note(err, r.endpoint.mirror)
		return err
	}
	wait := r.first
	for range r.failures - 1 {
		wait *= 3
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(max(wait, failed.retryAfter)):
		return nil
	}
}

const (
	// mirrorDown is how long a mirror that could not be reached is left alone,
	// so that a dead one does not slow down every request.
	mirrorDown = time.Minute
	// registryDown is the same for a registry: long enough that the images of
	// one run do not all wait for the same silence.
	registryDown = 5 * time.Second
)

// health remembers that an endpoint could not be reached.
type health struct {
	mu    sync.Mutex
	until time.Time
	err   error
}

func (h *health) down() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Now().Before(h.until) {
		return h.err
	}
	return nil
}

func (h *health) note(err error, mirror bool) {
	var failed *Error
	if !errors.As(err, &failed) || failed.Cause != ErrUnreachable {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Now().Before(h.until) {
		return // err is the one noted
	}
	noted := *failed
	noted.temporary = false
	h.err, h.until = &noted, time.Now().Add(registryDown)
	if mirror {
		h.until = time.Now().Add(mirrorDown)
	}
}
