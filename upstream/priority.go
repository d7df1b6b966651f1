package upstream

import (
	"context"
	"io"
	"sync"
	"time"
)

// maxUrgent is how many blobs are transferred at a time because clients wait
// for them, besides the others. Each takes the memory of a transfer.
const maxUrgent = 16

// slots limits how many blobs are transferred at a time.
type slots struct {
	ordinary, urgent chan struct{}
}

func newSlots(ordinary int) slots {
	return slots{ordinary: make(chan struct{}, ordinary), urgent: make(chan struct{}, maxUrgent)}
}

// acquire waits for a slot, among the urgent ones as soon as the flight is.
func (s slots) acquire(ctx context.Context, f *flight) (release func(), err error) {
	if !f.isUrgent() {
		select {
		case s.ordinary <- struct{}{}:
			return func() { <-s.ordinary }, nil
		case <-f.urgent:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	select {
	case s.urgent <- struct{}{}:
		return func() { <-s.urgent }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// precedence lets background transfers wait for those that clients wait for.
type precedence struct {
	mu     sync.Mutex
	urgent int
	idle   chan struct{} // closed when there are none, if somebody waits
}

func (p *precedence) enter() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.urgent++
}

func (p *precedence) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.urgent--; p.urgent == 0 && p.idle != nil {
		close(p.idle)
		p.idle = nil
	}
}

// give lets others wait for a transfer from when a client waits for it until end
// is called. What itself waits, for a slot or for another process, is no reason
// to wait for it: two processes could slow down each other's transfers.
func (p *precedence) give(f *flight) (end func()) {
	ended := make(chan struct{})
	go func() {
		select {
		case <-f.urgent:
			p.enter()
			<-ended
			p.leave()
		case <-ended:
		}
	}()
	return func() { close(ended) }
}

// busy returns what is closed when no client waits any more, or nil.
func (p *precedence) busy() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.urgent == 0 {
		return nil
	}
	if p.idle == nil {
		p.idle = make(chan struct{})
	}
	return p.idle
}

// politePause is the longest that a background transfer reads nothing, so that
// its upstream does not take it for dead.
const politePause = 5 * time.Second

// polite is a body that is read slowly while clients wait for others.
type polite struct {
	io.Reader
	ctx        context.Context
	flight     *flight
	precedence *precedence
}

func (p *polite) Read(b []byte) (int, error) {
	if idle := p.precedence.busy(); idle != nil && !p.flight.isUrgent() {
		select {
		case <-idle:
		case <-p.flight.urgent:
		case <-time.After(politePause):
		case <-p.ctx.Done():
			return 0, p.ctx.Err()
		}
	}
	return p.Reader.Read(b)
}

type urgentKey struct{}

// urgently marks requests that a client waits for.
func urgently(ctx context.Context) context.Context {
	return context.WithValue(ctx, urgentKey{}, true)
}

func isUrgent(ctx context.Context) bool { return ctx.Value(urgentKey{}) != nil }
