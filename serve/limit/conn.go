package limit

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"
)

// errTooSlow ends an answer whose client does not take it.
var errTooSlow = errors.New("the client takes the answer too slowly")

// conn is a connection whose peer has to take what is written to it.
type conn struct {
	net.Conn
	limiter *Limiter
	client  netip.Prefix
	waiting atomic.Int64 // since when without a request, in Unix nanoseconds; 0 with one
	until   atomic.Int64 // a deadline that somebody else set; 0 is none

	// Of the one writer that a connection has at a time:
	pace    pace
	watched bool  // the peer was slow: look at what the kernel still has for it
	queued  int64 // by the kernel, when looked at last
}

// pace is for how long a client may still be slower than it has to.
type pace struct {
	credit time.Duration
}

// least is too little time to wait for anything.
const least = 50 * time.Millisecond

// took notes that a client took n bytes, and says whether it may go on.
func (p *pace) took(n int64, took time.Duration, limits *Limits) bool {
	// Bytes beyond a day's worth change nothing, and could overflow.
	earned := time.Duration(float64(min(n, 86400*limits.MinRate)) / float64(limits.MinRate) * float64(time.Second))
	p.credit = min(p.credit+earned-took, limits.Patience)
	return p.credit > least
}

// took is that of pace, where bytes count that the kernel has got rid of: it lets
// a writer go on only when a good part of a queue of maybe megabytes is free, which
// over a slow link may take longer than anybody's patience.
func (c *conn) took(n int64, took time.Duration, limits *Limits) bool {
	if c.watched {
		if now, ok := queued(c.Conn); ok {
			n, c.queued = c.queued+n-now, now
		}
	}
	on := c.pace.took(n, took, limits)
	if on {
		c.watched = c.watched && c.pace.credit < limits.Patience
		return true
	}
	if c.watched {
		return false
	}
	c.queued, c.watched = queued(c.Conn)
	if c.watched {
		c.pace.credit = limits.Patience
	}
	return c.watched
}

// Write writes all of b, as fast as the client has to take it at least.
func (c *conn) Write(b []byte) (int, error) {
	n, err := c.paced(func() (int64, error) {
		n, err := c.Conn.Write(b)
		b = b[n:]
		return int64(n), err
	})
	return int(n), err
}

// ReadFrom sends a file by sendfile, where the connection below can.
func (c *conn) ReadFrom(src io.Reader) (int64, error) {
	tcp, ok := c.Conn.(*net.TCPConn)
	part, isPart := src.(*io.LimitedReader)
	if !ok || !isPart || !isFile(part.R) {
		return io.Copy(struct{ io.Writer }{c}, src)
	}
	return c.paced(func() (int64, error) { return tcp.ReadFrom(part) })
}

func isFile(src io.Reader) bool {
	_, ok := src.(*os.File)
	return ok
}

// paced calls write again and again while it stops at the deadline for no other
// reason than that the client was not done yet.
func (c *conn) paced(write func() (int64, error)) (total int64, err error) {
	limits := c.limiter.limits.Load()
	if limits.MinRate <= 0 {
		return write()
	}
	for {
		began := time.Now()
		deadline := began.Add(c.pace.credit)
		if until := c.until.Load(); until != 0 && until < deadline.UnixNano() {
			return c.hurried(total, time.Unix(0, until), write)
		}
		if err := c.Conn.SetWriteDeadline(deadline); err != nil {
			return total, err
		}
		n, err := write()
		total += n
		on := c.took(n, time.Since(began), limits)
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			c.pace.credit = max(c.pace.credit, 2*least)
			return total, err
		}
		if !on {
			c.limiter.tooSlow.Add(1)
			return total, errors.Join(errTooSlow, err)
		}
	}
}

// hurried writes when others have less patience, as those have who close a
// connection.
func (c *conn) hurried(total int64, deadline time.Time, write func() (int64, error)) (int64, error) {
	if err := c.Conn.SetWriteDeadline(deadline); err != nil {
		return total, err
	}
	n, err := write()
	return total + n, err
}

// SetDeadline is for others; what this package wants comes on top.
func (c *conn) SetDeadline(t time.Time) error {
	c.note(t)
	return c.Conn.SetDeadline(t)
}

// SetWriteDeadline is for others, too.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.note(t)
	return c.Conn.SetWriteDeadline(t)
}

func (c *conn) note(t time.Time) {
	if t.IsZero() {
		c.until.Store(0)
	} else {
		c.until.Store(t.UnixNano())
	}
}

func (c *conn) Close() error {
	c.limiter.table.leave(c)
	return c.Conn.Close()
}

// CloseWrite is what net/http does before it closes a connection with an unread
// request.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
