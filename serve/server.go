package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"mirrorctl/serve/limit"
)

const (
	defaultGrace      = 30 * time.Second
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 64 << 10
	maxStreams        = 128 // of one connection with HTTP/2

	// cutTimeout is how long Run waits for handlers whose connections it cut.
	cutTimeout = 5 * time.Second
)

// Server runs a handler on listeners and stops it gracefully.
type Server struct {
	Handler http.Handler

	// TLS is for all listeners but Unix sockets, whose peer is a reverse proxy on
	// this machine. HTTP/2 needs its NextProtos. Nil is plain HTTP.
	TLS *tls.Config

	// Limit bounds what clients may hold. Nil is nobody's limit.
	Limit *limit.Limiter

	// Grace is how long downloads in flight may take to finish once the server
	// stops. 0 is 30 seconds; a negative one is no time at all.
	Grace time.Duration

	// Log gets what goes wrong below HTTP, such as failed TLS handshakes. Nil
	// drops it.
	Log *slog.Logger

	headerTimeout time.Duration // 0 is readHeaderTimeout; for tests
}

// Stopped tells how a server ended.
type Stopped struct {
	InFlight int           // requests being answered when the stop began
	Cut      int           // those whose connection was closed before the end of the answer
	Took     time.Duration // from the begin of the stop to its end
}

// Run answers on the listeners until ctx ends. It then closes them, so that new
// connections are refused, lets the requests in flight finish within Grace, and
// closes the connections of the rest and ends their contexts. It returns when no
// handler runs any more, or five seconds after the cut, and has closed the
// listeners in any case. If one of them fails, it does not wait for anything.
//
// The context of a request has the values of ctx but does not end with it. Run
// may be called several times, also concurrently. The error is one of a listener;
// a stop by ctx is none, whether something was cut or not.
//
// There is no limit on the time of an answer, because a layer may be of any size
// and a client slow: how slow, Limit says.
func (s *Server) Run(ctx context.Context, listeners ...net.Listener) (Stopped, error) {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var inFlight atomic.Int64
	server := s.httpServer(base, &inFlight)

	failed := make(chan error, len(listeners))
	for _, ln := range listeners {
		go func() {
			err := server.Serve(s.around(ln))
			failed <- fmt.Errorf("serve %s: %w", ln.Addr(), err)
		}()
	}
	left := len(listeners)
	defer func() {
		for ; left > 0; left-- {
			<-failed
		}
	}()

	select {
	case err := <-failed:
		left--
		_ = server.Close() // and with it the other listeners, and what has been accepted
		return Stopped{}, err
	case <-ctx.Done():
	}

	begin := time.Now()
	stopped := Stopped{InFlight: int(inFlight.Load())}
	grace := s.Grace
	if grace == 0 {
		grace = defaultGrace
	}
	last, stop := context.WithTimeout(base, grace)
	defer stop()
	err := server.Shutdown(last)
	if errors.Is(err, context.DeadlineExceeded) {
		stopped.Cut = int(inFlight.Load())
		err = nil
		cancel()
		_ = server.Close() // the connections only; the listeners are closed already
		waitFor(cutTimeout, func() bool { return inFlight.Load() == 0 })
	}
	stopped.Took = time.Since(begin)
	if err != nil {
		return stopped, fmt.Errorf("stop: %w", err)
	}
	return stopped, nil
}

// httpServer is what answers, with all that net/http has against clients that
// hold it up.
func (s *Server) httpServer(base context.Context, inFlight *atomic.Int64) *http.Server {
	log := s.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	handler := s.Handler
	server := &http.Server{
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: readHeaderTimeout, // of TLS handshakes, too
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams,
			SendPingTimeout:      idleTimeout / 2,
			WriteByteTimeout:     idleTimeout / 2,
		},
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	if s.Limit != nil {
		handler = s.Limit.Streams(handler)
		server.ConnState = s.Limit.State
	}
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inFlight.Add(1)
		defer inFlight.Add(-1)
		handler.ServeHTTP(w, r)
	})
	if s.headerTimeout > 0 {
		server.ReadHeaderTimeout = s.headerTimeout
	}
	return server
}

// around puts limits and TLS around a listener.
func (s *Server) around(ln net.Listener) net.Listener {
	network := ln.Addr().Network()
	if s.Limit != nil {
		ln = s.Limit.Listen(ln)
	}
	if s.TLS != nil && network != "unix" {
		ln = tls.NewListener(ln, s.TLS)
	}
	return ln
}

// waitFor returns when done does or after the limit.
func waitFor(limit time.Duration, done func() bool) {
	for end := time.Now().Add(limit); !done() && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
}
