package limit

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

const size = 12 << 20 // more than what the kernel keeps for a client that does not read

// serve answers every request with a file, or by small writes under /written.
func serve(t *testing.T, limiter *Limiter, secure bool) *httptest.Server {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(limiter.Streams(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/written":
			for range size / 4096 {
				if _, err := w.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		case "/none":
		default:
			f, err := os.Open(path)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			http.ServeContent(w, r, "", time.Time{}, f)
		}
	})))
	server.Config.ConnState = limiter.State
	server.Listener = limiter.Listen(server.Listener)
	server.EnableHTTP2 = secure
	if secure {
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	return server
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// TestSlow holds that a client who takes nothing is cut off, and that one who
// takes more than it has to is not, though the answer takes longer than the
// patience.
func TestSlow(t *testing.T) {
	for name, secure := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		for _, path := range []string{"/file", "/written"} {
			t.Run(name+path, func(t *testing.T) {
				t.Parallel()
				const patience = time.Second
				limiter := New(Limits{MinRate: 256 << 10, Patience: patience})
				server := serve(t, limiter, secure)
				get := func() io.ReadCloser {
					res, err := server.Client().Get(server.URL + path)
					if err != nil {
						t.Fatal(err)
					}
					if res.Proto != name {
						t.Fatalf("speaks %s", res.Proto)
					}
					return res.Body
				}
				body := get()
				began := time.Now()
				buf := make([]byte, 256<<10)
				for n, rest := 0, size; rest > 0; rest -= n {
					var err error
					if n, err = io.ReadFull(body, buf); err != nil {
						t.Fatalf("after %d bytes: %v", size-rest, err)
					}
					time.Sleep(40 * time.Millisecond)
				}
				body.Close()
				if took := time.Since(began); took < patience {
					t.Fatalf("the honest client took only %v", took)
				}

				body = get()
				defer body.Close()
				eventually(t, "the other one is cut off", func() bool { return limiter.Counts().TooSlow == 1 })
				if n, err := io.Copy(io.Discard, body); err == nil {
					t.Errorf("got all %d bytes", n)
				}
			})
		}
	}
}

func TestPerClient(t *testing.T) {
	limiter := New(Limits{PerClient: 2})
	server := serve(t, limiter, false)
	dial := func(from string) net.Conn {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		c, err := dialer.Dial("tcp", server.Listener.Addr().String())
		if errors.Is(err, syscall.ECONNRESET) {
			return nil // refused before this end knew that it was connected
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	answered := func(c net.Conn) bool {
		if c == nil {
			return false
		}
		_, err := io.WriteString(c, "HEAD /none HTTP/1.1\r\nHost: a\r\n\r\n")
		if err == nil {
			_, err = io.ReadFull(c, make([]byte, 4))
		}
		return err == nil
	}
	first := dial("127.0.0.2")
	for i, c := range []struct {
		from string
		want bool
	}{{"127.0.0.2", true}, {"127.0.0.2", false}, {"127.0.0.2", false}, {"127.0.0.3", true}} {
		if got := answered(dial(c.from)); got != c.want {
			t.Errorf("connection %d from %s: answered %v", i, c.from, got)
		}
	}
	if got := limiter.Counts(); got.RefusedClient != 2 || got.Open != 3 {
		t.Errorf("counts %+v", got)
	}
	first.Close()
	eventually(t, "a place is free", func() bool { return limiter.Counts().Open == 2 })
	if !answered(dial("127.0.0.2")) {
		t.Error("refused with a place free")
	}
	limiter.Set(Limits{PerClient: 2, Exempt: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}})
	if !answered(dial("127.0.0.2")) {
		t.Error("refused though exempt")
	}
}

// TestTotal holds that who waits makes room, and who is answered does not.
func TestTotal(t *testing.T) {
	limiter := New(Limits{Connections: 4, MinRate: 1})
	server := serve(t, limiter, false)
	address := server.Listener.Addr().String()
	var slow []io.Closer
	for range 3 {
		res, err := (&http.Client{Transport: &http.Transport{}}).Get(server.URL + "/file")
		if err != nil {
			t.Fatal(err)
		}
		slow = append(slow, res.Body)
	}
	silent, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	eventually(t, "it is in", func() bool { return limiter.Counts().Open == 4 })
	res, err := (&http.Client{Transport: &http.Transport{}}).Get(server.URL + "/file")
	if err != nil {
		t.Fatal(err)
	}
	slow = append(slow, res.Body)
	if _, err := silent.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the silent connection: %v", err)
	}
	if _, err := (&http.Client{Transport: &http.Transport{}}).Get(server.URL + "/none"); err == nil {
		t.Error("a fifth connection was answered")
	}
	if got := limiter.Counts(); got.Evicted != 1 || got.RefusedTotal != 1 || got.Open != 4 {
		t.Errorf("counts %+v", got)
	}
	for _, body := range slow {
		body.Close()
	}
	eventually(t, "all have left", func() bool { return limiter.Counts().Open == 0 })
}

