package cmd

import (
	"io"
	"sync"
	"time"
)

const (
	// gatherTime is how long a line may wait for others.
	gatherTime = 10 * time.Millisecond
	// gatherSize is how many bytes may wait.
	gatherSize = 64 << 10
)

// lineBuffer passes lines on. One that comes after a pause goes out at once;
// where many come, those of gatherTime go out together, because a write of each
// costs a busy mirror as much as its answer. It is safe for concurrent use.
type lineBuffer struct {
	mu      sync.Mutex
	w       io.Writer
	waiting []byte
	gather  *time.Timer // running if busy
	busy    bool        // something was written less than gatherTime ago
}

func newLineBuffer(w io.Writer) *lineBuffer {
	b := &lineBuffer{w: w}
	b.gather = time.AfterFunc(time.Hour, b.gathered)
	b.gather.Stop()
	return b
}

// Write takes one or more whole lines. The error is that of the lines which it
// sends; for those that wait there is none.
func (b *lineBuffer) Write(lines []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.busy {
		b.busy = true
		b.gather.Reset(gatherTime)
		return b.w.Write(lines)
	}
	b.waiting = append(b.waiting, lines...)
	if len(b.waiting) < gatherSize {
		return len(lines), nil
	}
	return len(lines), b.flush()
}

// gathered is called when gatherTime is over.
func (b *lineBuffer) gathered() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.busy = len(b.waiting) > 0; b.busy {
		_ = b.flush() // a mirror outlives its log
		b.gather.Reset(gatherTime)
	}
}

// Flush sends what waits.
func (b *lineBuffer) Flush() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.flush()
}

func (b *lineBuffer) flush() error {
	if len(b.waiting) == 0 {
		return nil
	}
	_, err := b.w.Write(b.waiting)
	b.waiting = b.waiting[:0]
	return err
}
