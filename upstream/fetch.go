package upstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"mirrorctl/store"
)

const (
	// maxDepth is how deep indexes may be nested; real ones have two levels.
	maxDepth = 16
	// maxManifests is how many manifests an image may have, referrers included.
	maxManifests = 20_000
	// publishTries is how often content that another process removed between
	// its arrival and the pin is fetched again.
	publishTries = 3
)

// Fetch brings everything that an image reaches into the store, then pins it:
// all platforms, nested indexes, configurations, layers, attestations,
// referrers and the tags that go with it. root is what Resolve returned, or any
// digest. What is in the store already is not asked for again. It returns a
// *store.ConflictError if the name is pinned to another digest, unless move is
// set. Nothing is visible of an image that could not be fetched whole; what has
// arrived is kept for the next try.
func (c *Client) Fetch(ctx context.Context, name reference.Named, root v1.Descriptor, move bool, p *Progress) (store.Pin, error) {
	repo, ref := store.Locate(name)
	if there, err := c.store.PinnedIn(ctx, repo, root.Digest); err != nil {
		return store.Pin{}, err
	} else if there { // under another tag
		return c.store.PinPublished(ctx, repo, ref, root.Digest, move)
	}
	for try := 1; ; try++ {
		f := &fetch{client: c, repo: repo, progress: p, seen: map[digest.Digest]bool{}}
		if err := f.run(ctx, root); err != nil {
			return store.Pin{}, err
		}
		lease, err := c.hold(ctx)
		if err != nil {
			return store.Pin{}, err
		}
		pin, err := lease.Publish(ctx, store.Image{
			Repository: repo, Reference: ref, Digest: root.Digest,
			Manifests: f.manifests, Companions: f.companions,
		}, move)
		var incomplete *store.IncompleteError
		if errors.As(err, &incomplete) && try < publishTries {
			c.log.Info("content went away, fetching it again", "image", name.String(), "blobs", len(incomplete.Missing))
			continue
		}
		return pin, err
	}
}

// fetch is the walk over one image.
type fetch struct {
	client   *Client
	repo     store.Repository
	progress *Progress

	mu         sync.Mutex
	seen       map[digest.Digest]bool // manifests and blobs, so that each is counted once
	manifests  []store.Manifest
	companions []store.Companion
}

func (f *fetch) run(ctx context.Context, root v1.Descriptor) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return f.walk(ctx, group, root, 0, true) })
	return group.Wait()
}

// first reports whether a digest has not been met in this image, and notes it.
func (f *fetch) first(d digest.Digest) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seen[d] {
		return false
	}
	f.seen[d] = true
	return true
}

// walk fetches a manifest and everything below it. Referrers are looked for
// where an image was signed or described: at the root and at the images that it
// lists, not at what is itself such a description.
func (f *fetch) walk(ctx context.Context, group *errgroup.Group, desc v1.Descriptor, depth int, signable bool) error {
	if !f.first(desc.Digest) {
		return nil
	}
	if depth > maxDepth {
		return &Error{Cause: ErrUnsupported, Detail: fmt.Sprintf("indexes are nested more than %d deep", maxDepth), Err: ErrUnsupported}
	}
	m, err := f.manifest(ctx, desc)
	if err != nil && depth > 0 {
		err = lost(err, "manifest", desc.Digest)
	}
	if err != nil {
		return err
	}
	graph, err := store.ParseManifest(m.MediaType, m.Bytes)
	if err != nil {
		return &Error{Cause: ErrNotRegistry, Detail: fmt.Sprintf("%s: %v", m.Digest, err), Err: err}
	}
	if err := f.add(m); err != nil {
		return err
	}
	lease, err := f.client.hold(ctx)
	if err != nil {
		return err
	}
	wanted := make([]digest.Digest, len(graph.Children))
	for i, child := range graph.Children {
		wanted[i] = child.Digest
	}
	if err := lease.Hold(ctx, wanted...); err != nil {
		return err
	}
	if signable {
		group.Go(func() error { return f.referrers(ctx, group, m.Digest, depth) })
	}
	for _, child := range graph.Children {
		switch child.Kind {
		case store.KindManifest:
			group.Go(func() error {
				return f.walk(ctx, group, child.Descriptor, depth+1, signable && !isAttestation(child.Descriptor))
			})
		case store.KindForeign:
			// Clients fetch it from its own URLs, which are no host that the
			// user named.
		default:
			if !f.first(child.Digest) {
				continue
			}
			f.progress.expect(child.Size)
			group.Go(func() error {
				return lost(f.client.blob(ctx, f.repo, child.Descriptor, f.progress), string(child.Kind), child.Digest)
			})
		}
	}
	return nil
}

