package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"mirrorctl/store"
)

// beginning is how long a client waits at most for the first byte before it is
// told that the blob is there. Until then it can be told that it is not, and goes
// to its next host, while an answer that breaks off is the end for many; but
// containerd gives up after 30 s without an answer.
const beginning = 5 * time.Second

// clientReader is a blob that is on its way, as a client reads it. The client
// waits for the flight until Close, which may come while Read is under way.
type clientReader struct {
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	flight *flight
	size   int64
	leave  func()
	open   func() (io.ReadSeekCloser, error) // once; waits for the transfer to begin

	pos   int64
	moved bool // pos is not where the content is
}

func (p *PullThrough) newClientReader(ctx context.Context, b wanted, f *flight, leave func()) *clientReader {
	r := &clientReader{flight: f, size: b.Size, leave: leave}
	r.ctx, r.cancel = context.WithCancel(ctx)
	r.open = sync.OnceValues(func() (io.ReadSeekCloser, error) {
		select {
		case <-f.begun:
			follower, err := f.source.Follow(r.ctx)
			if !errors.Is(err, store.ErrNotFound) {
				return follower, err
			}
		case <-f.done:
		case <-r.ctx.Done():
			return nil, r.ctx.Err()
		}
		if err := r.ended(); err != nil {
			return nil, err
		}
		content, _, err := p.store.Blob(r.ctx, b.repo, b.Digest)
		if errors.Is(err, store.ErrNotFound) {
			err = fmt.Errorf("blob %s: %w", b.Digest, store.ErrBroken)
		}
		return content, err
	})
	return r
}

// ended waits for the end of the flight.
func (r *clientReader) ended() error {
	select {
	case <-r.flight.done:
		return nil
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
}

// begin waits for the first byte, but not for long. It returns store.ErrBroken
// when the flight has ended without one.
func (r *clientReader) begin() error {
	late := time.NewTimer(beginning)
	defer late.Stop()
	select {
	case <-r.flight.begun:
	case <-r.flight.done:
	case <-late.C: // it waits for others
		return nil
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
	content, err := r.open()
	if follower, ok := content.(*store.Follower); ok && err == nil {
		err = follower.Await(late.C)
	}
	if errors.Is(err, store.ErrBroken) {
		err = errors.Join(err, r.ended())
	}
	return err
}

func (r *clientReader) Read(p []byte) (int, error) {
	content, err := r.open()
	if err == nil && r.moved {
		_, err = content.Seek(r.pos, io.SeekStart)
		r.moved = false
	}
	if err != nil {
		return 0, err
	}
	n, err := content.Read(p)
	r.pos += int64(n)
	return n, err
}

func (r *clientReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.pos
	case io.SeekEnd:
		offset += r.size
	}
	if offset < 0 {
		return 0, fmt.Errorf("seek to %d", offset)
	}
	r.pos, r.moved = offset, true
	return offset, nil
}

func (r *clientReader) Close() error {
	r.leave()
	r.cancel()
	content, err := r.open()
	if err != nil {
		return nil // it was never opened
	}
	return content.Close()
}
