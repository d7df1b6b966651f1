package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	defaultGrace      = 30 * time.Second
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 64 << 10

	// cutTimeout is how long Run waits for handlers whose connections it cut.
	cutTimeout = 5 * time.Second
)

// Server runs a handler on a listener and stops it gracefully.
type Server struct {
	Handler http.Handler

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

// Run answers on ln until ctx ends. It then closes ln, so that new connections
// are refused, lets the requests in flight finish within Grace, and closes the
// connections of the rest and ends their contexts. It returns when no handler
// runs any more, or five seconds after the cut, and has closed ln in any case.
//
// The context of a request has the values of ctx but does not end with it. Run
// may be called once per listener, also concurrently. The error is one of the
// listener; a stop by ctx is none, whether something was cut or not.
//
// A listener with TLS is [crypto/tls.NewListener]'s. There is no limit on the
// time of an answer, because a layer may be of any size and a client slow.
func (s *Server) Run(ctx context.Context, ln net.Listener) (Stopped, error) {
	log := s.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()

	var inFlight atomic.Int64
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			inFlight.Add(1)
			defer inFlight.Add(-1)
			s.Handler.ServeHTTP(w, r)
		}),
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	if s.headerTimeout > 0 {
		server.ReadHeaderTimeout = s.headerTimeout
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(ln) }()

	select {
	case err := <-failed:
		_ = server.Close() // closes what has been accepted; ln is closed already
		return Stopped{}, fmt.Errorf("serve %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}

	begin := time.Now()
	stopped := Stopped{InFlight: int(inFlight.Load())}
	grace := s.Grace
	if grace == 0 {
		grace = defaultGrace
	}
	limit, stop := context.WithTimeout(base, grace)
	defer stop()
	err := server.Shutdown(limit)
	if errors.Is(err, context.DeadlineExceeded) {
		stopped.Cut = int(inFlight.Load())
		err = nil
		cancel()
		_ = server.Close() // the connections only; ln is closed already
		waitFor(cutTimeout, func() bool { return inFlight.Load() == 0 })
	}
	<-failed
	stopped.Took = time.Since(begin)
	if err != nil {
		return stopped, fmt.Errorf("serve %s: stop: %w", ln.Addr(), err)
	}
	return stopped, nil
}

// waitFor returns when done does or after the limit.
func waitFor(limit time.Duration, done func() bool) {
	for end := time.Now().Add(limit); !done() && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
}
