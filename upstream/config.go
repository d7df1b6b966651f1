package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/regclient/regclient/types/blob"
	"github.com/regclient/regclient/types/descriptor"

	"mirrorctl/store"
)

// maxConfig bounds, in bytes, the configuration of an image. Real ones have some
// kilobytes; labels may make them large.
const maxConfig = 32 << 20

// content reads a manifest or a configuration by its digest.
type content func(ctx context.Context, desc v1.Descriptor, manifest bool) (store.Manifest, error)

// Config returns the configuration of an image for a platform, the best of those
// that it has, as a build chooses it; nil if it has none for that. What is
// stored is not asked for, and nothing is stored: without a store it only asks.
func (c *Client) Config(ctx context.Context, name reference.Named, platform v1.Platform) ([]byte, error) {
	root, err := onceFor(c, name.String(), func() (v1.Descriptor, error) { return c.root(ctx, name) })
	if err != nil {
		return nil, err
	}
	repo, _ := store.Locate(name)
	return imageConfig(ctx, root, platform, func(ctx context.Context, desc v1.Descriptor, manifest bool) (store.Manifest, error) {
		if c.store != nil {
			if m, err := stored(ctx, c.store, desc, manifest); !errors.Is(err, store.ErrNotFound) {
				return m, err
			}
		}
		return onceFor(c, repo.String()+" "+desc.Digest.String(), func() (store.Manifest, error) {
			var m store.Manifest
			err := c.ask(ctx, repo, func(e *endpoint) (err error) {
				if manifest {
					m, err = c.manifest(ctx, e, repo, desc.Digest)
				} else {
					m, err = c.smallBlob(ctx, e, repo, desc)
				}
				if err == nil && m.Verify() != nil {
					err = mismatch(e.String(), desc.Digest, answer{}, store.ErrMismatch)
				}
				return err
			})
			return m, err
		})
	})
}

// onceFor asks for something that several platforms of an image share, such as
// its index, once: Docker Hub counts what is asked.
func onceFor[T any](c *Client, key string, ask func() (T, error)) (T, error) {
	once, _ := c.asked.LoadOrStore(key, sync.OnceValues(ask))
	return once.(func() (T, error))()
}

// root is what a name means: its pin if there is one, or else upstream.
func (c *Client) root(ctx context.Context, name reference.Named) (v1.Descriptor, error) {
	if c.store != nil {
		repo, ref := store.Locate(name)
		pin, err := c.store.Pin(ctx, repo, ref)
		if err == nil {
			return v1.Descriptor{Digest: pin.Digest}, nil
		}
		if !errors.Is(err, store.ErrNotFound) {
			return v1.Descriptor{}, err
		}
	}
	return c.Resolve(ctx, name)
}

// StoredConfig is Config for an image whose digest is known, from a store alone.
// It returns store.ErrNotFound if that has not all that it takes, and
// store.ErrDamaged if that is not what it was.
func StoredConfig(ctx context.Context, st *store.Store, root digest.Digest, platform v1.Platform) ([]byte, error) {
	return imageConfig(ctx, v1.Descriptor{Digest: root}, platform, func(ctx context.Context, desc v1.Descriptor, manifest bool) (store.Manifest, error) {
		return stored(ctx, st, desc, manifest)
	})
}

// stored reads and hashes what is in a store.
func stored(ctx context.Context, st *store.Store, desc v1.Descriptor, manifest bool) (m store.Manifest, err error) {
	if manifest {
		m, err = st.Manifest(ctx, store.Repository{}, desc.Digest.String())
	} else {
		m, err = storedBlob(ctx, st, desc)
	}
	if err == nil && m.Verify() != nil {
		return store.Manifest{}, fmt.Errorf("%s is %w", desc.Digest, store.ErrDamaged)
	}
	return m, err
}

func storedBlob(ctx context.Context, st *store.Store, desc v1.Descriptor) (m store.Manifest, err error) {
	blob, size, err := st.Blob(ctx, store.Repository{}, desc.Digest)
	if err != nil {
		return m, err
	}
	defer blob.Close()
	if size > maxConfig {
		return m, configTooLarge(desc)
	}
	m = store.Manifest{Descriptor: desc}
	m.Bytes, err = io.ReadAll(io.LimitReader(blob, size))
	return m, err
}

