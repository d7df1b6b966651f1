package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"mirrorctl/store"
)

// slowly sends what it would send, in two parts, and calls between before the
// second.
func slowly(w http.ResponseWriter, content []byte, between func()) {
	_, _ = w.Write(content[:len(content)/2])
	_ = http.NewResponseController(w).Flush()
	between()
	_, _ = w.Write(content[len(content)/2:])
}

// Ctrl-C in the middle of a blob: Fetch returns at once, what has come is kept,
// nothing goes on.
func TestCancel(t *testing.T) {
	f, st := newFake(t), newStore(t)
	_, layer := f.simple(1<<20, "1")
	name := named(t, "example.test/team/app:1")
	c := newClient(t, st, f)
	root, err := c.Resolve(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithCancel(t.Context())
	var cancelled time.Time
	f.onBlob(layer, func(_ int, w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		w.Header().Set("Content-Length", "1048576")
		slowly(w, f.blobs[layer.Digest], func() {
			time.Sleep(100 * time.Millisecond)
			cancelled = time.Now()
			cancel()
			<-r.Context().Done()
		})
	})
	_, err = c.Fetch(ctx, name, root, false, &Progress{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if took := time.Since(cancelled); took > 20*time.Second { // which is not the end of the transfer
		t.Errorf("took %v", took)
	}
	info, err := os.Stat(filepath.Join(st.Dir(), "ingest", "sha256-"+layer.Digest.Encoded()))
	if err != nil || info.Size() < 256<<10 {
		t.Errorf("partial: %v %v", info, err)
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
	mustFetch(t, c, "1")
	checkStored(t, st, f)
}

// Two images share a blob. The one that fetches it fails or is cancelled, or its
// repository does not have the blob: the other one gets it.
func TestSharedBlob(t *testing.T) {
	for name, private := range map[string]bool{"cancelled": false, "other repository": true} {
		t.Run(name, func(t *testing.T) {
			f, st := newFake(t), newStore(t)
			layer := f.blob(random(1 << 20))
			f.image([]v1.Descriptor{layer}, "1")
			f.image([]v1.Descriptor{layer, layer}, "2")
			c := newClient(t, st, f)
			first, second := named(t, "example.test/team/first:1"), named(t, "example.test/team/second:2")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			started, waiting := make(chan struct{}), make(chan struct{})
			f.onBlob(layer, func(i int, w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
				if i > 0 {
					serve(w, r)
					return
				}
				close(started)
				if private {
					<-waiting
					w.WriteHeader(http.StatusForbidden)
					return
				}
				w.Header().Set("Content-Length", "1048576")
				slowly(w, f.blobs[layer.Digest], func() {
					<-waiting
					cancel()
					<-r.Context().Done()
				})
			})
			var wg sync.WaitGroup
			wg.Go(func() {
				desc, err := c.Resolve(ctx, first)
				if err == nil {
					_, err = c.Fetch(ctx, first, desc, false, &Progress{})
				}
				if err == nil {
					t.Error("the first did not fail")
				}
			})
			<-started
			wg.Go(func() {
				if _, err := fetchName(c, second); err != nil {
					t.Errorf("the second failed: %v", err)
				}
			})
			time.Sleep(300 * time.Millisecond)
			close(waiting)
			wg.Wait()
			if has, err := st.Has(t.Context(), layer.Digest); err != nil || !has {
				t.Errorf("the blob is not there: %v", err)
			}
		})
	}
}

// zeros is a body of n bytes.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A large blob takes no more memory than a small one.
func TestMemory(t *testing.T) {
	const size = 256 << 20
	h := digest.SHA256.Digester()
	if _, err := io.CopyN(h.Hash(), zeros{}, size); err != nil {
		t.Fatal(err)
	}
	layer := v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: h.Digest(), Size: size}
	f, st := newFake(t), newStore(t)
	f.image([]v1.Descriptor{layer}, "1")
	f.onBlob(layer, func(_ int, w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
		w.Header().Set("Content-Length", "268435456")
		_, _ = io.CopyN(w, zeros{}, size)
	})
	c := newClient(t, st, f)
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var peak atomic.Uint64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				runtime.ReadMemStats(&now)
				peak.Store(max(peak.Load(), now.HeapAlloc))
			}
		}
	})
	began := time.Now()
	mustFetch(t, c, "1")
	t.Logf("256 MiB in %v", time.Since(began).Round(time.Millisecond))
	close(stop)
	wg.Wait()
	grown := int64(peak.Load()) - int64(before.HeapAlloc)
	t.Logf("heap grew by %d KiB", grown>>10)
	if grown > 24<<20 {
		t.Errorf("heap grew by %d MiB", grown>>20)
	}
}

// A failure of this machine's disk is not the registry's, and no mirror is asked
// in its place.
func TestDiskFailure(t *testing.T) {
	f, st := newFake(t), newStore(t)
	f.simple(1000, "1")
	ingest := filepath.Join(st.Dir(), "ingest")
	if err := os.RemoveAll(ingest); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ingest, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := fetchTag(t, newClient(t, st, f), "1")
	var failed *Error
	if err == nil || errors.As(err, &failed) || errors.Is(err, store.ErrMismatch) {
		t.Errorf("error %v", err)
	}
}
