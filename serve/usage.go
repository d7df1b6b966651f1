package serve

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"mirrorctl/store"
)

// maxUsed limits how many references are counted between two calls of TakeUsage.
// Whoever asks for more names a great deal that is not pinned.
const maxUsed = 1 << 16

// usage counts who asks for manifests, by the name that they ask for. The zero
// value is ready. It is safe for concurrent use.
type usage struct {
	mu  sync.RWMutex
	all map[answerKey]*used
	// old are those that were taken once. Kept answers may still count there; not
	// for longer, as recording what was taken changes the index, and so ends them.
	old map[answerKey]*used
}

// used is the count of one reference.
type used struct {
	hits atomic.Int64
	last atomic.Int64 // Unix seconds
}

func (u *used) note() {
	if u == nil {
		return
	}
	u.hits.Add(1)
	u.last.Store(time.Now().Unix())
}

// of returns the count of a reference, nil if there are too many.
func (u *usage) of(repo store.Repository, reference string) *used {
	key := answerKey{repo, reference}
	u.mu.RLock()
	one := u.all[key]
	u.mu.RUnlock()
	if one != nil {
		return one
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if one := u.all[key]; one != nil || len(u.all) >= maxUsed {
		return one
	}
	if u.all == nil {
		u.all = map[answerKey]*used{}
	}
	// A copy: the request's name is a part of its URL.
	key.repo.Registry, key.repo.Path, key.reference = strings.Clone(repo.Registry), strings.Clone(repo.Path), strings.Clone(reference)
	one = &used{}
	u.all[key] = one
	return one
}

// Usage is how often a reference was asked for since it was last taken. A
// request by another name of the same content is none of its own.
func (h *Handler) Usage(repo store.Repository, reference string) store.Usage {
	h.usage.mu.RLock()
	defer h.usage.mu.RUnlock()
	sum := store.Usage{Repository: repo, Reference: reference}
	for _, all := range []map[answerKey]*used{h.usage.all, h.usage.old} {
		if one := all[answerKey{repo, reference}]; one != nil && one.hits.Load() > 0 {
			sum.Hits += one.hits.Load()
			if last := time.Unix(one.last.Load(), 0).UTC(); last.After(sum.Last) {
				sum.Last = last
			}
		}
	}
	return sum
}

// TakeUsage returns how often references were asked for since it was called
// before, and counts anew. Some of them are not pinned.
func (h *Handler) TakeUsage() []store.Usage {
	h.usage.mu.Lock()
	defer h.usage.mu.Unlock()
	var taken []store.Usage
	for _, all := range []map[answerKey]*used{h.usage.all, h.usage.old} {
		for key, one := range all {
			if n := one.hits.Swap(0); n > 0 {
				taken = append(taken, store.Usage{
					Repository: key.repo, Reference: key.reference, Hits: n, Last: time.Unix(one.last.Load(), 0).UTC(),
				})
			}
		}
	}
	h.usage.all, h.usage.old = nil, h.usage.all
	return taken
}
