package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/regclient/regclient/types/descriptor"

	"mirrorctl/store"
)

// stalls is how many times in a row a transfer may fail without a single new
// byte before the endpoint is given up.
const stalls = 3

// once runs fn for a digest unless that is running already, and then waits for
// it: a byte is transferred once. Whoever waits is not hurt when the one who
// runs fn gives up.
func (c *Client) once(ctx context.Context, d digest.Digest, fn func() error) error {
	for {
		ch := c.flights.DoChan(d.String(), func() (any, error) { return nil, fn() })
		select {
		case <-ctx.Done():
			return ctx.Err()
		case res := <-ch:
			if res.Err != nil && res.Shared && errors.Is(res.Err, context.Canceled) && ctx.Err() == nil {
				continue // somebody else was cancelled
			}
			return res.Err
		}
	}
}

// blob brings one blob into the store, from the first endpoint that has it.
func (c *Client) blob(ctx context.Context, repo store.Repository, desc v1.Descriptor, p *Progress) error {
	counted := false // by the transfer, byte for byte
	err := c.once(ctx, desc.Digest, func() error {
		if err := c.transfers.Acquire(ctx, 1); err != nil {
			return err
		}
		defer c.transfers.Release(1)
		lease, err := c.hold(ctx)
		if err != nil {
			return err
		}
		w, err := lease.Writer(ctx, desc)
		if errors.Is(err, store.ErrExists) {
			return nil
		}
		if err != nil {
			return err
		}
		counted = true
		err = c.fill(ctx, repo, desc, w, p)
		return errors.Join(err, w.Close())
	})
	if err != nil {
		return err
	}
	if counted {
		p.Blobs.Add(1)
	} else {
		p.found(desc.Size)
	}
	return nil
}

// fill completes a writer from the endpoints of the repository's registry.
func (c *Client) fill(ctx context.Context, repo store.Repository, desc v1.Descriptor, w *store.Writer, p *Progress) error {
	r, err := c.registry(repo.Registry)
	if err != nil {
		return err
	}
	p.Bytes.Add(w.Offset())
	resumed := w.Offset() > 0
	return c.ask(ctx, r, func(e *endpoint) error {
		for failures := 0; ; {
			before := w.Offset()
			err := c.transfer(ctx, e, repo, desc, w, p)
			if err == nil {
				if err = w.Commit(ctx); !errors.Is(err, store.ErrMismatch) {
					return err
				}
				p.Bytes.Add(-desc.Size) // the writer starts anew
				if resumed {            // the bytes of another run may be the bad ones
					resumed = false
					continue
				}
				return classify(ctx, e, &exchange{}, err)
			}
			var failed *Error
			if ctx.Err() != nil || errors.As(err, &failed) && !temporary(failed) || isLocal(err) {
				return err
			}
			if w.Offset() > before {
				failures = 0
			}
			if failures++; failures >= stalls {
				return err
			}
			c.log.Info("transfer interrupted, resuming", "blob", desc.Digest, "at", w.Offset(), "from", e.String(), "err", err)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Duration(failures) * 500 * time.Millisecond):
			}
		}
	})
}

func temporary(e *Error) bool {
	return errors.Is(e, ErrUnreachable) || errors.Is(e, ErrUnavailable)
}

// localError is a failure of this machine's disk, which no upstream can help.
type localError struct{ error }

func (e localError) Unwrap() error { return e.error }

func isLocal(err error) bool {
	var local localError
	return errors.As(err, &local)
}

// transfer asks one endpoint for the bytes that are missing and writes them. It
// returns nil when all are there.
func (c *Client) transfer(ctx context.Context, e *endpoint, repo store.Repository, desc v1.Descriptor, w *store.Writer, p *Progress) error {
	if w.Offset() == desc.Size {
		return nil
	}
	ex := &exchange{from: w.Offset()}
	ctx, cancel := context.WithCancel(withExchange(ctx, ex))
	defer cancel()
	// Without a size: regclient would take the rest of a blob for a broken one.
	blob, err := e.rc.BlobGet(ctx, e.ref(repo, ""), descriptor.Descriptor{Digest: desc.Digest})
	if err != nil {
		return classify(ctx, e, ex, err)
	}
	defer blob.Close()
	var body io.Reader = blob
	if resp := blob.Response(); resp != nil {
		body = resp.Body // below regclient's reader, which would hash everything once more
		if n := resp.ContentLength; n > desc.Size {
			return &Error{Cause: ErrIntegrity, Detail: fmt.Sprintf("%s sends %d bytes for %s, which has %d", e, n, desc.Digest, desc.Size), Err: ErrIntegrity}
		}
	}
	counted := &counter{r: body}
	skip := w.Offset() - ex.start // of a server that ignores ranges
	if _, err := io.CopyN(io.Discard, counted, skip); err != nil && skip > 0 {
		p.Transferred.Add(counted.n)
		return fmt.Errorf("%s: %w", e, orShort(counted.err, err))
	}
	counted.bytes = &p.Bytes
	_, err = w.ReadFrom(counted)
	p.Transferred.Add(counted.n)
	switch {
	case errors.Is(err, store.ErrMismatch):
		return classify(ctx, e, ex, err)
	case err != nil && counted.err == nil:
		return localError{err} // reading went well
	case ctx.Err() != nil:
		return ctx.Err()
	case w.Offset() < desc.Size:
		return &Error{
			Cause: ErrUnavailable, Hint: "run the command again: it goes on where it stopped", Err: orShort(counted.err, err),
			Detail: fmt.Sprintf("%s broke off after %d of %d bytes of %s: %v", e, w.Offset(), desc.Size, desc.Digest, orShort(counted.err, err)),
		}
	}
	return nil
}

// orShort returns the first error there is, and if none is, that content ended early.
func orShort(errs ...error) error {
	for _, err := range errs {
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	return io.ErrUnexpectedEOF
}

// Repair fetches content again that the store has but that is damaged, and puts
// it in place of the damaged file.
func (c *Client) Repair(ctx context.Context, repo store.Repository, desc v1.Descriptor) error {
	lease, err := c.hold(ctx)
	if err != nil {
		return err
	}
	if err := lease.Hold(ctx, desc.Digest); err != nil {
		return err
	}
	w, err := lease.Repair(ctx, desc)
	if err != nil {
		return err
	}
	return errors.Join(c.fill(ctx, repo, desc, w, &Progress{}), w.Close())
}
