//go:build e2e

package e2e

import (
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// request is one that a proxy passed on.
type request struct {
	method string
	path   string
	ranges string // the Range header
	status int
	bytes  int64     // of the body, as far as it was sent
	began  time.Time // when it came
	first  time.Time // when the first byte was sent
	ended  time.Time // when the last one was
}

// proxy stands between mirrorctl and an upstream, writes down what goes through
// and can slow it down.
type proxy struct {
	address string
	rate    atomic.Int64 // bytes a second per blob; 0 is no limit

	mu       sync.Mutex
	requests []*request
}

// startProxy runs a proxy in front of the registry at backend.
func startProxy(tb testing.TB, backend string) *proxy {
	tb.Helper()
	target, err := url.Parse(backend)
	check(tb, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(tb, err)
	p := &proxy{address: listener.Addr().String()}
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			// The name of a registry, which clients of a mirror put first.
			r.Out.URL.Path = strings.Replace(r.Out.URL.Path, "/v2/docker.io/", "/v2/", 1)
		},
		ErrorLog: log.New(io.Discard, "", 0), // a killed client is what tests want
	}
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			r := &request{method: q.Method, path: q.URL.Path, ranges: q.Header.Get("Range"), began: time.Now()}
			p.mu.Lock()
			p.requests = append(p.requests, r)
			p.mu.Unlock()
			defer func() { // also of one that is broken off
				p.mu.Lock()
				defer p.mu.Unlock()
				r.ended = time.Now()
			}()
			forward.ServeHTTP(&meter{ResponseWriter: w, proxy: p, request: r}, q)
		}),
		// A small buffer, so that what counts as sent has nearly all arrived.
		ConnState: func(c net.Conn, state http.ConnState) {
			if tcp, ok := c.(*net.TCPConn); ok && state == http.StateNew {
				tcp.SetWriteBuffer(64 << 10)
			}
		},
	}
	go server.Serve(listener)
	tb.Cleanup(func() { server.Close() })
	return p
}

func (p *proxy) url() string { return "http://" + p.address }

// forget starts a new page.
func (p *proxy) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests = nil
}

// seen returns the requests with that method, or any if it is "", whose path has
// the part in it.
func (p *proxy) seen(method, part string) []request {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []request
	for _, r := range p.requests {
		if (r.method == method || method == "") && strings.Contains(r.path, part) {
			list = append(list, *r)
		}
	}
	return list
}

// onlyMissing checks that of each blob came what was not here, and no more, and
// returns how much that is.
func (p *proxy) onlyMissing(tb testing.TB, here map[string]int64, content map[string][]byte) (sum int64) {
	tb.Helper()
	came := map[string]int64{}
	for _, r := range p.seen(http.MethodGet, "/blobs/") {
		came[path.Base(r.path)] += r.bytes
		sum += r.bytes
	}
	for digest, n := range came {
		size := int64(len(content[digest]))
		if missing := size - here[digest]; n != missing {
			tb.Errorf("%d bytes of %s were missing (%d of %d are here), %d came", missing, digest, here[digest], size, n)
		}
	}
	return sum
}

// sent is how many bytes of bodies those requests got.
func sent(requests []request) (sum int64) {
	for _, r := range requests {
		sum += r.bytes
	}
	return sum
}

// meter counts and slows down one answer.
type meter struct {
	http.ResponseWriter
	proxy   *proxy
	request *request
}

func (m *meter) WriteHeader(status int) {
	m.proxy.mu.Lock()
	m.request.status = status
	m.proxy.mu.Unlock()
	m.ResponseWriter.WriteHeader(status)
}

func (m *meter) Write(b []byte) (int, error) {
	written := 0
	for len(b) > 0 {
		// In pieces, so that a slow answer trickles.
		piece := b[:min(len(b), 16<<10)]
		if rate := m.proxy.rate.Load(); rate > 0 && strings.Contains(m.request.path, "/blobs/") {
			time.Sleep(time.Duration(len(piece)) * time.Second / time.Duration(rate))
		}
		n, err := m.ResponseWriter.Write(piece)
		m.proxy.mu.Lock()
		if m.request.bytes == 0 {
			m.request.first = time.Now()
		}
		m.request.bytes += int64(n)
		m.proxy.mu.Unlock()
		written += n
		if err != nil {
			return written, err
		}
		b = b[n:]
	}
	return written, nil
}

// Unwrap lets the reverse proxy find the flusher.
func (m *meter) Unwrap() http.ResponseWriter { return m.ResponseWriter }

// countingListener takes an upstream's place and counts who knocks.
type countingListener struct {
	address     string
	connections atomic.Int32
}

func listenAndCount(tb testing.TB, address string) *countingListener {
	tb.Helper()
	listener, err := net.Listen("tcp", address)
	check(tb, err)
	tb.Cleanup(func() { listener.Close() })
	c := &countingListener{address: address}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			c.connections.Add(1)
			connection.Close()
		}
	}()
	return c
}
