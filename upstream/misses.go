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
	mu         sync.Mutex
	names      map[string]miss
	registries map[string]miss // that want to be left alone: as many as are listed
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
	for _, last := range []miss{m.registries[registry], m.names[name]} {
		if time.Now().Before(last.until) {
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
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if errors.Is(err, ErrRateLimited) {
		if m.registries == nil {
			m.registries = map[string]miss{}
		}
		m.registries[registry] = miss{err, now.Add(wait)}
		return
	}
	if len(m.names) >= maxMisses {
		for name, last := range m.names {
			if now.After(last.until) {
				delete(m.names, name)
			}
		}
	}
	if m.names == nil || len(m.names) >= maxMisses { // somebody makes up names
		m.names = map[string]miss{}
	}
	m.names[name] = miss{err, now.Add(wait)}
}
