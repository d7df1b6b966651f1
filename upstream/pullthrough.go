package upstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/singleflight"

	"mirrorctl/store"
)

// PullThrough brings what is asked for and missing in a store from upstreams,
// and answers with it while it arrives. A reference is decided by the first who
// asks and then stands like any pin; the image is fetched whole in the
// background, whoever stays or leaves. It is safe for concurrent use.
type PullThrough struct {
	client     *Client
	store      *store.Store
	registries map[string]chan struct{} // those listed, and what limits the images of each in the background
	platforms  []v1.Platform
	log        *slog.Logger

	ctx    context.Context // of all work, ends with Close
	cancel context.CancelFunc
	tasks  sync.WaitGroup
	asked  singleflight.Group
	misses misses

	mu       sync.Mutex
	arriving map[string]*arriving // by name
	known    map[digest.Digest]*known
}

// Received is that of the client.
func (p *PullThrough) Received() (bytes int64, transfers int) { return p.client.Received() }

// Budgets are what the registries said last of their budgets, by name, as far as
// they say it.
func (p *PullThrough) Budgets() map[string]Budget {
	all := map[string]Budget{}
	for name := range p.registries {
		if b, ok := p.client.Budget(name); ok {
			all[name] = b
		}
	}
	return all
}

// PullThroughOptions configure a PullThrough.
type PullThroughOptions struct {
	Registries []string      // whose images may be fetched: docker.io, ghcr.io
	Platforms  []v1.Platform // fetched without being asked for; none is all
	Log        *slog.Logger  // nil is silent
}

// parallelArrivals is how many images of one registry are fetched in the
// background at a time.
const parallelArrivals = 4

