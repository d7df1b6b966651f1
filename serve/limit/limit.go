// Package limit keeps clients from holding a server: it bounds the connections
// of all clients and of each, and closes those that take their answers too
// slowly.
//
// A [Limiter] does it below HTTP, on the connections of a listener, so that it
// counts for whatever is served, and a file still goes out by sendfile. Only
// what a stream of HTTP/2 does not take shows nowhere there: [Limiter.Streams]
// is for that.
package limit

import (
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"
)

// Limits are what a [Limiter] allows. The zero value allows everything.
type Limits struct {
	Connections int // of all clients together; 0 is any number
	PerClient   int // of each client address, or /64 network with IPv6; 0 is any number

	// Exempt are addresses without a limit of their own, such as those of
	// reverse proxies.
	Exempt []netip.Prefix

	// MinRate is how many bytes a second a client has to take, as long as there
	// is something for it; 0 is none at all. It counts from when a client has
	// been slower for Patience in all: a fast stretch pays for a later break.
	MinRate int64
	// Patience is 0 for a minute.
	Patience time.Duration
}

const defaultPatience = time.Minute

// Counts are what a [Limiter] has seen.
type Counts struct {
	Open          int64 // connections, now
	RefusedClient int64 // connections beyond those of one client
	RefusedTotal  int64 // connections beyond those of all
	Evicted       int64 // connections without a request, closed in favour of others
	TooSlow       int64 // connections and streams that took their answers too slowly
}

// Limiter applies [Limits] to the listeners that it is put around. It is safe for
// concurrent use.
type Limiter struct {
	limits  atomic.Pointer[Limits]
	table   table
	tooSlow atomic.Int64
}

// New returns a limiter.
func New(limits Limits) *Limiter {
	l := &Limiter{table: table{open: map[*conn]struct{}{}, of: map[netip.Prefix]int{}}}
	l.Set(limits)
	return l
}

// Set changes the limits. Connections beyond new ones are not closed.
func (l *Limiter) Set(limits Limits) {
	if limits.Patience <= 0 {
		limits.Patience = defaultPatience
	}
	l.limits.Store(&limits)
}

// Counts returns what has been seen so far.
func (l *Limiter) Counts() Counts {
	counts := l.table.counts()
	counts.TooSlow = l.tooSlow.Load()
	return counts
}

// Listen returns ln with limits on what it accepts. A connection beyond them is
// closed at once. When there are too many in all, those that have waited longest
// for a request make room first.
func (l *Limiter) Listen(ln net.Listener) net.Listener { return &listener{ln, l} }

type listener struct {
	net.Listener
	limiter *Limiter
}

func (ln *listener) Accept() (net.Conn, error) {
	for {
		accepted, err := ln.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: accepted, limiter: ln.limiter, client: clientOf(accepted)}
		c.waiting.Store(time.Now().UnixNano())
		c.pace.credit = ln.limiter.limits.Load().Patience
		if ln.limiter.table.admit(c, ln.limiter.limits.Load()) {
			return c, nil
		}
		if tcp, ok := accepted.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // leaves nothing in the kernel that would wait for the client
		}
		_ = accepted.Close()
	}
}

// clientOf is the network that counts as one client; invalid for sockets of this
// machine, whose peers have no address.
func clientOf(c net.Conn) netip.Prefix {
	at, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Prefix{}
	}
	address := at.Addr().Unmap().WithZone("")
	bits := 32
	if address.Is6() {
		bits = 64 // what one customer, or host, commonly has
	}
	client, _ := address.Prefix(bits) // bits are right for the family
	return client
}

// State tells the limiter which connections wait for a request: it is for
// [http.Server.ConnState].
func (*Limiter) State(of net.Conn, state http.ConnState) {
	if secure, ok := of.(interface{ NetConn() net.Conn }); ok {
		of = secure.NetConn()
	}
	c, ok := of.(*conn)
	if !ok {
		return
	}
	switch state {
	case http.StateNew, http.StateIdle:
		c.waiting.Store(time.Now().UnixNano())
	default:
		c.waiting.Store(0)
	}
}
