package faults

import (
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Answer is what the proxy is about to send for a request, and may be broken.
type Answer struct {
	Request *http.Request
	Status  int
	Header  http.Header
	Body    []byte
	Nth     int // of the requests that the fault is for, from 0
	// Send, if not nil, sends it in its own way. The connection is closed behind it.
	Send func(a *Answer, conn *net.TCPConn) error
	// Unsized leaves out how long the body is.
	Unsized bool
	// proxy is asked for content other than what was requested.
	proxy *Proxy
}

// settling is how long connections may take to end that their client has closed.
const settling = 10 * time.Second

// A Fault breaks an answer.
type Fault func(*Answer)

// request is one that was made, as the table has it.
type request struct {
	what  string // index, layer, resolve, lookup...
	from  int64  // first byte wanted
	bytes int64  // of the body that were sent
}

func (r request) String() string {
	if r.from > 0 {
		return fmt.Sprintf("%s from %d", r.what, r.from)
	}
	return r.what
}

// Proxy is in front of a registry, and breaks what it is told to.
type Proxy struct {
	backend http.RoundTripper // the registry
	odd     *repository       // served before it
	known   []*repository     // what there is, to call it by its name
	dir     string            // for files of its configuration
	server  *httptest.Server
	others  []*httptest.Server // that lead here too

	mu       sync.Mutex
	fault    Fault
	only     []string // what it is for; none is all
	met      int      // requests that it was for
	requests []*request
	retagged [2]string // what is asked for by the first tag, and the tag that it has now

	open   atomic.Int64  // connections
	closed chan struct{} // ends what is stalled
	sends  sync.WaitGroup

	uses []int // of each token that was given
}

// newProxy is in front of a registry. It calls content by the names of what is known.
func (r *run) newProxy() *Proxy {
	p := &Proxy{backend: r.Backend, odd: r.odd, known: []*repository{r.good, r.odd}, dir: r.dir, closed: make(chan struct{})}
	p.server = p.listen()
	p.server.Start()
	return p
}

func (p *Proxy) listen() *httptest.Server {
	server := httptest.NewUnstartedServer(p)
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // broken connections are what it is for
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			p.open.Add(1)
		case http.StateClosed, http.StateHijacked:
			p.open.Add(-1)
		}
	}
	return server
}

// other is another host that leads here.
func (p *Proxy) other() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	server := p.listen()
	server.Start()
	p.others = append(p.others, server)
	return server.Listener.Addr().String()
}

func (p *Proxy) address() string { return p.server.Listener.Addr().String() }

func (p *Proxy) close() {
	close(p.closed)
	p.sends.Wait()
	for _, server := range append(p.others, p.server) {
		server.CloseClientConnections()
		server.Close()
	}
}

// breaks sets the fault, and what it is for.
func (p *Proxy) breaks(f Fault, only []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault, p.only, p.met = f, only, 0
}

// forget drops the fault and what was asked for, which it returns. Whoever asked
// has ended; what he gave up may still be on its way.
func (p *Proxy) forget() []request {
	for end := time.Now().Add(settling); p.open.Load() > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []request
	for _, r := range p.requests {
		all = append(all, *r)
	}
	p.fault, p.requests = nil, nil
	return all
}

// retag gives a tag the content of another one.
func (p *Proxy) retag(tag, to string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.retagged = [2]string{"/v2/" + Repository + "/manifests/" + tag, "/v2/" + Repository + "/manifests/" + to}
}

// what is the table's name for a request.
func (p *Proxy) what(q *http.Request) string {
	kind, reference := split(q.URL.Path)
	for _, r := range p.known {
		if c := r.byID[reference]; c != nil && (kind == "manifests" || kind == "blobs") {
			return c.name
		}
	}
	switch {
	case kind == "manifests" && !strings.HasPrefix(reference, "sha256-"):
		return "resolve"
	case kind == "referrers":
		return kind
	case kind == "manifests":
		return "lookup"
	}
	return strings.Trim(q.URL.Path, "/")
}

func (p *Proxy) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r := &request{what: p.what(q)}
	_, _ = fmt.Sscanf(q.Header.Get("Range"), "bytes=%d-", &r.from)
	p.mu.Lock()
	p.requests = append(p.requests, r)
	fault, nth := p.fault, p.met
	if len(p.only) > 0 && !slices.Contains(p.only, r.what) {
		fault = nil
	}
	if fault != nil {
		p.met++
	}
	if q.URL.Path == p.retagged[0] {
		q.URL.Path = p.retagged[1]
	}
	p.mu.Unlock()

	a := &Answer{Request: q, Nth: nth, proxy: p}
	if err := a.fetch(q); err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	if fault != nil {
		fault(a)
	}
	if a.Send == nil {
		maps.Copy(w.Header(), a.Header)
		w.WriteHeader(a.Status)
		n, _ := w.Write(a.Body) // to a client that may have left
		p.mu.Lock()
		defer p.mu.Unlock()
		r.bytes += int64(n)
		return
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err) // only HTTP/1 is spoken here
	}
	defer conn.Close()
	p.sends.Add(1)
	defer p.sends.Done()
	_ = a.Send(a, conn.(*net.TCPConn)) // the client may not like it
}

// fetch asks for what the answer is to be.
func (a *Answer) fetch(q *http.Request) error {
	kind, reference := split(q.URL.Path)
	if a.proxy.odd.find(kind, reference) != nil {
		rec := httptest.NewRecorder()
		a.proxy.odd.ServeHTTP(rec, q)
		a.Status, a.Header, a.Body = rec.Code, rec.Header(), rec.Body.Bytes()
		return nil
	}
	forward := q.Clone(q.Context())
	forward.RequestURI = ""
	resp, err := a.proxy.backend.RoundTrip(forward)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	a.Status, a.Header = resp.StatusCode, resp.Header
	a.Body, err = io.ReadAll(resp.Body)
	return err
}
