package upstream

import (
	"errors"
	"fmt"
	"time"

	"mirrorctl/store"
)

// unavailable is a trouble of an upstream that may pass.
type unavailable struct {
	error
	after time.Duration
}

func (e unavailable) Unwrap() error             { return e.error }
func (e unavailable) RetryAfter() time.Duration { return e.after }

// retryAfter is how long a client should wait if the upstream does not say.
const retryAfter = 10 * time.Second

// explain makes of a failure what package serve understands, and says in the
// log what a client is not told.
func (p *PullThrough) explain(name string, err error) error {
	var failed *Error
	switch {
	case err == nil, p.ctx.Err() != nil, errors.Is(err, store.ErrNotFound):
		return err
	case errors.Is(err, store.ErrLeaseEnded): // removed while it arrived
		return fmt.Errorf("%w: %w", store.ErrNotFound, err)
	case store.IsFull(err), store.IsReadOnly(err), errors.Is(err, store.ErrLocked):
		p.log.Error("the store cannot take it in", "image", name, "err", err)
		return unavailable{err, retryAfter}
	case !errors.As(err, &failed):
		return err
	case errors.Is(err, ErrNotFound):
		p.log.Info("not found upstream", "image", name)
		return fmt.Errorf("%w: %w", store.ErrNotFound, err)
	case errors.Is(err, ErrUnauthorized), errors.Is(err, ErrForbidden):
		p.log.Warn("refused upstream", "image", name, "err", err, "hint", failed.Hint)
		return fmt.Errorf("%w: %w", store.ErrNotFound, err)
	}
	p.log.Warn("upstream in trouble", "image", name, "err", err, "hint", failed.Hint)
	after := failed.retryAfter
	if after <= 0 {
		after = retryAfter
	}
	return unavailable{err, after}
}
