package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mirrorctl/store"
)

var _ Versioned = (*store.Store)(nil)

// versionedMemory is a Content that counts how often it is asked.
type versionedMemory struct {
	mu sync.Mutex
	*memory
	version atomic.Int64
	asked   atomic.Int64
	broken  atomic.Bool
}

func (m *versionedMemory) Version(context.Context) (int64, error) {
	if m.broken.Load() {
		return 0, errors.New("broken")
	}
	return m.version.Load(), nil
}

func (m *versionedMemory) Manifest(ctx context.Context, repo store.Repository, reference string) (store.Manifest, error) {
	m.asked.Add(1)
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.memory.Manifest(ctx, repo, reference)
}

func (m *versionedMemory) set(tag, text string) {
	m.mu.Lock()
	d := m.addManifest(testType, text)
	m.pin("docker.io/library/debian", tag, d)
	m.mu.Unlock()
	m.version.Add(1)
}

func TestCache(t *testing.T) {
	m := &versionedMemory{memory: newMemory()}
	h := newHandler(t, m, Options{})
	ask := func(tag string) string {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/v2/library/debian/manifests/"+tag, nil))
		if w.Code != http.StatusOK {
			return fmt.Sprint(w.Code)
		}
		return w.Body.String() + " " + w.Header().Get("X-Mirrorctl-Cache") + " " + w.Header().Get("Content-Length")
	}
	m.set("12", "one")
	for range 100 {
		if got := ask("12"); got != "one hit 3" {
			t.Fatalf("got %q", got)
		}
	}
	if n := m.asked.Load(); n > 20 { // once, if 20 ms are long on this machine
		t.Errorf("asked %d times for the same", n)
	}
	// What is not there is not kept, and a change shows soon.
	if got := ask("13"); got != "404" {
		t.Errorf("got %q", got)
	}
	m.set("13", "two")
	if got := ask("13"); got != "two hit 3" {
		t.Errorf("got %q", got)
	}
	m.set("12", "moved")
	time.Sleep(2 * trusted)
	if got := ask("12"); got != "moved hit 5" {
		t.Errorf("a change is not seen: %q", got)
	}
	// Where the version cannot be told nothing is kept for longer.
	m.broken.Store(true)
	m.set("12", "three")
	time.Sleep(2 * trusted)
	if got := ask("12"); got != "three hit 5" {
		t.Errorf("got %q", got)
	}
}

// Nobody may get what was true before the last change for longer than a moment,
// whoever reads at the same time.
func TestCacheRaces(t *testing.T) {
	m := &versionedMemory{memory: newMemory()}
	m.set("12", "0")
	h := newHandler(t, m, Options{})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/v2/library/debian/manifests/12", nil))
				}
			}
		})
	}
	for i := range 10 {
		text := fmt.Sprint("text ", i)
		m.set("12", text)
		time.Sleep(3 * trusted)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/v2/library/debian/manifests/12", nil))
		if w.Body.String() != text {
			t.Errorf("got %q after %v, want %q", w.Body, 3*trusted, text)
		}
	}
	close(stop)
	wg.Wait()
}

// A hit allocates nothing of its own, with or without a log, and asks nobody.
func TestHitAllocations(t *testing.T) {
	content := benchManifest()
	h := newHandler(t, content, Options{})
	for name, handler := range map[string]http.Handler{
		"off": h, "text": newAccessLog(t, h, LogText, io.Discard), "json": newAccessLog(t, h, LogJSON, io.Discard),
	} {
		for _, reference := range []string{"bookworm", string(content.manifest.Digest)} {
			r := httptest.NewRequest("GET", "/v2/library/debian/manifests/"+reference+"?ns=docker.io", nil)
			w := &nullWriter{http.Header{}}
			n := testing.AllocsPerRun(1000, func() {
				clear(w.header)
				handler.ServeHTTP(w, r)
			})
			if n > 0 {
				t.Errorf("%s, log %s: %v allocations", reference, name, n)
			}
		}
	}
}

func TestCacheSize(t *testing.T) {
	a := &answers{}
	for i := range 200 {
		m := store.Manifest{Bytes: []byte(strings.Repeat("x", 1<<20))}
		a.add(answerKey{reference: fmt.Sprint(i)}, newAnswer(m))
	}
	if a.bytes > cacheSize || len(a.all) == 0 || a.bytes != len(a.all)*(1<<20+512) {
		t.Errorf("%d answers with %d bytes are kept", len(a.all), a.bytes)
	}
	a.add(answerKey{reference: "huge"}, newAnswer(store.Manifest{Bytes: make([]byte, cacheSize/2)}))
	if a.get(answerKey{reference: "huge"}) != nil {
		t.Error("one manifest may take half of the room")
	}
}
