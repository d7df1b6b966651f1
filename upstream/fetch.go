package upstream

import (
	"context"
	"errors"
	"fmt"
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
	// maxContents is how many manifests and blobs an image may have, referrers
	// included, and maxManifestBytes how large its manifests, and the lists of
	// its referrers, may be together.
	maxContents      = 10_000
	maxManifestBytes = 64 << 20
	// publishTries is how often content that another process removed between
	// its arrival and the pin is fetched again.
	publishTries = 3
)

// Fetch brings everything that an image reaches into the store, then pins it:
// all platforms, nested indexes, configurations, layers, attestations,
// referrers and the tags that go with it. root is what Resolve returned, or any
// digest. What is in the store already is not asked for again. It returns a
// *store.ConflictError if the name is pinned to another digest, unless move is
// set; with it, signatures and other referrers are looked for also if the digest
// is pinned already. Nothing is visible of an image that could not be fetched whole; what has
// arrived is kept for the next try.
func (c *Client) Fetch(ctx context.Context, name reference.Named, root v1.Descriptor, move bool, p *Progress) (store.Pin, error) {
	repo, ref := store.Locate(name)
	if there, err := c.store.PinnedIn(ctx, repo, root.Digest); err != nil {
		return store.Pin{}, err
	} else if there && !move { // under another tag
		pin, err := c.store.PinPublished(ctx, repo, ref, root.Digest, move)
		if !errors.Is(err, store.ErrNotFound) { // removed a moment ago
			return pin, err
		}
	}
	for try := 1; ; try++ {
		lease, err := c.hold(ctx)
		if err != nil {
			return store.Pin{}, err
		}
		f := newFetch(newWhole(c, lease, repo, p))
		if err := f.run(ctx, node{Descriptor: root, signable: true, signableBelow: true}); err != nil {
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

// whole is what the walks over one image share: the image itself and, each on
// its own, its referrers.
type whole struct {
	client   *Client
	lease    *store.Lease
	repo     store.Repository
	progress *Progress
	wanted   func(index store.Graph) []store.Child // which of an index's children to fetch; nil is all
	met      func(store.Graph)                     // called for every manifest; nil is nothing

	// transfers is the context of blobs, if they should go on when the walk ends
	// because of something else: clients may be reading them.
	transfers context.Context

	refused sync.Once // to say that referrers may not be read

	mu       sync.Mutex
	contents int
	bytes    int64                     // of manifests
	blobs    map[digest.Digest]*flight // of this image, each asked for once
}

func newWhole(c *Client, lease *store.Lease, repo store.Repository, p *Progress) *whole {
	return &whole{client: c, lease: lease, repo: repo, progress: p, blobs: map[digest.Digest]*flight{}}
}

// fetch is one walk.
type fetch struct {
	*whole

	mu         sync.Mutex
	seen       map[digest.Digest]bool // manifests
	manifests  []store.Manifest
	companions []store.Companion
}

func newFetch(w *whole) *fetch { return &fetch{whole: w, seen: map[digest.Digest]bool{}} }

// node is a manifest that a walk comes to.
type node struct {
	v1.Descriptor
	depth   int
	subject digest.Digest // what it must refer to, if it is listed as a referrer
	// Referrers are looked for where an image was signed or described: at the
	// root and at the images that it lists, and at referrers, but not at
	// attestations in an index nor at what tags beside the image lead to.
	signable      bool
	signableBelow bool
}

func (f *fetch) run(ctx context.Context, root node) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return f.walk(ctx, group, root) })
	return group.Wait()
}

// first reports whether a manifest has not been met on this walk, and notes it.
func (f *fetch) first(d digest.Digest) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seen[d] {
		return false
	}
	f.seen[d] = true
	return true
}

