package upstream

import (
	"context"
	"errors"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"mirrorctl/store"
)

// Restore brings back the files of published content that the disk has lost, as
// store.Lost tells them: manifests from the index, all else from the repository's
// registry, each once however many images need it.
func (c *Client) Restore(ctx context.Context, repo store.Repository, lost []v1.Descriptor, p *Progress) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, desc := range lost {
		p.expect(desc.Size)
		group.Go(func() error {
			if err := c.once(ctx, repo, desc.Digest, func(f *flight) error { return c.restore(ctx, f, repo, desc, p) }); err != nil {
				return err
			}
			p.Blobs.Add(1)
			return nil
		})
	}
	return group.Wait()
}

func (c *Client) restore(ctx context.Context, f *flight, repo store.Repository, desc v1.Descriptor, p *Progress) error {
	s, err := c.slot(f)
	if err != nil {
		return err
	}
	if err := s.acquire(ctx); err != nil {
		return err
	}
	defer s.release()
	// Another image may have brought it since.
	if whole, err := c.store.Whole(desc); err != nil || whole {
		return err
	}
	_, err = c.store.ManifestOf(ctx, desc.Digest)
	if err == nil {
		return c.Repair(ctx, repo, desc)
	}
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	lease, err := c.hold(ctx)
	if err != nil {
		return err
	}
	w, err := lease.Repair(ctx, desc)
	if err != nil {
		return local(err)
	}
	return lost(errors.Join(c.fill(ctx, f, desc, w, p), w.Close()), "blob", desc.Digest)
}
