package upstream

import (
	"context"
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
		if err == nil && m.GetDescriptor().Digest == "" || ex.last().status == http.StatusMethodNotAllowed {
			// Not every registry tells the digest without sending the manifest.
			m, err = rc.ManifestGet(ctx, ref)
		}
		if err != nil {
			return v1.Descriptor{}, err
		}
		return described(m)
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
		return got, verify(got.Digest, got.Bytes)
	})
}

// verify returns store.ErrMismatch for content that is something else.
func verify(d digest.Digest, content []byte) error {
	if err := d.Validate(); err != nil {
		return err
	}
	if d.Algorithm().FromBytes(content) != d {
		return store.ErrMismatch
	}
	return nil
}

// blobSize asks one endpoint how many bytes a blob has.
func (c *Client) blobSize(ctx context.Context, e *endpoint, repo store.Repository, d digest.Digest) (int64, error) {
	return request(ctx, c, e, func(ctx context.Context, _ *exchange) (int64, error) {
		b, err := e.client().BlobHead(ctx, e.ref(repo, ""), descriptor.Descriptor{Digest: d})
		if err != nil {
			return 0, err
		}
		return b.GetDescriptor().Size, b.Close()
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
		got.Digest = d // the store verifies it
		return got, err
	})
}

// received is a manifest as it came, byte for byte.
func received(m manifest.Manifest) (store.Manifest, error) {
	desc, err := described(m)
	if err != nil {
		return store.Manifest{}, err
	}
	raw, err := m.RawBody()
	if err != nil {
		return store.Manifest{}, err
	}
	desc.Size = int64(len(raw))
	return store.Manifest{Descriptor: desc, Bytes: raw}, nil
}

func described(m manifest.Manifest) (v1.Descriptor, error) {
	desc := toOCI(m.GetDescriptor())
	if !store.IsManifest(desc.MediaType) {
		return desc, &Error{
			Cause: ErrUnsupported, Detail: "media type " + desc.MediaType, Err: ErrUnsupported,
			Hint: "images of Docker's schema 1 must be rebuilt or converted",
		}
	}
	return desc, nil
}

// toOCI takes over what counts of regclient's own descriptor type.
func toOCI(d descriptor.Descriptor) v1.Descriptor {
	return v1.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}