// recorder says what is written to it by whom.
type recorder struct {
	net.Conn
	deadline time.Time
}

func (r *recorder) SetWriteDeadline(t time.Time) error { r.deadline = t; return nil }
func (r *recorder) Write(p []byte) (int, error)        { return len(p), nil }

// TestDeadlineOfOthers holds that a deadline that is closer counts: who closes a
// TLS connection does not wait long to say so.
func TestDeadlineOfOthers(t *testing.T) {
	below := &recorder{}
	c := &conn{Conn: below, limiter: New(Limits{MinRate: 1}), pace: pace{time.Hour}}
	soon := time.Now().Add(5 * time.Second).Round(0)
	if err := c.SetWriteDeadline(soon); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(nil); err != nil || !below.deadline.Equal(soon) {
		t.Errorf("deadline %v instead of %v: %v", below.deadline, soon, err)
	}
	if err := c.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(nil); err != nil || below.deadline.Before(soon.Add(time.Minute)) {
		t.Errorf("deadline %v: %v", below.deadline, err)
	}
}

func TestPace(t *testing.T) {
	limits := &Limits{MinRate: 1000, Patience: time.Minute}
	p := pace{time.Minute}
	for i, step := range []struct {
		bytes  int64
		took   time.Duration
		credit time.Duration
		on     bool
	}{
		{1000, time.Second, time.Minute, true},              // just fast enough
		{0, 20 * time.Second, 40 * time.Second, true},       // a break
		{10_000, 20 * time.Second, 30 * time.Second, true},  // half as fast
		{1 << 62, time.Second, time.Minute, true},           // much faster, which counts for a minute
		{30_000, 89 * time.Second, time.Second, true},       // nearly too slow
		{0, 2 * time.Second, -time.Second, false},           // and so
		{1000, 1500 * time.Millisecond, -1500e6, false},     // still
		{100_000, time.Second, 97500*1e6 - 37500*1e6, true}, // capped
	} {
		if on := p.took(step.bytes, step.took, limits); on != step.on || p.credit != step.credit {
			t.Errorf("step %d: %v with %v left, want %v with %v", i, on, p.credit, step.on, step.credit)
		}
	}
}

// TestSendfile holds that a file gets to the connection as a file, and that net/http
// finds the way there.
func TestSendfile(t *testing.T) {
	var _ io.ReaderFrom = (*conn)(nil)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	path := filepath.Join(t.TempDir(), "file")
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	go func() {
		c, err := New(Limits{MinRate: 1}).Listen(ln).Accept()
		if err != nil {
			return
		}
		defer c.Close()
		f, err := os.Open(path)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		if n, err := c.(io.ReaderFrom).ReadFrom(io.LimitReader(f, 1<<20)); n != 1<<20 || err != nil {
			t.Errorf("sent %d: %v", n, err)
		}
	}()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, content) {
		t.Errorf("got %d bytes: %v", len(got), err)
	}
}

func TestStateOfTLS(t *testing.T) {
	c := &conn{}
	limiter := New(Limits{})
	limiter.State(tls.Server(c, &tls.Config{}), http.StateIdle)
	if c.waiting.Load() == 0 {
		t.Error("does not wait")
	}
	limiter.State(tls.Server(c, &tls.Config{}), http.StateActive)
	if c.waiting.Load() != 0 {
		t.Error("waits")
	}
}
