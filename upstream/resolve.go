package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/regclient/regclient/types/descriptor"
	"github.com/regclient/regclient/types/manifest"

	"mirrorctl/store"
)

// Resolve asks what a tag means now. It sends a HEAD request, which Docker Hub
// does not count. A name with a digest is what it says and asks nobody.
func (c *Client) Resolve(ctx context.Context, name reference.Named) (v1.Descriptor, error) {
	if d, ok := name.(reference.Digested); ok {
		return v1.Descriptor{Digest: d.Digest()}, nil
	}
	repo, tag := store.Locate(name)
	var desc v1.Descriptor
	err := c.ask(ctx, repo, func(e *endpoint) (err error) {
		desc, err = c.head(ctx, e, repo, tag)
		return err
	})
	return desc, err
}

// head resolves a tag at one endpoint.
func (c *Client) head(ctx context.Context, e *endpoint, repo store.Repository, tag string) (v1.Descriptor, error) {
	return request(ctx, c, e, func(ctx context.Context, ex *exchange) (v1.Descriptor, error) {
		ref, rc := e.ref(repo, tag), e.client()
		m, err := rc.ManifestHead(ctx, ref)
		a := ex.last()
		if err == nil && m.GetDescriptor().Digest == "" || a.status == http.StatusMethodNotAllowed || a.status == http.StatusOK && a.contentType == "" {
			// Not every registry tells digest and media type without sending the manifest.
			m, err = rc.ManifestGet(ctx, ref)
		}
		if err != nil {
			return v1.Descriptor{}, err
		}
		return toOCI(m.GetDescriptor()), nil
	})
}

// tagged gets what a tag means from one endpoint: one request where head and
// manifest are two.
func (c *Client) tagged(ctx context.Context, e *endpoint, repo store.Repository, tag string) (store.Manifest, error) {
	return request(ctx, c, e, func(ctx context.Context, ex *exchange) (store.Manifest, error) {
		m, err := e.client().ManifestGet(ctx, e.ref(repo, tag))
		if err != nil {
			return store.Manifest{}, err
		}
		got, err := received(m)
		if err != nil {
			return store.Manifest{}, err
		}
		ex.wanted = got.Digest
		return got, got.Verify()
	})
}

// size returns how many bytes a blob has that nothing else tells of.
func (c *Client) size(ctx context.Context, repo store.Repository, d digest.Digest) (int64, error) {
	size, err := c.store.Size(ctx, d)
	if !errors.Is(err, store.ErrNotFound) {
		return size, err
	}
	err = c.ask(ctx, repo, func(e *endpoint) error {
		size, err = c.blobSize(ctx, e, repo, d)
		return err
	})
	return size, err
}

// blobSize asks one endpoint how many bytes a blob has.
func (c *Client) blobSize(ctx context.Context, e *endpoint, repo store.Repository, d digest.Digest) (int64, error) {
	return request(ctx, c, e, func(ctx context.Context, ex *exchange) (int64, error) {
		b, err := e.client().BlobHead(ctx, e.ref(repo, ""), descriptor.Descriptor{Digest: d})
		if err != nil {
			return 0, err
		}
		if ex.last().total < 0 {
			err = &Error{Cause: ErrNotRegistry, Detail: fmt.Sprintf("%s does not say how many bytes %s has", e, d), Err: ErrNotRegistry}
		}
		return b.GetDescriptor().Size, errors.Join(err, b.Close())
	})
}

// manifest gets one manifest by digest from one endpoint.
func (c *Client) manifest(ctx context.Context, e *endpoint, repo store.Repository, d digest.Digest) (store.Manifest, error) {
	return request(ctx, c, e, func(ctx context.Context, ex *exchange) (store.Manifest, error) {
		ex.wanted = d
		m, err := e.client().ManifestGet(ctx, e.ref(repo, d.String()))
		if err != nil {
			return store.Manifest{}, err
		}
		got, err := received(m)
		if err != nil {
			return store.Manifest{}, err
		}
		got.Digest = d
		return got, got.Verify()
	})
}

// received is a manifest as it came, byte for byte.
func received(m manifest.Manifest) (store.Manifest, error) {
	raw, err := m.RawBody()
	if err != nil {
		return store.Manifest{}, err
	}
	desc := toOCI(m.GetDescriptor())
	desc.Size = int64(len(raw))
	return store.Manifest{Descriptor: desc, Bytes: raw}, nil
}

// toOCI takes over what counts of regclient's own descriptor type.
func toOCI(d descriptor.Descriptor) v1.Descriptor {
	return v1.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}
