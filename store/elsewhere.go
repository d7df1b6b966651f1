package store

import (
	"context"
	"os"
	"sync"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Elsewhere is content that another process writes, which can be followed as a
// Writer can: what it writes shows some milliseconds later. Who writes may
// change meanwhile. It is safe for concurrent use.
type Elsewhere struct {
	desc  v1.Descriptor
	tail  *tail
	close func()
}

func (s *Store) watch(desc v1.Descriptor) *Elsewhere {
	e := &Elsewhere{desc: desc, tail: s.newTail(desc.Digest)}
	e.look()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-time.After(lockPoll):
				e.look()
			case <-stop:
				return
			}
		}
	}()
	e.close = sync.OnceFunc(func() {
		close(stop)
		<-stopped
		e.look()
		e.tail.update(func() { e.tail.ended = true })
	})
	return e
}

// Follow is Writer.Follow.
func (e *Elsewhere) Follow(ctx context.Context) (*Follower, error) {
	return e.tail.follow(ctx, e.desc)
}

// Close ends the watching. Whoever follows gets the rest if all is there, and
// ErrBroken if not.
func (e *Elsewhere) Close() { e.close() }

// look takes over what has changed. Nobody else changes the tail, except its
// followers.
func (e *Elsewhere) look() {
	t := e.tail
	if t.ended {
		return
	}
	file, err := os.Stat(t.paths[0])
	// It is moved to its place when it is verified, and not before.
	if there, e2 := os.Stat(t.paths[1]); e2 == nil && (t.file != nil && os.SameFile(there, t.file) || t.file == nil && err != nil && there.Size() == e.desc.Size) {
		t.update(func() { t.file, t.offset, t.verified, t.ended = there, e.desc.Size, true, true })
		return
	}
	switch {
	case err != nil: // it may come again
	case t.file == nil:
		t.update(func() { t.file, t.offset = file, file.Size() })
	case !os.SameFile(file, t.file):
		t.update(func() { t.file, t.offset, t.round = file, file.Size(), t.round+1 })
	case file.Size() != t.offset:
		t.update(func() { t.offset = file.Size() })
	}
}
