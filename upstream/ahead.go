package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// maxAhead is how many bytes of all blobs may be here before their turn.
	maxAhead = 48 << 20
	// maxPart and minPart are how many bytes are asked for at a time.
	maxPart = 3 << 20
	minPart = 1 << 20
	// blockSize is what the memory of a part grows by.
	blockSize = 256 << 10
	// partTries is how often a part is tried: after that it is the blob's turn,
	// whose tries are more.
	partTries = 2
	// maxDoubts is after how many failures a blob is read over one connection.
	maxDoubts = 2
)

// errOrdinary ends the reading of a blob in parts. What is left is to be read
// over one connection.
var errOrdinary = errors.New("to be read over one connection")

// block is memory for parts.
type block struct {
	counted bool // in Client.ahead
	bytes   [blockSize]byte
}

// blocks are used again.
var blocks = sync.Pool{New: func() any { return new(block) }}

// ahead is the content of a blob from one endpoint, in order. It begins as the
// body of the ordinary request. If one connection is slow, parts further ahead
// are fetched over others, and the first one is given up where they begin; it
// just goes on if the server does not send parts. Read and Close must not be
// called at the same time.
type ahead struct {
	client   *Client
	endpoint *endpoint
	flight   *flight
	desc     v1.Descriptor
	request  *http.Request // that was answered with the first body
	delay    time.Duration // until it was
	ctx      context.Context
	cancel   context.CancelFunc
	tasks    sync.WaitGroup
	first    io.ReadCloser // nil after it was given up
	polite   io.Reader     // first
	pos      int64         // up to where all was read
	alone    alone
	possible bool // more than one connection

	mu      sync.Mutex
	changed *sync.Cond // more has arrived or was read, or a part has ended
	parts   []*part    // begun and not yet read, in order
	next    int64      // where the next part begins
	size    int64      // of a part
	pace    *pace      // nil as long as there is one connection
	running int        // connections
	failed  bool       // a part has: none is begun any more
}

// newAhead returns the content from pos on, which a body is known to have.
func (c *Client) newAhead(ctx context.Context, e *endpoint, f *flight, desc v1.Descriptor, pos int64, body io.ReadCloser) *ahead {
	a := &ahead{client: c, endpoint: e, flight: f, desc: desc, pos: pos, first: body, running: 1}
	a.ctx, a.cancel = context.WithCancel(ctx)
	a.changed = sync.NewCond(&a.mu)
	context.AfterFunc(a.ctx, a.wake)
	a.polite = &polite{body, a.ctx, c, f, f.slot}
	e.lines.enter()
	return a
}

// inParts allows for parts, after an answer that took delay.
func (a *ahead) inParts(resp *http.Response, delay time.Duration) {
	a.request, a.delay = resp.Request, delay
	a.possible = a.flight.doubts < maxDoubts && !a.endpoint.whole.Load() && resp.Header.Get("Accept-Ranges") != "none"
}

// Read returns errOrdinary when it is better to ask for the rest by an ordinary
// request.
func (a *ahead) Read(p []byte) (int, error) {
	for a.first != nil {
		head := a.head()
		switch {
		case head == nil:
			return a.readFirst(p)
		case a.pos < head.from:
			return a.readFirst(p[:min(int64(len(p)), head.from-a.pos)])
		case a.take(head):
			a.leaveFirst()
		}
	}
	return a.readParts(p)
}

func (a *ahead) head() *part {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.parts) == 0 {
		return nil
	}
	return a.parts[0]
}

// readFirst reads the body of the ordinary request, and looks whether it is slow.
func (a *ahead) readFirst(p []byte) (int, error) {
	began := time.Now()
	n, err := a.polite.Read(p)
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pos += int64(n)
	if !a.possible || err != nil {
		return n, err
	}
	if a.pace != nil {
		a.measure(n)
		a.spawn()
		return n, nil
	}
	if a.yielding() {
		a.alone = alone{looked: a.alone.looked}
		return n, nil
	}
	if rate := a.alone.add(n, now.Sub(began)); rate > 0 && slow(rate, a.desc.Size-a.pos) {
		a.begin(rate, now)
	}
	return n, nil
}

// begin starts the first parts; a.mu is locked.
func (a *ahead) begin(rate float64, now time.Time) {
	a.pace = newPace(rate, a.delay, a.client.opts.Connections, now)
	n := int64(a.pace.target)
	rest := a.desc.Size - a.pos
	rounds := (rest + n*maxPart - 1) / (n * maxPart)
	a.size = max(rest/(n*rounds)+1, minPart)
	// The first connection comes to the first part when that is here.
	meanwhile := min(int64(rate*a.delay.Seconds()), a.size)
	a.next = a.pos + a.size + meanwhile
	if a.spawn(); len(a.parts) == 0 {
		a.pace = nil // others have all connections or all memory
		return
	}
	a.client.log.Debug("reading in parts", "blob", a.desc.Digest, "from", a.endpoint.String(),
		"rate", int64(rate), "connections", a.running, "part", a.size)
}

