package upstream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"mirrorctl/store"
)

// arriving is an image that is being fetched in the background.
type arriving struct {
	arrival  store.Arrival
	lease    *store.Lease
	contents map[digest.Digest]bool // known because of it; guarded by PullThrough.mu
}

// known is what manifests say of content that is arriving.
type known struct {
	child  store.Child
	images []*arriving // that need it
}

// begin starts the background fetch of an arrival, unless it runs.
func (p *PullThrough) begin(a store.Arrival) *arriving {
	p.mu.Lock()
	defer p.mu.Unlock()
	if x, ok := p.arriving[a.Name()]; ok && x.arrival == a {
		return x
	}
	x := &arriving{arrival: a, lease: p.store.LeaseFor(a), contents: map[digest.Digest]bool{}}
	p.note(x, store.Child{Descriptor: v1.Descriptor{Digest: a.Digest, MediaType: a.MediaType}, Kind: store.KindManifest})
	p.arriving[a.Name()] = x // in the place of one that was removed
	p.tasks.Go(func() { p.run(x) })
	return x
}

// recheck forgets an image that was removed, or pinned by another process.
func (p *PullThrough) recheck(ctx context.Context, x *arriving) error {
	a, err := p.store.Arrival(ctx, x.arrival.Repository, x.arrival.Reference)
	if err == nil && a != x.arrival || errors.Is(err, store.ErrNotFound) {
		p.forget(x)
		return nil
	}
	return err
}

// forget ends what is known because of an image.
func (p *PullThrough) forget(x *arriving) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.arriving[x.arrival.Name()] == x {
		delete(p.arriving, x.arrival.Name())
	}
	for d := range x.contents {
		k := p.known[d]
		for i, y := range k.images {
			if x == y {
				k.images = append(k.images[:i:i], k.images[i+1:]...)
				break
			}
		}
		if len(k.images) == 0 {
			delete(p.known, d)
		}
	}
	x.contents = nil
}

// met notes what a manifest of an image lists.
func (p *PullThrough) met(x *arriving, graph store.Graph) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if x.contents == nil {
		return // forgotten
	}
	for _, child := range graph.Children {
		p.note(x, child)
	}
}

// note makes content known because of an image; p.mu is locked.
func (p *PullThrough) note(x *arriving, child store.Child) {
	if x.contents[child.Digest] || len(x.contents) >= maxContents {
		return
	}
	x.contents[child.Digest] = true
	k := p.known[child.Digest]
	if k == nil {
		k = &known{child: child}
		p.known[child.Digest] = k
	}
	k.images = append(k.images, x)
}

// lookup returns what is known of content that is arriving. Foreign layers are
// not: the registry may have them or not.
func (p *PullThrough) lookup(d digest.Digest) (*arriving, store.Child, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k, ok := p.known[d]
	if !ok || k.child.Kind == store.KindForeign {
		return nil, store.Child{}, false
	}
	return k.images[0], k.child, true
}

// recall learns from the manifests that are here what an image needs.
func (p *PullThrough) recall(x *arriving) error {
	seen := map[digest.Digest]bool{}
	queue := []v1.Descriptor{{Digest: x.arrival.Digest, MediaType: x.arrival.MediaType}}
	for len(queue) > 0 && len(seen) < maxContents {
		desc := queue[0]
		queue = queue[1:]
		if seen[desc.Digest] {
			continue
		}
		seen[desc.Digest] = true
		content, err := p.store.ReadBlob(p.ctx, desc.Digest, store.MaxManifestSize)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", x.arrival.Name(), err)
		}
		graph, err := store.ParseManifest(desc.MediaType, content)
		if err != nil {
			continue // which the fetch will say
		}
		p.met(x, graph)
		for _, child := range graph.Children {
			if child.Kind == store.KindManifest {
				queue = append(queue, child.Descriptor)
			}
		}
	}
	return nil
}

const (
	// firstRest is how long an image rests that could not be fetched, and
	// maxRest the longest; what clients ask for of it is fetched meanwhile.
	firstRest = 15 * time.Second
	maxRest   = time.Hour
)

// run fetches an image until it is pinned, or removed.
func (p *PullThrough) run(x *arriving) {
	name := x.arrival.Name()
	for rest := firstRest; ; rest = min(2*rest, maxRest) {
		done, err := p.fetch(x)
		switch {
		case p.ctx.Err() != nil:
			return
		case errors.Is(err, store.ErrLeaseEnded):
			p.log.Info("removed, or pinned by another process", "image", name)
			p.forget(x)
			return
		case err == nil && done:
			p.log.Info("complete", "image", name)
			p.forget(x)
			return
		case err == nil:
			p.log.Info("complete for the platforms wanted", "image", name)
			return
		}
		p.log.Warn("not fetched whole yet", "image", name, "err", err, "again_in", rest)
		select {
		case <-time.After(rest):
		case <-p.ctx.Done():
			return
		}
	}
}

