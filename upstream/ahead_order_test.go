package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Ctrl-C while parts arrive: only what is in order is kept, nothing goes on, and
// the next run resumes there.
func TestPartsCancelled(t *testing.T) {
	f, st := newFake(t), newStore(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var n atomic.Int64
	layer := f.slowBlob(func(_ int, w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if isPart(r) {
			switch n.Add(1) {
			case 3: // which holds up all that comes after it in the blob
				<-r.Context().Done()
				return
			case firstStep + 1:
				time.AfterFunc(300*time.Millisecond, cancel)
			}
		}
		serve(w, r)
	})
	c := newClient(t, st, f)
	name := named(t, "example.test/team/app:1")
	root, err := c.Resolve(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	time.AfterFunc(5*time.Second, cancel)
	_, err = c.Fetch(ctx, name, root, false, &Progress{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	checkIdle(t, c)
	partial, err := os.ReadFile(filepath.Join(st.Dir(), "ingest", "sha256-"+layer.Digest.Encoded()))
	if err != nil || len(partial) < 1<<20 || len(partial) >= bigSize || !bytes.HasPrefix(bigBlob(), partial) {
		t.Fatalf("%d bytes are kept: %v", len(partial), err)
	}
	e, _ := c.registry("example.test")
	e.endpoints[0].http.CloseIdleConnections()
	f.CloseClientConnections()
	for deadline := time.Now().Add(3 * time.Second); runtime.NumGoroutine() > before && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines, %d before", n, before)
	}
	f.misbehave(nil)
	f.heard()
	mustFetch(t, newClient(t, st, f), "1")
	if got := f.ranges(layer); len(got) == 0 || got[0] != fmt.Sprintf("bytes=%d-", len(partial)) {
		t.Errorf("ranges %q, want from %d on", got, len(partial))
	}
	checkStored(t, st, f)
}

// Whoever follows a blob reads it in order, whatever order it comes in.
func TestPartsFollowed(t *testing.T) {
	f, st := newFake(t), newStore(t)
	layer := f.slowBlob(plainly)
	p := newPullThrough(t, newClient(t, st, f))
	readManifest(t, p, "1")
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			from := int64(i) * (bigSize / 5)
			got, err := readBlob(t.Context(), p, layer.Digest, from)
			if err != nil || !bytes.Equal(got, bigBlob()[from:]) {
				t.Errorf("from %d: %d bytes, %v", from, len(got), err)
			}
		})
	}
	wg.Wait()
	waitPinned(t, st, "1")
	if parts, _ := f.parts(layer); len(parts) == 0 {
		t.Error("no parts were asked for")
	}
	checkStored(t, st, f)
}

// What is here before its turn stays within its bounds while its turn does not
// come.
func TestPartsMemory(t *testing.T) {
	f, st := newFake(t), newStore(t)
	release := make(chan struct{})
	var read, first atomic.Int64
	first.Store(math.MaxInt64)
	layer := f.slowBlob(func(_ int, w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if !isPart(r) {
			serve(w, r)
			return
		}
		var from int64
		_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
		for low := first.Load(); from < low && !first.CompareAndSwap(low, from); low = first.Load() {
		}
		time.Sleep(200 * time.Millisecond) // for those that were asked for with it
		if from == first.Load() {          // and all others come after it
			w = &stuck{w, release}
		}
		serve(w, r)
	})
	c := newClient(t, st, f)
	// What was sent would be too much: sockets hold some of it.
	countParts(t, c, &read)
	const limit = 12 << 20
	if !c.ahead.TryAcquire(maxAhead - limit) {
		t.Fatal("no memory")
	}
	done := make(chan error)
	go func() {
		_, err := fetchTag(t, c, "1")
		done <- err
	}()
	var before int64 = -1
	for before != read.Load() || before == 0 { // until nothing comes any more
		before = read.Load()
		time.Sleep(700 * time.Millisecond)
	}
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if before > limit {
		t.Errorf("%d bytes were read ahead", before)
	}
	c.ahead.Release(maxAhead - limit)
	checkStored(t, st, f, layer)
	checkIdle(t, c)
}

// stuck sends the header of an answer, and the rest later.
type stuck struct {
	http.ResponseWriter
	release <-chan struct{}
}

func (s *stuck) Write(p []byte) (int, error) {
	_ = http.NewResponseController(s.ResponseWriter).Flush()
	<-s.release
	return s.ResponseWriter.Write(p)
}

// countParts counts what a client reads of parts, before the turn of the first.
func countParts(t *testing.T, c *Client, n *atomic.Int64) {
	t.Helper()
	r, err := c.registry("example.test")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range r.endpoints {
		e.tr.base = &counting{e.tr.base, n}
	}
}

type counting struct {
	connections
	n *atomic.Int64
}

func (c *counting) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := c.connections.RoundTrip(r)
	if err == nil && isPart(r) {
		resp.Body = &countedBody{resp.Body, c.n}
	}
	return resp, err
}

type countedBody struct {
	io.ReadCloser
	n *atomic.Int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	return n, err
}
