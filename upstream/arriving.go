package upstream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"mirrorctl/store"
)

// arriving is an image that is being fetched in the background.
type arriving struct {
	arrival store.Arrival
	lease   *store.Lease
	woken   chan struct{} // gets something when it should rest no longer

	// Guarded by PullThrough.mu.
	contents map[digest.Digest]bool // known because of it
	rests    bool
	refused  time.Time // until when its registry is not to be asked again
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
	x := &arriving{arrival: a, lease: p.store.LeaseFor(a), contents: map[digest.Digest]bool{}, woken: make(chan struct{}, 1)}
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
		m, err := p.store.ReadManifest(p.ctx, desc)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", x.arrival.Name(), err)
		}
		graph, err := store.ParseManifest(m.MediaType, m.Bytes)
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
	// firstRest is how long an image rests that could not be fetched, unless a
	// client asks for it, and maxRest the longest. Where the registry was in
	// trouble, which it may be over at any time, that is maxTrouble.
	firstRest  = 15 * time.Second
	maxRest    = time.Hour
	maxTrouble = 5 * time.Minute
	// maxFullRest is that while the disk has no room: whoever makes some should
	// not have to wait for long.
	maxFullRest = time.Minute
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
		switch {
		case store.IsFull(err):
			rest = min(rest, maxFullRest)
		case remembered(err) == 0:
			rest = min(rest, maxTrouble)
		}
		p.log.Warn("not fetched whole yet", "image", name, "err", err, "again_in", rest)
		if !p.rest(x, rest, err) {
			return
		}
	}
}

// rest waits after a failure, or until the image is woken. It reports whether to
// go on.
func (p *PullThrough) rest(x *arriving, long time.Duration, err error) bool {
	if errors.Is(err, ErrRateLimited) {
		p.misses.note(x.arrival.Registry, x.arrival.Name(), err)
	}
	p.mu.Lock()
	x.rests, x.refused = true, time.Now().Add(remembered(err))
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		x.rests = false
		p.mu.Unlock()
		select {
		case <-x.woken: // too late
		default:
		}
	}()
	select {
	case <-time.After(long):
	case <-x.woken:
	case <-p.ctx.Done():
		return false
	}
	return true
}

// wake ends the rest of an image, because a client asks for it or its registry
// answers again: not if that has refused a part of it a moment ago, or wants to
// be left alone.
func (p *PullThrough) wake(x *arriving) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !x.rests || time.Now().Before(x.refused) {
		return
	}
	select {
	case x.woken <- struct{}{}:
	default:
	}
}

// wakeAll wakes the images of a registry that has just answered.
func (p *PullThrough) wakeAll(registry string) {
	p.mu.Lock()
	all := slices.Collect(maps.Values(p.arriving))
	p.mu.Unlock()
	for _, x := range all {
		if x.arrival.Registry == registry {
			p.wake(x)
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
