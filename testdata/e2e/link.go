//go:build e2e

package e2e

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// link is a long line to an upstream. All connections share its rate, or each has
// its own; what the upstream sends arrives a delay later, which is then the round trip. What is
// sent to the upstream is neither delayed nor limited: it is little.
type link struct {
	address string
	rate    int64 // bytes a second
	delay   time.Duration
	carried atomic.Int64 // bytes from the upstream
	shared  *line        // by all connections; nil if each has its own
}

// line is what limits the rate.
type line struct {
	mu   sync.Mutex
	free time.Time // when what was taken so far has been sent
}

// startLink runs a link to a TCP address whose connections share the rate.
func startLink(tb testing.TB, target string, rate int64, delay time.Duration) *link {
	tb.Helper()
	return runLink(tb, target, &link{rate: rate, delay: delay, shared: &line{}})
}

// startLinks is startLink with the rate for each connection.
func startLinks(tb testing.TB, target string, rate int64, delay time.Duration) *link {
	tb.Helper()
	return runLink(tb, target, &link{rate: rate, delay: delay})
}

func runLink(tb testing.TB, target string, l *link) *link {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(tb, err)
	tb.Cleanup(func() { listener.Close() })
	l.address = listener.Addr().String()
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			go l.connect(near, target)
		}
	}()
	return l
}

func (l *link) url() string { return "http://" + l.address }

func (l *link) connect(near net.Conn, target string) {
	defer near.Close()
	far, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer far.Close()
	go func() {
		_, _ = io.Copy(far, near)
		far.Close()
	}()

	type piece struct {
		bytes []byte
		at    time.Time
	}
	// As much as is on the way during the delay and a little more, so that one
	// connection alone gets the whole rate.
	const size = 16 << 10
	limit := l.shared
	if limit == nil {
		limit = &line{}
	}
	way := make(chan piece, l.rate*int64(l.delay)/int64(time.Second)/size+8)
	go func() {
		defer close(way)
		for {
			buf := make([]byte, size)
			n, err := far.Read(buf)
			if n > 0 {
				way <- piece{buf[:n], limit.take(n, l.rate).Add(l.delay)}
			}
			if err != nil {
				return
			}
		}
	}()
	broken := false
	for p := range way {
		if broken {
			continue
		}
		time.Sleep(time.Until(p.at))
		if _, err := near.Write(p.bytes); err != nil {
			broken = true
			far.Close()
		}
		l.carried.Add(int64(len(p.bytes)))
	}
}

// take books n bytes and returns when the last one has left.
func (l *line) take(n int, rate int64) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); l.free.Before(now) {
		l.free = now
	}
	l.free = l.free.Add(time.Duration(n) * time.Second / time.Duration(rate))
	return l.free
}
