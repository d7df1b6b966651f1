package upstream

import (
	"errors"
	"sync"
	"time"
)

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

// remembered is how long an error stands for an answer: that of a miss, or of a
// registry that wants to be left alone. It is 0 for all that may be over.
func remembered(err error) time.Duration {
	switch {
	case errors.Is(err, ErrRateLimited):
		var failed *Error
		errors.As(err, &failed)
		return min(max(failed.retryAfter, retryAfter), maxRest)
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrUnauthorized), errors.Is(err, ErrForbidden):
		return missFor
	}
	return 0
}

// note remembers an error that stands for an answer.
func (m *misses) note(registry, name string, err error) {
	wait := remembered(err)
	if wait == 0 {
		return
	}
	if errors.Is(err, ErrRateLimited) {
		name = registry
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