// walk fetches a manifest and everything below it.
func (f *fetch) walk(ctx context.Context, group *errgroup.Group, n node) error {
	if !f.first(n.Digest) {
		return nil
	}
	if n.depth > maxDepth {
		return &Error{Cause: ErrUnsupported, Detail: fmt.Sprintf("indexes are nested more than %d deep", maxDepth), Hint: pushedSo, Err: ErrUnsupported}
	}
	m, err := f.manifest(ctx, n.Descriptor)
	if err != nil && (n.depth > 0 || n.MediaType != "") { // its tag was there a moment ago
		err = lost(err, "manifest", n.Digest)
	}
	if err != nil {
		return err
	}
	if err := f.count(0, m.Size); err != nil {
		return err
	}
	graph, err := store.ParseManifest(m.MediaType, m.Bytes)
	if err != nil {
		return invalid(m.Digest, err)
	}
	if n.subject != "" && (graph.Subject == nil || graph.Subject.Digest != n.subject) {
		return &Error{Cause: ErrUnsupported, Detail: fmt.Sprintf("%s is listed as a referrer of %s, but is none", m.Digest, n.subject), Err: ErrUnsupported}
	}
	f.mu.Lock()
	f.manifests = append(f.manifests, m)
	f.mu.Unlock()
	if f.met != nil {
		f.met(graph)
	}
	if n.signable {
		group.Go(func() error { return f.referrers(ctx, group, m.Digest, n.depth) })
	}
	return f.below(ctx, group, n, graph)
}

// below fetches what a manifest lists.
func (f *fetch) below(ctx context.Context, group *errgroup.Group, n node, graph store.Graph) error {
	if err := f.count(len(graph.Children), 0); err != nil {
		return err
	}
	children := graph.Children
	if f.wanted != nil {
		children = f.wanted(graph)
	}
	wanted := make([]digest.Digest, len(children))
	for i, child := range children {
		wanted[i] = child.Digest
	}
	if graph.Signed != nil {
		wanted = append(wanted, graph.Signed.Digest)
	}
	if err := f.lease.Hold(ctx, wanted...); err != nil {
		return err
	}
	if err := f.afford(ctx, n.Digest, children); err != nil {
		return err
	}
	met := map[digest.Digest]bool{} // a list may repeat itself
	for _, child := range children {
		if met[child.Digest] {
			continue
		}
		met[child.Digest] = true
		switch child.Kind {
		case store.KindManifest:
			signable := n.signableBelow && !isAttestation(child.Descriptor)
			group.Go(func() error {
				return f.walk(ctx, group, node{Descriptor: child.Descriptor, depth: n.depth + 1, signable: signable, signableBelow: signable})
			})
		case store.KindForeign:
			// Clients fetch it from its own URLs, which are no host that the
			// user named; see locateForeign.
		default:
			group.Go(func() error { return f.blob(ctx, child) })
		}
	}
	return nil
}

// afford makes sure that the registry's budget is enough for the manifests among
// the children of an index that are not here yet.
func (f *fetch) afford(ctx context.Context, index digest.Digest, children []store.Child) error {
	missing := 0
	for _, child := range children {
		if child.Kind != store.KindManifest {
			continue
		}
		// On disk, that is, also if the index was lost.
		there, err := f.client.store.Whole(child.Descriptor)
		if err != nil {
			return err
		}
		if !there {
			missing++
		}
	}
	if missing == 0 {
		return nil
	}
	return f.client.afford(ctx, f.repo, index.String(), missing)
}

// blob fetches a blob unless another walk over this image has done so.
func (f *fetch) blob(ctx context.Context, child store.Child) error {
	w := f.whole
	w.mu.Lock()
	b, there := w.blobs[child.Digest]
	if !there {
		b = newFlight(f.repo)
		w.blobs[child.Digest] = b
	}
	w.mu.Unlock()
	if there {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-b.done:
			return b.err
		}
	}
	defer close(b.done)
	if w.transfers != nil {
		ctx = w.transfers
	}
	desc := child.Descriptor
	if desc.Size == store.SizeUnknown {
		desc.Size, b.err = w.client.size(ctx, w.repo, desc.Digest)
	}
	if b.err == nil {
		w.progress.expect(desc.Size)
		b.err = w.client.blob(ctx, w.lease, w.repo, desc, w.progress)
	}
	b.err = lost(b.err, string(child.Kind), child.Digest)
	return b.err
}

