package serve

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"mirrorctl/store"
)

// Versioned is a [Content] that can tell whether it changed.
type Versioned interface {
	// Version returns another number after every change of what Manifest
	// returns. It is asked at most every few milliseconds.
	Version(ctx context.Context) (int64, error)
}

const (
	// trusted is how long a version is not asked for again: a pin or removal by
	// another process is seen that much later.
	trusted = 20 * time.Millisecond
	// cacheSize is how many bytes of manifests are kept.
	cacheSize = 64 << 20
)

// answer is what is sent for a manifest, prepared: a header's values are the
// same slices in all answers, and nothing may change them.
type answer struct {
	manifest                            store.Manifest
	mediaType, digest, etag, byteLength []string

	used *used // nil if it is not kept
}

func newAnswer(m store.Manifest) *answer {
	return &answer{
		manifest:   m,
		mediaType:  []string{m.MediaType},
		digest:     []string{string(m.Digest)},
		etag:       []string{`"` + string(m.Digest) + `"`},
		byteLength: []string{strconv.Itoa(len(m.Bytes))},
	}
}

// cache keeps answers as long as the content's version stays the same. It is
// safe for concurrent use.
type cache struct {
	content Versioned
	began   time.Time
	checked atomic.Int64 // when the version was asked for, after began, in nanoseconds

	mu      sync.Mutex // of checks
	version int64
	now     atomic.Pointer[answers]
}

// answers are those of one version.
type answers struct {
	mu    sync.RWMutex
	all   map[answerKey]*answer
	bytes int
}

type answerKey struct {
	repo      store.Repository
	reference string
}

func newCache(content Versioned) *cache {
	c := &cache{content: content, began: time.Now()}
	c.checked.Store(int64(-2 * trusted))
	c.now.Store(&answers{})
	return c
}

// current returns the answers of the present version: what is read from the
// content after it may be added to them.
func (c *cache) current(ctx context.Context) *answers {
	now := int64(time.Since(c.began))
	if late := now - c.checked.Load(); late > int64(trusted) {
		// One asks. The others go on meanwhile, unless there was no request
		// for a while and what is here may be old.
		if c.mu.TryLock() {
			c.check(ctx, now)
			c.mu.Unlock()
		} else if late > int64(2*trusted) {
			c.mu.Lock()
			c.check(ctx, now)
			c.mu.Unlock()
		}
	}
	return c.now.Load()
}

func (c *cache) check(ctx context.Context, now int64) {
	if now-c.checked.Load() <= int64(trusted) {
		return // somebody else was faster
	}
	version, err := c.content.Version(ctx)
	if err != nil {
		c.now.Store(&answers{})
		return
	}
	if version != c.version {
		c.version = version
		c.now.Store(&answers{})
	}
	c.checked.Store(now)
}

func (a *answers) get(key answerKey) *answer {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.all[key]
}

func (a *answers) add(key answerKey, found *answer) {
	size := len(found.manifest.Bytes) + 512 // and what is around it
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.all == nil {
		a.all = map[answerKey]*answer{}
	}
	if a.all[key] != nil || size > cacheSize/16 {
		return
	}
	for old, was := range a.all { // any: what is asked for often comes back at once
		if a.bytes+size <= cacheSize {
			break
		}
		a.bytes -= len(was.manifest.Bytes) + 512
		delete(a.all, old)
	}
	a.all[key] = found
	a.bytes += size
}