// lost says which part of an image is not found, when the image itself is.
func lost(err error, what string, d digest.Digest) error {
	var failed *Error
	if !errors.As(err, &failed) || failed.Cause != ErrNotFound {
		return err
	}
	return &Error{
		Cause: ErrNotFound, Detail: fmt.Sprintf("its %s %s", what, d), Err: err,
		Hint: "the registry has lost a part of this image: ask whoever pushed it",
	}
}

func (f *fetch) add(m store.Manifest) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.manifests) >= maxManifests {
		return &Error{Cause: ErrUnsupported, Detail: fmt.Sprintf("more than %d manifests", maxManifests), Err: ErrUnsupported}
	}
	f.manifests = append(f.manifests, m)
	return nil
}

// isAttestation tells the manifests that BuildKit puts into an index beside the
// images they describe.
func isAttestation(d v1.Descriptor) bool {
	return d.Platform != nil && d.Platform.OS == "unknown" || d.Annotations["vnd.docker.reference.type"] != ""
}

// manifest returns a manifest from the store, and brings it there before if need be.
func (f *fetch) manifest(ctx context.Context, desc v1.Descriptor) (store.Manifest, error) {
	c := f.client
	lease, err := c.hold(ctx)
	if err != nil {
		return store.Manifest{}, err
	}
	if err := lease.Hold(ctx, desc.Digest); err != nil {
		return store.Manifest{}, &Error{Cause: ErrUnsupported, Detail: err.Error(), Err: err}
	}
	if m, err := f.stored(ctx, desc); !errors.Is(err, store.ErrNotFound) {
		return m, err
	}
	var m store.Manifest
	err = c.once(ctx, desc.Digest, func() error {
		r, err := c.registry(f.repo.Registry)
		if err != nil {
			return err
		}
		return c.ask(ctx, r, func(e *endpoint) error {
			if m, err = c.manifest(ctx, e, f.repo, desc.Digest); err != nil {
				return err
			}
			if desc.Size > 0 && m.Size != desc.Size || desc.MediaType != "" && m.MediaType != desc.MediaType {
				return &Error{
					Cause: ErrIntegrity, Err: ErrIntegrity,
					Detail: fmt.Sprintf("%s is announced as %s with %d bytes, %s sent %s with %d", desc.Digest, desc.MediaType, desc.Size, e, m.MediaType, m.Size),
				}
			}
			return c.keep(ctx, e, lease, m)
		})
	})
	if err != nil {
		return store.Manifest{}, err
	}
	f.progress.Transferred.Add(m.Size)
	if m.Bytes == nil { // another image's walk brought it
		return f.stored(ctx, desc)
	}
	return m, nil
}

// stored reads a manifest that is in the store, pinned or left by a run that did not finish.
func (f *fetch) stored(ctx context.Context, desc v1.Descriptor) (store.Manifest, error) {
	m, err := f.client.store.Manifest(ctx, f.repo, desc.Digest.String())
	if !errors.Is(err, store.ErrNotFound) {
		return m, err
	}
	raw, err := f.client.store.ReadBlob(ctx, desc.Digest, store.MaxManifestSize)
	if err != nil {
		return store.Manifest{}, err
	}
	m = store.Manifest{Descriptor: desc, Bytes: raw}
	m.Size = int64(len(raw))
	if m.MediaType == "" {
		m.MediaType = store.SniffMediaType(raw)
	}
	return m, nil
}

// keep writes a manifest into the store, which verifies it.
func (c *Client) keep(ctx context.Context, e *endpoint, lease *store.Lease, m store.Manifest) error {
	w, err := lease.Writer(ctx, m.Descriptor)
	if errors.Is(err, store.ErrExists) {
		return nil
	}
	if err != nil {
		return localError{err}
	}
	err = w.Reset() // an earlier try may have left a part
	if err == nil {
		_, err = w.Write(m.Bytes)
	}
	if err == nil {
		err = w.Commit(ctx)
	}
	err = errors.Join(err, w.Close())
	if errors.Is(err, store.ErrMismatch) {
		return classify(ctx, e, &exchange{}, err)
	}
	if err != nil {
		return localError{err}
	}
	return nil
}