func configTooLarge(desc v1.Descriptor) error {
	return &Error{Cause: ErrTooLarge, Detail: fmt.Sprintf("the configuration %s has more than %d MiB", desc.Digest, maxConfig>>20), Err: ErrTooLarge}
}

// imageConfig goes from a root to the configuration for a platform.
func imageConfig(ctx context.Context, root v1.Descriptor, platform v1.Platform, read content) ([]byte, error) {
	desc := root
	for range maxDepth {
		if err := desc.Digest.Validate(); err != nil {
			return nil, &Error{Cause: ErrUnsupported, Detail: fmt.Sprintf("digest %q", desc.Digest), Err: errors.Join(ErrUnsupported, err)}
		}
		m, err := read(ctx, desc, true)
		if err != nil {
			return nil, err
		}
		var doc struct {
			Manifests []v1.Descriptor
			Config    *v1.Descriptor
			History   []struct{ V1Compatibility string } // of schema 1
		}
		if err := json.Unmarshal(m.Bytes, &doc); err != nil {
			return nil, invalid(desc.Digest, err)
		}
		if len(doc.Manifests) == 0 {
			if doc.Config == nil && len(doc.History) > 0 {
				return []byte(doc.History[0].V1Compatibility), nil
			}
			if doc.Config == nil {
				return nil, nil
			}
			if err := doc.Config.Digest.Validate(); err != nil {
				return nil, &Error{Cause: ErrUnsupported, Detail: fmt.Sprintf("digest %q", doc.Config.Digest), Err: errors.Join(ErrUnsupported, err)}
			}
			c, err := read(ctx, *doc.Config, false)
			if err != nil {
				return nil, err
			}
			return c.Bytes, nil
		}
		next, ok := choose(doc.Manifests, platform)
		if !ok {
			return nil, nil
		}
		desc = next
	}
	return nil, &Error{Cause: ErrUnsupported, Detail: fmt.Sprintf("indexes are nested more than %d deep", maxDepth), Err: ErrUnsupported}
}

// choose returns what an index has for a platform: the best match, or the first
// entry that does not say for what it is, which may be an index of others.
func choose(all []v1.Descriptor, platform v1.Platform) (v1.Descriptor, bool) {
	match := platforms.Only(platform)
	var fit []v1.Descriptor
	for _, d := range all {
		if d.Platform != nil && match.Match(*d.Platform) && !isAttestation(d) {
			fit = append(fit, d)
		}
	}
	if len(fit) > 0 {
		slices.SortStableFunc(fit, func(a, b v1.Descriptor) int {
			switch {
			case match.Less(*a.Platform, *b.Platform):
				return -1
			case match.Less(*b.Platform, *a.Platform):
				return 1
			}
			return 0
		})
		return fit[0], true
	}
	i := slices.IndexFunc(all, func(d v1.Descriptor) bool { return d.Platform == nil && !isAttestation(d) })
	if i < 0 {
		return v1.Descriptor{}, false
	}
	return all[i], true
}

// smallBlob gets a configuration from one endpoint, without the store.
func (c *Client) smallBlob(ctx context.Context, e *endpoint, repo store.Repository, desc v1.Descriptor) (store.Manifest, error) {
	return request(ctx, c, e, func(ctx context.Context, _ *exchange) (m store.Manifest, err error) {
		b, err := e.client().BlobGet(ctx, e.ref(repo, ""), descriptor.Descriptor{Digest: desc.Digest})
		if err != nil {
			return m, err
		}
		defer func(b blob.Reader) { err = errors.Join(err, b.Close()) }(b)
		var body io.Reader = b
		if resp := b.Response(); resp != nil {
			body = resp.Body // as for layers: this package verifies it
		}
		m = store.Manifest{Descriptor: desc}
		m.Bytes, err = io.ReadAll(io.LimitReader(body, maxConfig+1))
		if err == nil && len(m.Bytes) > maxConfig {
			err = configTooLarge(desc)
		}
		return m, err
	})
}