// NewPullThrough returns a pull-through by way of client into its store, and
// goes on with what arrived there before. Close it before the client.
func NewPullThrough(ctx context.Context, client *Client, opts PullThroughOptions) (*PullThrough, error) {
	p := &PullThrough{
		client:     client,
		store:      client.store,
		registries: map[string]chan struct{}{},
		platforms:  opts.Platforms,
		log:        opts.Log,
		arriving:   map[string]*arriving{},
		known:      map[digest.Digest]*known{},
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	for _, name := range opts.Registries {
		r, err := client.registry(name)
		if err != nil {
			return nil, err
		}
		// Of its own, so that one that stalls does not take those of the others.
		r.ordinary = make(chan struct{}, client.opts.Jobs)
		p.registries[name] = make(chan struct{}, parallelArrivals)
	}
	all, err := p.store.Arrivals(ctx)
	if err != nil {
		return nil, err
	}
	p.ctx, p.cancel = context.WithCancel(context.WithoutCancel(ctx))
	for _, a := range all {
		if p.registries[a.Registry] == nil {
			continue
		}
		p.log.Info("going on with an image", "image", a.Name())
		if err := p.recall(p.begin(a)); err != nil {
			return nil, errors.Join(err, p.Close())
		}
	}
	return p, nil
}

// Close stops all transfers. What has arrived is kept, and the next PullThrough
// on the store goes on with it.
func (p *PullThrough) Close() error {
	p.mu.Lock()
	p.cancel() // nothing begins after this
	p.mu.Unlock()
	p.tasks.Wait()
	return nil
}

// Manifest returns what a tag or digest means that the store does not have. It
// does not wait for layers. It returns store.ErrNotFound if no listed registry
// has it, and an error with RetryAfter if one is in trouble.
func (p *PullThrough) Manifest(ctx context.Context, repo store.Repository, reference string) (store.Manifest, error) {
	name := store.Pin{Repository: repo, Reference: reference}.Name()
	if p.registries[repo.Registry] == nil {
		return store.Manifest{}, fmt.Errorf("%s: %w", name, store.ErrNotFound)
	}
	return shared(ctx, p, name, func() (store.Manifest, error) {
		m, err := p.manifest(urgently(p.ctx), repo, reference, name)
		return m, p.explain(name, err)
	})
}

// shared runs fn once for all who ask for the same at the same time, and for
// none of them alone: it goes on when the one who came first leaves.
func shared[T any](ctx context.Context, p *PullThrough, key string, fn func() (T, error)) (T, error) {
	done := p.asked.DoChan(key, func() (any, error) {
		p.mu.Lock()
		closed := p.ctx.Err() != nil
		if !closed {
			p.tasks.Add(1)
		}
		p.mu.Unlock()
		if closed {
			return nil, p.ctx.Err()
		}
		defer p.tasks.Done()
		return fn()
	})
	select {
	case r := <-done:
		v, _ := r.Val.(T)
		return v, r.Err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

func (p *PullThrough) manifest(ctx context.Context, repo store.Repository, reference, name string) (store.Manifest, error) {
	for {
		x, child, ok := p.lookup(digest.Digest(reference))
		if !ok || child.Kind != store.KindManifest {
			a, err := p.store.Arrival(ctx, repo, reference)
			if errors.Is(err, store.ErrNotFound) {
				m, err := p.decide(ctx, repo, reference, name)
				if errors.Is(err, store.ErrLeaseEnded) {
					continue // another process has removed it, or pinned it
				}
				return m, err
			}
			if err != nil {
				return store.Manifest{}, err
			}
			x, child.Descriptor = p.begin(a), v1.Descriptor{Digest: a.Digest, MediaType: a.MediaType}
		}
		p.wake(x)
		m, err := p.part(ctx, x, child.Descriptor)
		if !errors.Is(err, store.ErrLeaseEnded) {
			return m, err
		}
		if err := p.recheck(ctx, x); err != nil {
			return store.Manifest{}, err
		}
	}
}

// decide asks upstream what a reference means, and keeps to the answer.
func (p *PullThrough) decide(ctx context.Context, repo store.Repository, reference, name string) (store.Manifest, error) {
	// It may have become complete since somebody looked.
	m, err := p.store.Manifest(ctx, repo, reference)
	if damaged := (*store.DamagedError)(nil); errors.As(err, &damaged) {
		if err := p.client.Repair(ctx, repo, damaged.Descriptor); err != nil {
			return store.Manifest{}, err
		}
		m, err = p.store.Manifest(ctx, repo, reference)
	}
	if !errors.Is(err, store.ErrNotFound) {
		return m, err
	}
	if err := p.misses.recent(repo.Registry, name); err != nil {
		return store.Manifest{}, err
	}
	if published, err := p.belongs(ctx, repo, reference); err != nil || published {
		return store.Manifest{}, errors.Join(err, store.ErrNotFound)
	}
	var from *endpoint
	err = p.client.ask(ctx, repo, func(e *endpoint) (err error) {
		from = e
		if strings.Contains(reference, ":") {
			m, err = p.client.manifest(ctx, e, repo, digest.Digest(reference))
			return err
		}
		m, err = p.client.tagged(ctx, e, repo, reference)
		return err
	})
	if err != nil {
		p.misses.note(repo.Registry, name, err)
		return store.Manifest{}, err
	}
	p.wakeAll(repo.Registry)
	graph, err := store.ParseManifest(m.MediaType, m.Bytes)
	if err != nil {
		return store.Manifest{}, invalid(m.Digest, err)
	}
	a, err := p.store.Arrive(ctx, repo, reference, m.Descriptor)
	if errors.Is(err, store.ErrExists) { // another process was faster
		return p.store.Manifest(ctx, repo, reference)
	}
	if err != nil {
		return store.Manifest{}, err
	}
	if a.Digest != m.Digest {
		return p.part(ctx, p.begin(a), v1.Descriptor{Digest: a.Digest, MediaType: a.MediaType})
	}
	log := p.log
	if b, ok := p.client.Budget(repo.Registry); ok {
		log = log.With("left", b.String())
	}
	log.Info("pinned, fetching", "image", name, "digest", a.Digest.String(), "from", from.String())
	// Before the fetch begins, which would ask for it again.
	if m, err = p.store.LeaseFor(a).PutManifest(ctx, m); err != nil {
		return store.Manifest{}, err
	}
	p.met(p.begin(a), graph)
	return m, nil
}

// companionTag matches the tags that belong to a manifest: the referrers API's
// fallback and cosign's.
var companionTag = regexp.MustCompile(`^sha256-([0-9a-f]{64})(\.[a-z]+)?$`)

// belongs reports whether a reference would belong to an image that the store
// has whole: it was looked for when that was fetched, and a pin asks nobody.
func (p *PullThrough) belongs(ctx context.Context, repo store.Repository, reference string) (bool, error) {
	match := companionTag.FindStringSubmatch(reference)
	if match == nil {
		return false, nil
	}
	return p.published(ctx, repo, digest.NewDigestFromEncoded(digest.SHA256, match[1]))
}

func (p *PullThrough) published(ctx context.Context, repo store.Repository, d digest.Digest) (bool, error) {
	_, err := p.store.Manifest(ctx, repo, d.String())
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// part returns a manifest of an image that is arriving, and brings it before if
// need be.
func (p *PullThrough) part(ctx context.Context, x *arriving, desc v1.Descriptor) (store.Manifest, error) {
	repo := x.arrival.Repository
	name := repo.String() + "@" + desc.Digest.String()
	if there, err := p.store.Has(ctx, desc.Digest); err == nil && !there {
		if err := p.misses.recent(repo.Registry, name); err != nil {
			return store.Manifest{}, err
		}
	}
	m, err := newFetch(newWhole(p.client, x.lease, repo, &Progress{})).manifest(ctx, desc)
	if err != nil {
		p.misses.note(repo.Registry, name, err)
		return store.Manifest{}, err
	}
	graph, err := store.ParseManifest(m.MediaType, m.Bytes)
	if err != nil {
		return store.Manifest{}, invalid(m.Digest, err)
	}
	p.met(x, graph)
	return m, nil
}