// yielding reports whether others come first.
func (a *ahead) yielding() bool {
	urgent, _ := a.flight.urgency()
	return !urgent && a.client.precedence.left() > 0
}

// measure counts what has arrived; a.mu is locked.
func (a *ahead) measure(n int) {
	if a.yielding() {
		a.pace.restart(time.Now())
		return
	}
	before := a.pace.target
	if a.pace.add(n, time.Now()); a.pace.target != before {
		a.client.log.Debug("reading in parts", "blob", a.desc.Digest, "rate", int64(a.pace.rate), "connections", a.pace.target)
	}
}

// spawn begins as many parts as there should be; a.mu is locked.
func (a *ahead) spawn() {
	if a.first != nil { // which may have come further than it should
		a.next = max(a.next, a.pos+a.size)
	}
	for !a.failed && a.ctx.Err() == nil && a.next < a.desc.Size && a.pace.target > 1 && a.running < a.pace.target && !a.yielding() {
		size := min(a.size, a.desc.Size-a.next)
		// Memory is taken when bytes come; until then what is here can be read.
		if !a.client.ahead.TryAcquire(size) {
			return
		}
		a.client.ahead.Release(size)
		if len(a.parts) >= 2*a.pace.target || !a.endpoint.lines.tryEnter(a.client.opts.Connections) {
			return
		}
		ctx, cancel := context.WithCancel(a.ctx)
		p := &part{from: a.next, to: a.next + size, cancel: cancel}
		a.parts = append(a.parts, p)
		a.next += size
		a.running++
		a.tasks.Go(func() { a.fetch(ctx, p) })
	}
}

// take reports whether the first part takes over from the first connection. If
// it does not come, that goes on with its bytes.
func (a *ahead) take(head *part) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if head.accepted && head.err == nil {
		return true
	}
	a.parts = a.parts[1:]
	a.drop(head)
	return false
}

// drop gives up a part; a.mu is locked.
func (a *ahead) drop(p *part) {
	p.cancel()
	p.dropped = true
	if p.ended {
		a.free(p)
	}
	a.changed.Broadcast()
}

// wake makes all look again who wait.
func (a *ahead) wake() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.changed.Broadcast()
}

// free gives back the memory of a part that has ended; a.mu is locked.
func (a *ahead) free(p *part) {
	for _, b := range p.blocks {
		a.client.freeBlock(b)
	}
	p.blocks = nil
}

func (c *Client) freeBlock(b *block) {
	if b == nil {
		return
	}
	if b.counted {
		c.ahead.Release(blockSize)
	}
	blocks.Put(b)
}

// leaveFirst gives up the first connection.
func (a *ahead) leaveFirst() {
	_ = a.first.Close() // all that was wanted of it has been read
	a.endpoint.lines.leave()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.first = nil
	a.running--
	a.spawn()
	a.changed.Broadcast()
}

func (a *ahead) readParts(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		if a.pos == a.desc.Size {
			return 0, io.EOF
		}
		if len(a.parts) == 0 {
			if a.spawn(); len(a.parts) == 0 {
				// Where more connections do not help, they will not later.
				if a.pace.target <= 1 {
					a.flight.doubts = maxDoubts
				}
				return 0, errOrdinary
			}
		}
		head := a.parts[0]
		at := a.pos - head.from
		if at < head.here {
			in := at % blockSize
			n := copy(p, head.blocks[at/blockSize].bytes[in:min(blockSize, in+head.here-at)])
			a.pos += int64(n)
			if (at+int64(n))%blockSize == 0 {
				a.client.freeBlock(head.blocks[at/blockSize])
				head.blocks[at/blockSize] = nil
			}
			if a.pos == head.to && head.ended {
				a.advance()
			}
			a.changed.Broadcast()
			return n, nil
		}
		if head.ended && head.err == nil {
			a.advance()
			continue
		}
		if head.err != nil {
			return 0, a.ending(head.err)
		}
		a.changed.Wait()
	}
}

// advance goes on to the next part; a.mu is locked.
func (a *ahead) advance() {
	a.free(a.parts[0])
	a.parts = a.parts[1:]
	a.spawn()
}

// ending is what the failure of a part means for the blob.
func (a *ahead) ending(err error) error {
	switch {
	case errors.Is(err, errRange):
		a.flight.doubts = maxDoubts
		return errOrdinary
	case errors.Is(err, ErrRateLimited):
		a.flight.doubts = maxDoubts
	default:
		a.flight.doubts++
	}
	return err
}

// Close ends all connections and waits for that.
func (a *ahead) Close() error {
	a.cancel()
	a.tasks.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.parts {
		a.free(p)
	}
	a.parts = nil
	if a.first == nil {
		return nil
	}
	a.endpoint.lines.leave()
	return a.first.Close()
}
