package upstream

import (
	"sync"
	"time"
)

// DefaultConnections is how many connections to one registry large blobs are
// read over, all together, where one alone is slow.
const DefaultConnections = 16

const (
	// longRest and minRest are what must be left of a blob, in time at the rate
	// of one connection and in bytes, to be worth further ones.
	longRest = 2 * time.Second
	minRest  = 16 << 20
	// fastEnough, in bytes a second, is a rate that one connection is left alone
	// with: 400 Mbit/s.
	fastEnough = 50e6
	// firstLook is how long the first measurement of a connection waits for
	// bytes, and laterLook each further one.
	firstLook = 40 * time.Millisecond
	laterLook = 500 * time.Millisecond
	// firstStep is to how many connections a blob goes at first, and nextStep
	// how many are added each time that this was worth it.
	firstStep = 8
	nextStep  = 4
	// gain is how much faster more connections must be to be kept.
	gain = 1.15
)

// alone measures the one connection that a blob begins with.
type alone struct {
	bytes  int64
	waited time.Duration // for them; what their reader does meanwhile does not count
	looked bool
}

// add counts what a read brought. It returns the rate, in bytes a second, when
// enough was seen, and 0 otherwise.
func (a *alone) add(n int, took time.Duration) float64 {
	a.bytes += int64(n)
	a.waited += took
	look := laterLook
	if !a.looked {
		look = firstLook
	}
	if a.waited < look || a.bytes == 0 {
		return 0
	}
	rate := float64(a.bytes) / a.waited.Seconds()
	*a = alone{looked: true}
	return rate
}

// slow reports whether further connections may help with what is left.
func slow(rate float64, rest int64) bool {
	return rest >= minRest && rate < fastEnough && float64(rest)/rate >= longRest.Seconds()
}

// pace decides over how many connections a blob is read: more as long as they
// make it faster, and those that do not help are given up. It is not safe for
// concurrent use.
type pace struct {
	limit  int
	target int     // connections
	before int     // target before the last step
	rate   float64 // of those, in bytes a second
	settle time.Duration
	from   time.Time // when the measurement begins: after new connections have answered
	bytes  int64     // since then
}

// newPace begins with the rate of one connection whose answer took delay.
func newPace(rate float64, delay time.Duration, limit int, now time.Time) *pace {
	p := &pace{limit: limit, target: 1, rate: rate, settle: 2*delay + 50*time.Millisecond}
	p.step(firstStep, rate, now)
	return p
}

func (p *pace) step(target int, rate float64, now time.Time) {
	p.before, p.target, p.rate = p.target, min(target, p.limit), rate
	p.restart(now)
}

// restart begins the measurement anew.
func (p *pace) restart(now time.Time) { p.from, p.bytes = now.Add(p.settle), 0 }

// add counts n bytes, over all connections.
func (p *pace) add(n int, now time.Time) {
	if p.target == p.before || now.Before(p.from) { // settled, or not there yet
		return
	}
	p.bytes += int64(n)
	took := now.Sub(p.from)
	if took < laterLook {
		return
	}
	rate := float64(p.bytes) / took.Seconds()
	switch {
	case rate < gain*p.rate:
		p.target, p.limit = p.before, p.before
	default:
		p.step(p.target+nextStep, rate, now)
	}
}

// lines counts the connections to an endpoint that blobs are read over. It is
// safe for concurrent use.
type lines struct {
	mu   sync.Mutex
	busy int
}

// enter counts a connection that is needed anyway.
func (l *lines) enter() { l.tryEnter(1 << 30) }

// tryEnter counts a further one, unless there are as many as limit.
func (l *lines) tryEnter(limit int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy >= limit {
		return false
	}
	l.busy++
	return true
}

func (l *lines) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy--
}
