package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// ErrBroken ends the reading of content that turned out not to be what its
// digest promises, or whose transfer was given up.
var ErrBroken = errors.New("the content did not arrive")

// heldBack is how many bytes at the end of content nobody gets to read before
// all of it is verified: who has the last byte could take a corrupt blob for a
// complete one. It is more than one byte so that what is cut off is seen to be
// cut off also where something in between deals in blocks.
const heldBack = 64 << 10

// tail is how far a writer has come, for those who follow it.
type tail struct {
	paths [2]string // where the content is: while it arrives, and then

	mu        sync.Mutex
	file      fs.FileInfo // which it is that is written
	offset    int64
	round     int  // how often the writer started from zero, with another file
	verified  bool // all is there and is what it should be
	ended     bool // nothing more will come
	followers int
	changed   chan struct{} // closed at the next change, if somebody waits
}

func (s *Store) newTail(d digest.Digest) *tail {
	return &tail{paths: [2]string{s.ingestPath(d), s.blobPath(d)}}
}

// open opens the file of the present round, wherever it is by now.
func (t *tail) open() (*os.File, error) {
	t.mu.Lock()
	wanted := t.file
	t.mu.Unlock()
	for _, path := range t.paths {
		file, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		// Another process may have a file of its own under the same name.
		if there, err := file.Stat(); err == nil && os.SameFile(wanted, there) {
			return file, nil
		}
		file.Close()
	}
	return nil, ErrBroken
}

func (t *tail) update(fn func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fn()
	if t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
}

// followed reports whether somebody waits for what is written.
func (t *tail) followed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.followers > 0
}

// Follower reads content while it is being written, from any offset. All but
// the end can be read before the content is verified; Read waits for what is
// not there yet. A Follower is not safe for concurrent use, but Close may be
// called while Read is under way.
type Follower struct {
	ctx    context.Context
	tail   *tail
	digest digest.Digest
	size   int64
	pos    int64
	round  int // of the writer, when the first byte was read
	began  bool
	close  func() error

	mu     sync.Mutex
	file   *os.File // opened with the first byte
	closed bool
}

// Follow returns a reader of what the writer writes, which may be called from
// any goroutine. Reads end with ctx. It returns ErrNotFound if the writer is
// done: the content is in the store, or is not coming.
func (w *Writer) Follow(ctx context.Context) (*Follower, error) {
	return w.tail.follow(ctx, w.desc)
}

func (t *tail) follow(ctx context.Context, desc v1.Descriptor) (*Follower, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return nil, fmt.Errorf("blob %s: its writer is done: %w", desc.Digest, ErrNotFound)
	}
	t.followers++
	f := &Follower{ctx: ctx, tail: t, digest: desc.Digest, size: desc.Size}
	f.close = sync.OnceValue(func() error {
		f.tail.update(func() { f.tail.followers-- })
		f.mu.Lock()
		defer f.mu.Unlock()
		f.closed = true
		if f.file == nil {
			return nil
		}
		return f.file.Close()
	})
	return f, nil
}

// opened returns the file that is read.
func (f *Follower) opened() (*os.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, os.ErrClosed
	}
	var err error
	if f.file == nil {
		f.file, err = f.tail.open()
	}
	return f.file, err
}

// Await waits until something is written, or until late. It returns ErrBroken if
// the writer gave up before.
func (f *Follower) Await(late <-chan time.Time) error {
	for {
		begun, changed, err := f.tail.begun()
		if err != nil {
			return fmt.Errorf("blob %s: %w", f.digest, err)
		}
		if begun {
			return nil
		}
		select {
		case <-changed:
		case <-late:
			return nil
		case <-f.ctx.Done():
			return f.ctx.Err()
		}
	}
}

// begun reports whether something is written, and what is closed when that
// changes.
func (t *tail) begun() (bool, <-chan struct{}, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.verified || t.offset > 0 && !t.ended:
		return true, nil, nil
	case t.ended:
		return false, nil, ErrBroken
	}
	return false, t.change(), nil
}

// change is what is closed at the next change; t.mu is locked.
func (t *tail) change() <-chan struct{} {
	if t.changed == nil {
		t.changed = make(chan struct{})
	}
	return t.changed
}

// Size is that of the whole content, in bytes.
func (f *Follower) Size() int64 { return f.size }

// Close ends the reading.
func (f *Follower) Close() error { return f.close() }

// Seek sets where the next Read begins.
func (f *Follower) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += f.pos
	case io.SeekEnd:
		offset += f.size
	}
	if offset < 0 {
		return 0, fmt.Errorf("blob %s: seek to %d", f.digest, offset)
	}
	f.pos = offset
	return offset, nil
}

// Read reads what is there, and waits if nothing is. It returns ErrBroken if
// what was read before cannot be completed.
func (f *Follower) Read(p []byte) (int, error) {
	if f.pos >= f.size {
		return 0, io.EOF
	}
	for {
		visible, changed, err := f.visible()
		if err != nil {
			return 0, err
		}
		if f.pos < visible {
			file, err := f.opened()
			if err != nil {
				return 0, fmt.Errorf("blob %s: %w", f.digest, err)
			}
			n, err := file.ReadAt(p[:min(int64(len(p)), visible-f.pos)], f.pos)
			if !f.valid() || errors.Is(err, io.EOF) && n == 0 {
				return 0, fmt.Errorf("blob %s: %w", f.digest, ErrBroken)
			}
			f.pos += int64(n)
			return n, ignoreEOF(err) // of the file, which grows
		}
		select {
		case <-changed:
		case <-f.ctx.Done():
			return 0, f.ctx.Err()
		}
	}
}

// valid reports whether the writer is still in the same round: what was read
// while it started anew may be of either.
func (f *Follower) valid() bool {
	f.tail.mu.Lock()
	defer f.tail.mu.Unlock()
	return !f.began || f.round == f.tail.round
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// visible is up to where the content may be read, and what is closed when that
// changes.
func (f *Follower) visible() (int64, <-chan struct{}, error) {
	t := f.tail
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.began && f.round != t.round {
		return 0, nil, fmt.Errorf("blob %s: %w", f.digest, ErrBroken)
	}
	if t.verified {
		f.began, f.round = true, t.round
		return f.size, nil, nil
	}
	if t.ended {
		return 0, nil, fmt.Errorf("blob %s: %w", f.digest, ErrBroken)
	}
	visible := min(t.offset, f.size-heldBack)
	if f.pos < visible {
		f.began, f.round = true, t.round
		return visible, nil, nil
	}
	return visible, t.change(), nil
}
