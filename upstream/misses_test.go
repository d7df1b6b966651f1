package upstream

import (
	"errors"
	"fmt"
	"testing"
)

// Whoever makes up names has misses forgotten, but not that a registry wants to
// be left alone.
func TestMissesOfManyNames(t *testing.T) {
	var m misses
	m.note("busy.test", "busy.test/app:1", &Error{Cause: ErrRateLimited, Err: ErrRateLimited})
	m.note("example.test", "example.test/app:1", ErrNotFound)
	if err := m.recent("example.test", "example.test/app:1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a name that was missed: %v", err)
	}
	if err := m.recent("example.test", "example.test/app:2"); err != nil {
		t.Errorf("another name: %v", err)
	}
	for i := range 2 * maxMisses {
		m.note("example.test", fmt.Sprint("example.test/made-up:", i), ErrNotFound)
	}
	if len(m.names) > maxMisses {
		t.Errorf("%d names are remembered", len(m.names))
	}
	if err := m.recent("busy.test", "busy.test/other:1"); !errors.Is(err, ErrRateLimited) {
		t.Errorf("a registry that wants to be left alone: %v", err)
	}
}