// companionSuffixes are what cosign puts behind sha256-<hex> in the tags of
// signatures, attestations and SBOMs.
var companionSuffixes = []string{".sig", ".att", ".sbom"}

// referrers fetches what refers to a manifest: by the referrers API, by its
// fallback tag (distribution specification 1.1, "Listing Referrers"), and by
// cosign's tags. A registry that knows none of this has no referrers; one that
// fails to answer fails the image, because a signature left out now would never
// be looked for again.
func (f *fetch) referrers(ctx context.Context, group *errgroup.Group, subject digest.Digest, depth int) error {
	c := f.client
	r, err := c.registry(f.repo.Registry)
	if err != nil {
		return err
	}
	var found []v1.Descriptor
	var tags []string
	err = c.ask(ctx, r, func(e *endpoint) error {
		found, tags, err = c.listReferrers(ctx, e, f.repo, subject)
		return err
	})
	if err := f.optional(err); err != nil {
		return err
	}
	if subject.Algorithm() == digest.SHA256 { // cosign knows no other
		for _, suffix := range companionSuffixes {
			tags = append(tags, "sha256-"+subject.Encoded()+suffix)
		}
	}
	for _, d := range found {
		group.Go(func() error { return f.optional(f.walk(ctx, group, d, depth+1, true)) })
	}
	for _, tag := range tags {
		group.Go(func() error { return f.companion(ctx, group, subject, tag, depth) })
	}
	return nil
}

// companion fetches what a tag that goes with a manifest means, if there is one.
func (f *fetch) companion(ctx context.Context, group *errgroup.Group, subject digest.Digest, tag string, depth int) error {
	c := f.client
	r, err := c.registry(f.repo.Registry)
	if err != nil {
		return err
	}
	var desc v1.Descriptor
	err = c.ask(ctx, r, func(e *endpoint) error {
		desc, err = c.head(ctx, e, f.repo, tag)
		return err
	})
	if err != nil {
		return f.optional(err)
	}
	if err := f.walk(ctx, group, desc, depth+1, false); err != nil {
		return f.optional(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.companions = append(f.companions, store.Companion{Reference: tag, Digest: desc.Digest, Subject: subject})
	return nil
}

// optional forgives what only means that there is nothing: referrers are not
// part of an image, and registries answer questions about them in many ways.
func (f *fetch) optional(err error) error {
	if slices.ContainsFunc([]error{ErrNotFound, ErrUnauthorized, ErrForbidden, ErrUnsupported, ErrNotRegistry}, func(none error) bool { return errors.Is(err, none) }) {
		f.client.log.Info("no referrer", "repository", f.repo.String(), "err", err)
		return nil
	}
	return err
}

// listReferrers asks one endpoint what refers to subject; tags has the fallback
// tag if the list came from there.
func (c *Client) listReferrers(ctx context.Context, e *endpoint, repo store.Repository, subject digest.Digest) (found []v1.Descriptor, tags []string, err error) {
	if err := c.requests.Acquire(ctx, 1); err != nil {
		return nil, nil, err
	}
	defer c.requests.Release(1)
	ex := &exchange{}
	list, err := e.rc.ReferrerList(withExchange(ctx, ex), e.ref(repo, subject.String()))
	if err != nil {
		err = classify(ctx, e, ex, err)
		if !errors.Is(err, ErrNotRegistry) && !errors.Is(err, ErrUnsupported) {
			return nil, nil, err
		}
	}
	if ex.apiStatus == 429 || ex.apiStatus >= 500 && ex.apiStatus != 501 {
		return nil, nil, &Error{
			Cause: ErrUnavailable, Detail: fmt.Sprintf("%s answered %d when asked for referrers", e, ex.apiStatus),
			Hint: "try again later", Err: ErrUnavailable,
		}
	}
	for _, d := range list.Descriptors {
		found = append(found, toOCI(d))
	}
	return found, list.Tags, nil
}
