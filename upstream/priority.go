package upstream

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"
)

// maxUrgent is how many blobs of one registry are transferred at a time because
// clients wait for them, besides the others. Each takes the memory of a
// transfer. Each registry has its own, so that one that stalls holds up nobody
// who wants another.
const maxUrgent = 16

// urgentSlots are those of one registry.
type urgentSlots struct {
	taken chan struct{}
	// handed passes a slot from a transfer whose clients have left to one that a
	// client waits for: it has no buffer, so only somebody who waits takes it.
	handed chan struct{}
}

func newUrgentSlots() urgentSlots {
	return urgentSlots{taken: make(chan struct{}, maxUrgent), handed: make(chan struct{})}
}

// slot is the permission to transfer the blob of one flight. It is used by one
// goroutine at a time.
type slot struct {
	flight   *flight
	ordinary chan struct{}
	urgent   urgentSlots
	held     chan struct{} // of which one is taken, or nil
}

// slot returns a slot for a flight, which is to be acquired.
func (c *Client) slot(f *flight) (*slot, error) {
	r, err := c.registry(f.repo.Registry)
	if err != nil {
		return nil, err
	}
	return &slot{flight: f, ordinary: r.ordinary, urgent: r.urgent}, nil
}

// acquire waits for the permission, among the urgent ones as long as a client
// waits for the flight.
func (s *slot) acquire(ctx context.Context) error {
	for s.held == nil {
		urgent, changed := s.flight.urgency()
		ordinary, taken, handed := s.ordinary, s.urgent.taken, s.urgent.handed
		if urgent {
			ordinary = nil
		} else {
			taken, handed = nil, nil
		}
		select {
		case ordinary <- struct{}{}:
			s.held = s.ordinary
		case taken <- struct{}{}:
			s.held = s.urgent.taken
		case <-handed:
			s.held = s.urgent.taken
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (s *slot) release() {
	if s.held != nil {
		<-s.held
		s.held = nil
	}
}

// giving is where an urgent slot can be given to somebody who waits; nil if
// this is none.
func (s *slot) giving() chan<- struct{} {
	if s == nil || s.held != s.urgent.taken {
		return nil
	}
	return s.urgent.handed
}

// errGaveWay ends the transfer of a blob whose slot a client took over that
// waits for another one. It goes on when there is another slot.
var errGaveWay = errors.New("it gave way to what a client waits for")

// giveWay makes the slot of a flight that no client waits for an ordinary one, or
// gives it to somebody who waits and returns errGaveWay.
func (s *slot) giveWay() error {
	giving := s.giving()
	if giving == nil {
		return nil
	}
	select {
	case s.ordinary <- struct{}{}:
		s.release()
		s.held = s.ordinary
		return nil
	default:
	}
	select {
	case giving <- struct{}{}:
		s.held = nil
		return errGaveWay
	default:
	}
	return nil
}

// lull is how long after the last byte for a client background transfers go on
// waiting: it may be about to ask for the next blob.
const lull = 250 * time.Millisecond

// precedence lets background transfers wait for those that clients wait for, as
// long as bytes come for these: what stalls, or waits for a slot or for another
// process, slows down nobody. It is safe for concurrent use.
type precedence struct {
	began time.Time
	lull  time.Duration
	until atomic.Int64 // after began, in nanoseconds
}

func newPrecedence() precedence { return precedence{began: time.Now(), lull: lull} }

// claim says that something was asked for, or has come, for a client.
func (p *precedence) claim() { p.until.Store(int64(time.Since(p.began) + p.lull)) }

// left is how long others have to wait, if nothing more comes for a client.
func (p *precedence) left() time.Duration {
	return time.Duration(p.until.Load()) - time.Since(p.began)
}

// politePause is the longest that a background transfer reads nothing, so that
// its upstream does not take it for dead.
const politePause = 5 * time.Second

// stepAside waits as long as clients wait for others than this flight, but not
// longer than politePause. It returns errGaveWay if s, which may be nil, had to
// be given away.
func (c *Client) stepAside(ctx context.Context, f *flight, s *slot) error {
	for end := time.Now().Add(politePause); ; {
		urgent, changed := f.urgency()
		if urgent {
			c.precedence.claim()
			return nil
		}
		if err := s.giveWay(); err != nil {
			return err
		}
		wait := min(c.precedence.left(), time.Until(end))
		if wait <= 0 {
			return nil
		}
		select {
		case <-time.After(wait):
		case <-changed:
		case s.giving() <- struct{}{}:
			s.held = nil
			return errGaveWay
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// polite is a body that is read slowly while clients wait for others.
type polite struct {
	io.Reader
	ctx    context.Context
	client *Client
	flight *flight
	slot   *slot // that it may give away, or nil
}

func (p *polite) Read(b []byte) (int, error) {
	if err := p.client.stepAside(p.ctx, p.flight, p.slot); err != nil {
		return 0, err
	}
	n, err := p.Reader.Read(b)
	if urgent, _ := p.flight.urgency(); urgent && n > 0 {
		p.client.precedence.claim()
	}
	return n, err
}

type urgentKey struct{}

// urgently marks requests that a client waits for.
func urgently(ctx context.Context) context.Context {
	return context.WithValue(ctx, urgentKey{}, true)
}

func isUrgent(ctx context.Context) bool { return ctx.Value(urgentKey{}) != nil }
