package upstream

import (
	"context"
	"errors"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"mirrorctl/store"
)

// Standing is what a registry says of a pinned name now.
type Standing struct {
	Now  digest.Digest // what the name means there, "" if the registry does not know it any more
	Kept bool          // the pinned digest can still be had there
}

// Check asks the registry itself, not its mirrors, what a name means now and
// whether the digest it was pinned to can still be had. It sends HEAD requests
// only, one or two.
func (c *Client) Check(ctx context.Context, name reference.Named, pinned digest.Digest) (Standing, error) {
	repo, ref := store.Locate(name)
	r, err := c.registry(repo.Registry)
	if err != nil {
		return Standing{}, err
	}
	origin := r.endpoints[len(r.endpoints)-1]
	now, err := c.head(ctx, origin, repo, ref)
	switch {
	case err == nil && now.Digest == pinned:
		return Standing{Now: now.Digest, Kept: true}, nil
	case err != nil && !errors.Is(err, ErrNotFound):
		return Standing{}, err
	}
	standing := Standing{Now: now.Digest}
	if ref == pinned.String() { // pinned by digest: that was the question
		return standing, nil
	}
	switch _, err := c.head(ctx, origin, repo, pinned.String()); {
	case err == nil:
		standing.Kept = true
	case !errors.Is(err, ErrNotFound):
		return Standing{}, err
	}
	return standing, nil
}