// fetch brings all of an image, or the platforms that are wanted, and pins it if
// that was all.
func (p *PullThrough) fetch(x *arriving) (whole bool, err error) {
	walks := p.registries[x.arrival.Registry]
	select {
	case walks <- struct{}{}:
		defer func() { <-walks }()
	case <-p.ctx.Done():
		return false, p.ctx.Err()
	}
	w := newWhole(p.client, x.lease, x.arrival.Repository, &Progress{})
	w.met = func(g store.Graph) { p.met(x, g) }
	w.transfers = p.ctx
	root := node{
		Descriptor: v1.Descriptor{Digest: x.arrival.Digest, MediaType: x.arrival.MediaType},
		signable:   true, signableBelow: true,
	}
	var limited atomic.Bool
	if len(p.platforms) > 0 {
		// What stays in parts is asked for in parts: signatures too.
		root.signable, root.signableBelow = false, false
		w.wanted = func(g store.Graph) []store.Child {
			children := onlyFor(p.platforms, g.Children)
			if len(children) < len(g.Children) {
				limited.Store(true)
			}
			return children
		}
	}
	for try := 1; ; try++ {
		f := newFetch(w)
		if err := f.run(p.ctx, root); err != nil || limited.Load() {
			return false, err
		}
		_, err := p.store.PublishArrival(p.ctx, x.arrival, f.manifests, f.companions)
		var incomplete *store.IncompleteError
		if errors.As(err, &incomplete) && try < publishTries {
			w.blobs = map[digest.Digest]*flight{}
			continue
		}
		return err == nil, err
	}
}

// onlyFor returns those entries of an index that are for one of the platforms,
// with their attestations, or that do not say for what they are.
func onlyFor(wanted []v1.Platform, all []store.Child) []store.Child {
	match := platforms.Any(wanted...)
	dropped := map[string]bool{}
	var kept []store.Child
	for _, child := range all {
		if child.Platform != nil && !isAttestation(child.Descriptor) && !match.Match(*child.Platform) {
			dropped[child.Digest.String()] = true
			continue
		}
		kept = append(kept, child)
	}
	var rest []store.Child
	for _, child := range kept {
		if !dropped[child.Annotations["vnd.docker.reference.digest"]] {
			rest = append(rest, child)
		}
	}
	return rest
}

const (
	// missFor is how long what a registry does not have is not asked for again.
	missFor = time.Minute
	// maxMisses bounds what is remembered of them.
	maxMisses = 10_000
)

// misses remembers what registries do not have or do not give.
type misses struct {
	mu  sync.Mutex
	all map[string]miss
}

type miss struct {
	err   error
	until time.Time
}

// recent returns the error of a recent miss, or of the registry if that wants to
// be left alone.
func (m *misses) recent(registry, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, key := range []string{registry, name} {
		if last, ok := m.all[key]; ok && time.Now().Before(last.until) {
			return last.err
		}
	}
	return nil
}

// note remembers an error that is a miss, or the wish of a registry not to be
// asked for a while.
func (m *misses) note(registry, name string, err error) {
	wait := missFor
	switch {
	case errors.Is(err, ErrRateLimited):
		var failed *Error
		errors.As(err, &failed)
		name, wait = registry, min(max(failed.retryAfter, retryAfter), maxRest)
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrUnauthorized), errors.Is(err, ErrForbidden):
	default:
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if len(m.all) >= maxMisses {
		for name, last := range m.all {
			if now.After(last.until) {
				delete(m.all, name)
			}
		}
	}
	if m.all == nil || len(m.all) >= maxMisses { // somebody makes up names
		m.all = map[string]miss{}
	}
	m.all[name] = miss{err, now.Add(wait)}
}

// Referrers lists what refers to a manifest that the store does not have whole,
// as its registry does. The errors are those of Manifest; none is no error.
func (p *PullThrough) Referrers(ctx context.Context, repo store.Repository, subject digest.Digest) ([]v1.Descriptor, error) {
	if p.registries[repo.Registry] == nil {
		return nil, nil
	}
	if published, err := p.published(ctx, repo, subject); err != nil || published {
		return nil, err // which the store has with it
	}
	name := repo.String() + "@" + subject.String()
	return shared(ctx, p, "referrers "+name, func() ([]v1.Descriptor, error) {
		f := newFetch(newWhole(p.client, nil, repo, &Progress{}))
		found, err := f.listed(urgently(p.ctx), subject)
		return found, p.explain(name, err)
	})
}
