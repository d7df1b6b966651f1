package cmd

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"mirrorctl/lockfile"
	"mirrorctl/store"
)

// meaning asks upstream what an image's name means now, once.
func (r *jobs) meaning(ctx context.Context, j *job) (v1.Descriptor, error) {
	if !j.asked {
		j.root, j.askedErr = r.upstream.Resolve(ctx, j.name)
		j.asked = true
	}
	return j.root, j.askedErr
}

// forecast asks what has to be resolved, which no registry counts, and says how
// many requests that it counts the rest will take, for those registries that tell
// their budget. What an index lists is known of locked images only.
func (r *jobs) forecast(ctx context.Context, all []*job) []string {
	var mu sync.Mutex
	needed := map[string]int{}
	var wg sync.WaitGroup
	slots := make(chan struct{}, parallelImages)
	for _, j := range all {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			n := r.requests(ctx, j)
			repo, _ := store.Locate(j.name)
			mu.Lock()
			defer mu.Unlock()
			needed[repo.Registry] += n
		})
	}
	wg.Wait()
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(needed)) {
		if b, ok := r.upstream.Budget(name); ok && needed[name] > 0 {
			lines = append(lines, fmt.Sprintf("%s: at least %d counted requests to make, %s left", name, needed[name], b))
		}
	}
	return lines
}

// requests is how many requests for manifests an image needs at least. What goes
// wrong here, doing it will say.
func (r *jobs) requests(ctx context.Context, j *job) int {
	if j.locked.Digest != "" && !j.update {
		// The usual case, for one query: whatever is decided, nothing is asked.
		repo, _ := store.Locate(j.name)
		if pinned, err := r.store.PinnedIn(ctx, repo, j.locked.Digest); err == nil && pinned {
			return 0
		}
	}
	action, pin, err := r.plan(ctx, j)
	if err != nil {
		return 0
	}
	platforms := len(j.locked.Platforms)
	switch {
	case action == lockfile.FetchLocked, action == lockfile.FetchPinned:
	case action != lockfile.Resolve, j.named && j.locked.Digest != "" && pin.Digest != "" && j.locked.Digest != pin.Digest:
		return 0
	default:
		root, err := r.meaning(ctx, j)
		if err != nil || root.Digest == pin.Digest {
			return 0
		}
		if !store.IsIndex(root.MediaType) {
			return 1
		}
	}
	return 1 + max(platforms, 1)
}

// budgets says what is left at the registries that count.
func (r *jobs) budgets(all []*job) []string {
	names := map[string]bool{}
	for _, j := range all {
		repo, _ := store.Locate(j.name)
		names[repo.Registry] = true
	}
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if b, ok := r.upstream.Budget(name); ok {
			lines = append(lines, fmt.Sprintf("%s: %s left", name, b))
		}
	}
	return lines
}
