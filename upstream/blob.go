package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/regclient/regclient/types/blob"
	"github.com/regclient/regclient/types/descriptor"

	"mirrorctl/store"
)

// blob brings one blob into the store, from the first endpoint that has it.
func (c *Client) blob(ctx context.Context, lease *store.Lease, repo store.Repository, desc v1.Descriptor, p *Progress) error {
	counted := false // by the transfer, byte for byte
	err := c.once(ctx, repo, desc.Digest, func(f *flight) (err error) {
		counted, err = c.bring(ctx, f, lease, desc, p)
		return err
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

// bring does what a blob's flight is for. It reports whether there was something
// to transfer, which p has then counted.
func (c *Client) bring(ctx context.Context, f *flight, lease *store.Lease, desc v1.Descriptor, p *Progress) (bool, error) {
	s, err := c.slot(f)
	if err != nil {
		return false, err
	}
	if err := s.acquire(ctx); err != nil {
		return false, err
	}
	defer s.release()
	var elsewhere *store.Elsewhere
	w, err := lease.WriterAfter(ctx, desc, func(e *store.Elsewhere) {
		s.release() // what waits needs none
		elsewhere = e
		f.begin(e) // clients need not wait
	})
	if elsewhere != nil {
		defer elsewhere.Close()
	}
	if errors.Is(err, store.ErrExists) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	f.slot = s
	if elsewhere == nil {
		f.begin(w)
	}
	err = c.fill(ctx, f, desc, w, p)
	return true, errors.Join(err, w.Close())
}

// fill completes a writer from the endpoints of the flight's registry.
func (c *Client) fill(ctx context.Context, f *flight, desc v1.Descriptor, w *store.Writer, p *Progress) error {
	p.Bytes.Add(w.Offset())
	return c.ask(ctx, f.repo, func(e *endpoint) error {
		strange := w.Offset() > 0 // there are bytes from elsewhere, which may be the bad ones
		ranges := true            // e can send parts
		r := c.newRetry(e)
		if e.mirror {
			r.tries = 2
		}
		f.doubts = 0
		for {
			if err := c.turn(ctx, f); err != nil {
				return err
			}
			before := w.Offset()
			a, err := c.transfer(ctx, e, f, desc, w, ranges, p)
			if err == nil {
				if err = w.Commit(ctx); !errors.Is(err, store.ErrMismatch) {
					return local(err)
				}
				p.Bytes.Add(-desc.Size) // the writer starts anew
				if strange {
					strange = false
					continue
				}
				return mismatch(e.String(), desc.Digest, a, err)
			}
			if errors.Is(err, errRange) && ranges {
				ranges = false
				continue
			}
			if errors.Is(err, errOrdinary) || errors.Is(err, errGaveWay) {
				continue
			}
			if w.Offset()-before >= crawl {
				r.failures, r.renewed = 0, false // tokens may last less long than a large blob
			}
			r.impatient, _ = f.urgency()
			if giveUp := r.pause(ctx, err); giveUp != nil {
				return giveUp
			}
			c.log.Info("transfer interrupted, resuming", "blob", desc.Digest, "at", w.Offset(), "from", e.String(), "err", err)
		}
	})
}

// turn waits until it is the turn of a flight to ask for bytes: it needs a slot,
// if it takes any, and others may come first.
func (c *Client) turn(ctx context.Context, f *flight) error {
	for {
		if f.slot != nil {
			if err := f.slot.acquire(ctx); err != nil {
				return err
			}
		}
		if err := c.stepAside(ctx, f, f.slot); !errors.Is(err, errGaveWay) {
			return err
		}
	}
}

// localError is a failure of this machine, which no upstream can help.
type localError struct{ error }

func (e localError) Unwrap() error { return e.error }

func local(err error) error {
	if err == nil {
		return nil
	}
	return localError{err}
}

func isLocal(err error) bool {
	var failed localError
	return errors.As(err, &failed)
}

// transfer asks one endpoint for the bytes that are missing and writes them. It
// returns what was answered, and no error when all bytes are there. Without
// ranges it asks for all of them and skips those that are there.
func (c *Client) transfer(ctx context.Context, e *endpoint, f *flight, desc v1.Descriptor, w *store.Writer, ranges bool, p *Progress) (answer, error) {
	before := w.Offset()
	if before == desc.Size {
		return answer{}, nil
	}
	if err := e.health.down(); err != nil && e.mirror {
		return answer{}, err
	}
	ex := &exchange{}
	if ranges {
		ex.from = before
	}
	limited, cancel := context.WithCancel(withExchange(ctx, ex))
	defer cancel()
	began := time.Now()
	body, blob, err := c.open(limited, e, f.repo, desc.Digest)
	if errors.Is(err, errRange) && ranges {
		return answer{}, err
	}
	if err != nil {
		return answer{}, classify(ctx, e, ex, err)
	}
	e.works()
	a := ex.last()
	content := c.newAhead(limited, e, f, desc, a.start, body)
	defer content.Close()
	if resp := blob.Response(); resp == nil {
		a.total = blob.GetDescriptor().Size
	} else if ranges && a.start == ex.from { // parts are sent, as far as is known
		content.inParts(resp, time.Since(began))
	}
	if a.total >= 0 && a.total != desc.Size {
		return a, wrongSize(e, desc, fmt.Sprintf("%d bytes", a.total), a)
	}
	counted := &counter{r: content, transferred: &p.Transferred, received: &c.received}
	if skip := before - a.start; skip > 0 { // of a server that ignores ranges
		if _, err := io.CopyN(io.Discard, counted, skip); err != nil {
			if errors.Is(counted.err, errGaveWay) {
				return a, errGaveWay
			}
			return a, c.brokeOff(ctx, e, desc, w, counted.err)
		}
	}
	counted.bytes, counted.left = &p.Bytes, desc.Size-before
	_, err = w.ReadFrom(counted)
	switch {
	case errors.Is(err, store.ErrMismatch):
		p.Bytes.Add(-desc.Size) // as many as were counted
		return a, errors.Join(wrongSize(e, desc, "more", a), w.Reset())
	case err != nil && counted.err == nil:
		return a, local(err) // reading went well
	case errors.Is(counted.err, errOrdinary), errors.Is(counted.err, errGaveWay), errors.As(counted.err, new(*Error)):
		return a, counted.err
	case w.Offset() < desc.Size:
		return a, c.brokeOff(ctx, e, desc, w, counted.err)
	}
	return a, nil
}

// open asks for a blob, as the exchange in ctx says. It returns the body, and
// regclient's view of the answer, which has no HTTP response for a folder.
func (c *Client) open(ctx context.Context, e *endpoint, repo store.Repository, d digest.Digest) (io.ReadCloser, blob.Reader, error) {
	// Without a size: regclient would take the rest of a blob for a broken one.
	b, err := await(ctx, func() (blob.Reader, error) {
		return e.client().BlobGet(ctx, e.ref(repo, ""), descriptor.Descriptor{Digest: d})
	})
	if err != nil {
		return nil, nil, err
	}
	if resp := b.Response(); resp != nil {
		return resp.Body, b, nil // below regclient's reader, which would hash everything once more
	}
	return b, b, nil
}

func wrongSize(e *endpoint, desc v1.Descriptor, size string, a answer) error {
	return &Error{
		Cause: ErrIntegrity, Err: ErrIntegrity,
		Detail: fmt.Sprintf("%s has %s for %s, which has %d bytes%s", e, size, desc.Digest, desc.Size, encoded(a)),
		Hint:   "try again; if it stays, the registry or something between is broken",
	}
}

// brokeOff is a body that ended, with err or without, before all was there.
func (c *Client) brokeOff(ctx context.Context, e *endpoint, desc v1.Descriptor, w *store.Writer, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	failed := brokeOff(e.String(), err)
	failed.Detail = fmt.Sprintf("%s broke off after %d of %d bytes of %s: %s", e, w.Offset(), desc.Size, desc.Digest, plainNetError(err))
	failed.Hint = "run the command again: it goes on where it stopped"
	return failed
}

// Repair replaces content that the store has but that is damaged. The bytes of
// published manifests are in the index too and need no upstream; all else is
// fetched again.
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
	return errors.Join(c.refill(ctx, repo, desc, w), w.Close())
}

func (c *Client) refill(ctx context.Context, repo store.Repository, desc v1.Descriptor, w *store.Writer) error {
	m, err := c.store.ManifestOf(ctx, desc.Digest)
	if errors.Is(err, store.ErrNotFound) {
		return c.fill(ctx, newFlight(repo), desc, w, &Progress{})
	}
	if err != nil {
		return err
	}
	content, err := m.File(desc.Digest)
	if err != nil { // the index is what is damaged
		content, err = c.store.ReadBlob(ctx, desc.Digest, store.MaxManifestSize)
	}
	if err == nil && desc.Digest.Algorithm().FromBytes(content) == desc.Digest {
		return w.WriteAll(ctx, content)
	}
	return c.ask(ctx, repo, func(e *endpoint) error {
		m, err := c.manifest(ctx, e, repo, m.Digest)
		if err != nil {
			return err
		}
		content, err := m.File(desc.Digest)
		if err != nil {
			return &Error{
				Cause: ErrIntegrity, Detail: fmt.Sprintf("%s has signed %s anew, and the signatures that came with it are lost", e, m.Digest), Err: err,
				Hint: "mirrorctl rm and sync the image again",
			}
		}
		return w.WriteAll(ctx, content)
	})
}
