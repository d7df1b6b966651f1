package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"mirrorctl/store"
)

// wanted is a blob that a client asks for.
type wanted struct {
	v1.Descriptor
	repo  store.Repository // where it is asked for
	image *arriving        // that it is of, or nil
}

func (b wanted) name() string { return b.repo.String() + "@" + b.Digest.String() }

// BlobSize returns the size in bytes of content that the store does not have. It
// transfers nothing. The errors are those of Manifest.
func (p *PullThrough) BlobSize(ctx context.Context, repo store.Repository, d digest.Digest) (int64, error) {
	if p.registries[repo.Registry] == nil {
		return 0, fmt.Errorf("blob %s: %w", d, store.ErrNotFound)
	}
	b, err := p.locate(ctx, repo, d)
	if err == nil {
		err = p.refused(b)
	}
	return b.Size, p.explain(b.name(), err)
}

// Blob opens content that the store does not have, while it arrives, and waits
// for its beginning, but not for long. Whoever asks for the same content gets it
// from the same transfer. The errors are those of Manifest; reading returns
// store.ErrBroken for content that turns out to be bad, before its end has been
// read.
func (p *PullThrough) Blob(ctx context.Context, repo store.Repository, d digest.Digest) (io.ReadSeekCloser, int64, error) {
	if p.registries[repo.Registry] == nil {
		return nil, 0, fmt.Errorf("blob %s: %w", d, store.ErrNotFound)
	}
	for {
		b, err := p.locate(ctx, repo, d)
		if err != nil {
			return nil, 0, p.explain(b.name(), err)
		}
		// It may have arrived since somebody looked.
		content, size, err := p.store.Blob(ctx, repo, d)
		if !errors.Is(err, store.ErrNotFound) {
			return content, size, err
		}
		if err := p.refused(b); err != nil {
			return nil, 0, p.explain(b.name(), err)
		}
		f, leave := p.demand(b)
		r := p.newClientReader(ctx, b, f, leave)
		err = r.begin()
		if err == nil {
			return r, b.Size, nil
		}
		if err := errors.Join(r.Close(), ctx.Err()); err != nil {
			return nil, 0, err
		}
		if !errors.Is(err, store.ErrBroken) {
			return nil, 0, err
		}
		if f.err == nil {
			return p.store.Blob(ctx, repo, d) // removed, perhaps
		}
		if b.image != nil && errors.Is(f.err, store.ErrLeaseEnded) {
			if err := p.recheck(ctx, b.image); err != nil {
				return nil, 0, err
			}
		}
		if f.final(b.repo) || p.ctx.Err() != nil {
			p.misses.note(b.repo.Registry, b.name(), f.err)
			return nil, 0, p.explain(b.name(), f.err)
		}
	}
}

// refused returns the error of a blob that its registry refused a moment ago.
func (p *PullThrough) refused(b wanted) error {
	if p.client.flying(b.Digest) {
		return nil
	}
	return p.misses.recent(b.repo.Registry, b.name())
}

// locate finds out where a blob comes from and how large it is.
func (p *PullThrough) locate(ctx context.Context, repo store.Repository, d digest.Digest) (wanted, error) {
	b := wanted{Descriptor: v1.Descriptor{Digest: d, Size: store.SizeUnknown}, repo: repo}
	if x, child, ok := p.lookup(d); ok && child.Kind != store.KindManifest {
		p.wake(x)
		b.MediaType, b.Size = child.MediaType, child.Size
		b.repo, b.image = x.arrival.Repository, x
	}
	if b.Size != store.SizeUnknown {
		return b, nil
	}
	var err error
	if b.Size, err = p.store.Size(ctx, d); !errors.Is(err, store.ErrNotFound) {
		return b, err
	}
	// Of an image that this mirror does not know, because a client had its
	// manifest from elsewhere; or a foreign layer.
	b.Size, err = p.size(ctx, b.repo, d)
	if err == nil || !isNone(err) {
		return b, err
	}
	there, foreignErr := p.locateForeign(ctx, b)
	if foreignErr == nil || !errors.Is(foreignErr, ErrNotFound) {
		return there, foreignErr
	}
	return b, err
}

// size asks a registry how large a blob is, unless it has refused that a moment
// ago.
func (p *PullThrough) size(ctx context.Context, repo store.Repository, d digest.Digest) (int64, error) {
	name := wanted{Descriptor: v1.Descriptor{Digest: d}, repo: repo}.name()
	if err := p.misses.recent(repo.Registry, name); err != nil {
		return 0, err
	}
	size, err := shared(ctx, p, "size "+name, func() (int64, error) { return p.client.size(urgently(p.ctx), repo, d) })
	p.misses.note(repo.Registry, name, err)
	return size, err
}

// demand returns the flight of a blob that a client waits for until it calls
// leave, and starts it if there is none.
func (p *PullThrough) demand(b wanted) (f *flight, leave func()) {
	f, mine := p.client.join(b.repo, b.Digest)
	leave = f.hurry()
	if !mine {
		return f, leave
	}
	p.tasks.Go(func() {
		_ = p.client.fly(p.ctx, b.Digest, f, func(f *flight) error { // the error is in f
			if b.image != nil {
				_, err := p.client.bring(p.ctx, f, b.image.lease, b.Descriptor, &Progress{})
				return err
			}
			lease, err := p.store.NewLease(p.ctx)
			if err != nil {
				return err
			}
			defer lease.Close()
			_, err = p.client.bring(p.ctx, f, lease, b.Descriptor, &Progress{})
			return err
		})
	})
	return f, leave
}