// count notes how many contents are about to be fetched, and the size of a
// manifest or a list of referrers that was, so that no image takes more memory than it may.
func (w *whole) count(contents int, size int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.contents += contents
	w.bytes += size
	switch {
	case w.contents > maxContents:
		return &Error{Cause: ErrTooLarge, Detail: fmt.Sprintf("the image has more than %d manifests and blobs", maxContents), Hint: pushedSo, Err: ErrTooLarge}
	case w.bytes > maxManifestBytes:
		return &Error{Cause: ErrTooLarge, Detail: fmt.Sprintf("the manifests of the image, and the lists of its referrers, have more than %d MiB", maxManifestBytes>>20), Hint: pushedSo, Err: ErrTooLarge}
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

// isAttestation tells the manifests that BuildKit puts into an index beside the
// images they describe.
func isAttestation(d v1.Descriptor) bool {
	return d.Platform != nil && d.Platform.OS == "unknown" || d.Annotations["vnd.docker.reference.type"] != ""
}

// manifest returns a manifest from the store, and brings it there before if need be.
func (f *fetch) manifest(ctx context.Context, desc v1.Descriptor) (store.Manifest, error) {
	c := f.client
	if err := desc.Digest.Validate(); err != nil || desc.Digest.Algorithm() == digest.SHA384 {
		return store.Manifest{}, &Error{Cause: ErrUnsupported, Detail: fmt.Sprintf("digest %q", desc.Digest), Err: errors.Join(ErrUnsupported, err)}
	}
	if err := f.lease.Hold(ctx, desc.Digest); err != nil {
		return store.Manifest{}, err
	}
	if m, err := c.store.ReadManifest(ctx, desc); !errors.Is(err, store.ErrNotFound) {
		return m, err
	}
	var m store.Manifest
	err := c.once(ctx, f.repo, desc.Digest, func(*flight) (err error) {
		// Whoever had the flight before may have brought it, or a crash have left it.
		if err := f.lease.Adopt(ctx, desc.Digest); err != nil {
			return local(err)
		}
		if m, err = c.store.ReadManifest(ctx, desc); !errors.Is(err, store.ErrNotFound) {
			return err
		}
		return c.ask(ctx, f.repo, func(e *endpoint) error {
			if m, err = c.manifest(ctx, e, f.repo, desc.Digest); err != nil {
				return err
			}
			// Signatures made anew may be of another length.
			sized := desc.Size > 0 && m.MediaType != store.MediaTypeSchema1Signed
			if sized && m.Size != desc.Size || desc.MediaType != "" && m.MediaType != desc.MediaType {
				return &Error{
					Cause: ErrIntegrity, Err: ErrIntegrity,
					Detail: fmt.Sprintf("%s is announced%s, %s sent %s with %d", desc.Digest, announced(desc), e, m.MediaType, m.Size),
					Hint:   "try again; if it stays, the registry or something between is broken",
				}
			}
			f.progress.Transferred.Add(m.Size)
			m, err = f.lease.PutManifest(ctx, m)
			return local(err)
		})
	})
	if err != nil {
		return store.Manifest{}, err
	}
	if m.Bytes == nil { // another image's walk brought it
		return c.store.ReadManifest(ctx, desc)
	}
	return m, nil
}

// announced says what is known of a manifest before it comes: some registries
// answer for a tag without a size.
func announced(d v1.Descriptor) string {
	var s string
	if d.MediaType != "" {
		s = " as " + d.MediaType
	}
	if d.Size > 0 {
		s += fmt.Sprintf(" with %d bytes", d.Size)
	}
	return s
}
