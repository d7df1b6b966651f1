package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"mirrorctl/store"
)

var app = store.Repository{Registry: "example.test", Path: "team/app"}

func newPullThrough(t *testing.T, c *Client, platforms ...v1.Platform) *PullThrough {
	t.Helper()
	p, err := NewPullThrough(t.Context(), c, PullThroughOptions{Registries: []string{app.Registry}, Platforms: platforms, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// readBlob is what a client gets that asks the store and then the pull-through.
func readBlob(ctx context.Context, p *PullThrough, d digest.Digest, from int64) ([]byte, error) {
	r, _, err := p.store.Blob(ctx, app, d)
	if errors.Is(err, store.ErrNotFound) {
		r, _, err = p.Blob(ctx, app, d)
	}
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if _, err := r.Seek(from, io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func readManifest(t *testing.T, p *PullThrough, reference string) store.Manifest {
	t.Helper()
	m, err := p.store.Manifest(t.Context(), app, reference)
	if errors.Is(err, store.ErrNotFound) {
		m, err = p.Manifest(t.Context(), app, reference)
	}
	if err != nil {
		t.Fatalf("manifest %s: %v", reference, err)
	}
	return m
}

func waitPinned(t *testing.T, st *store.Store, tag string) store.Pin {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		pin, err := st.Pin(t.Context(), app, tag)
		if err == nil {
			return pin
		}
		if time.Now().After(end) {
			t.Fatalf("%s is not pinned: %v", tag, err)
		}
	}
}

// halfway makes the registry stop in the middle of a blob until release is
// called. reached is closed when it is there.
func (f *fake) halfway(d v1.Descriptor) (reached <-chan struct{}, release func()) {
	at, on := make(chan struct{}), make(chan struct{})
	var stopped atomic.Bool
	f.onBlob(d, func(_ int, w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if r.Method != http.MethodGet || stopped.Swap(true) {
			serve(w, r)
			return
		}
		content := f.blobs[d.Digest]
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		_, _ = w.Write(content[:len(content)/2])
		_ = http.NewResponseController(w).Flush()
		close(at)
		select {
		case <-on:
			_, _ = w.Write(content[len(content)/2:])
		case <-r.Context().Done():
		}
	})
	return at, sync.OnceFunc(func() { close(on) })
}

func TestPullThrough(t *testing.T) {
	f, st := newFake(t), newStore(t)
	big := f.blob(random(3 << 20))
	shared := f.blob(random(1000))
	amd := platform(f.image([]v1.Descriptor{big, shared}), "amd64")
	arm := platform(f.image([]v1.Descriptor{shared, f.blob(random(200))}), "arm64")
	root := f.index([]v1.Descriptor{amd, arm}, "1")
	reached, release := f.halfway(big)
	p := newPullThrough(t, newClient(t, st, f))

	if m := readManifest(t, p, "1"); m.Digest != root.Digest || !bytes.Equal(m.Bytes, f.blobs[root.Digest]) || m.MediaType != root.MediaType {
		t.Errorf("got %+v", m.Descriptor)
	}
	if m := readManifest(t, p, amd.Digest.String()); m.Digest != amd.Digest {
		t.Errorf("got %+v", m.Descriptor)
	}
	<-reached
	// Many clients follow the one transfer, from any place.
	var wg sync.WaitGroup
	content := f.blobs[big.Digest]
	for i := range 50 {
		from := int64(i%5) * 700_000
		wg.Go(func() {
			got, err := readBlob(t.Context(), p, big.Digest, from)
			if err != nil || !bytes.Equal(got, content[from:]) {
				t.Errorf("client %d: %d bytes, %v", i, len(got), err)
			}
		})
	}
	// One of them leaves.
	ctx, cancel := context.WithCancel(t.Context())
	r, size, err := p.Blob(ctx, app, big.Digest)
	if err != nil || size != big.Size {
		t.Fatalf("size %d, %v", size, err)
	}
	first := make([]byte, 1<<20)
	if _, err := io.ReadFull(r, first); err != nil || !bytes.Equal(first, content[:1<<20]) {
		t.Errorf("before the upstream has sent all: %v", err)
	}
	cancel()
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := st.Pin(t.Context(), app, "1"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("pinned before all is there: %v", err)
	}
	release()
	wg.Wait()
	if pin := waitPinned(t, st, "1"); pin.Digest != root.Digest || len(pin.Platforms) != 2 {
		t.Errorf("pinned %+v", pin)
	}
	checkStored(t, st, f)
	asked := f.asked()
	for d := range f.blobs {
		if n := count(asked, "GET blobs/"+d.String()) + count(asked, "GET manifests/"+d.String()); n != 1 && d != root.Digest {
			t.Errorf("%s was asked for %d times", d, n)
		}
	}
	if n := count(asked, "GET manifests/1"); n != 1 {
		t.Errorf("the tag was asked for %d times", n)
	}

	// Now the tag moves, and nobody is asked.
	f.simple(100, "1")
	if m := readManifest(t, p, "1"); m.Digest != root.Digest {
		t.Errorf("the tag moved to %s", m.Digest)
	}
	if asked := f.asked(); len(asked) != 0 {
		t.Errorf("for a pinned tag the upstream was asked %q", asked)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.arriving)+len(p.known) != 0 {
		t.Errorf("%d images and %d contents are still known", len(p.arriving), len(p.known))
	}
}

// What is decided stands, also before it is complete.
func TestArrivalStands(t *testing.T) {
	f, st := newFake(t), newStore(t)
	root, layer := f.simple(300_000, "1")
	reached, release := f.halfway(layer)
	defer release()
	p := newPullThrough(t, newClient(t, st, f))
	readManifest(t, p, "1")
	<-reached
	f.simple(100, "1")
	if m := readManifest(t, p, "1"); m.Digest != root.Digest {
		t.Errorf("the tag moved to %s", m.Digest)
	}
	// Another process that resolves now is told.
	other := newClientOf(t, st, Registry{URL: f.URL})
	var conflict *store.ConflictError
	if _, err := fetchTag(t, other, "1"); !errors.As(err, &conflict) || conflict.Pinned.Digest != root.Digest {
		t.Errorf("another digest was pinned: %v", err)
	}
}

func TestPullThroughBadBlob(t *testing.T) {
	f, st := newFake(t), newStore(t)
	_, layer := f.simple(300_000, "1")
	bad := bytes.Clone(f.blobs[layer.Digest])
	bad[17]++
	f.onBlob(layer, func(_ int, w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(bad))
	})
	p := newPullThrough(t, newClient(t, st, f))
	readManifest(t, p, "1")
	got, err := readBlob(t.Context(), p, layer.Digest, 0)
	if err == nil || len(got) == len(bad) {
		t.Errorf("got %d of %d bytes of a bad blob: %v", len(got), len(bad), err)
	}
	if has, err := st.Has(t.Context(), layer.Digest); has || err != nil {
		t.Errorf("a bad blob is in the store: %v, %v", has, err)
	}
}

// A new process goes on where the last one was.
func TestPullThroughRestart(t *testing.T) {
	f, st := newFake(t), newStore(t)
	root, layer := f.simple(300_000, "1")
	reached, release := f.halfway(layer)
	defer release()
	client := newClient(t, st, f)
	p := newPullThrough(t, client)
	readManifest(t, p, "1")
	<-reached
	r, _, err := p.Blob(t.Context(), app, layer.Digest)
	if err == nil {
		_, err = io.ReadFull(r, make([]byte, 1)) // so a part is on the disk
	}
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := errors.Join(p.Close(), client.Close()); err != nil {
		t.Fatal(err)
	}
	f.heard()

	p = newPullThrough(t, newClientOf(t, st, Registry{URL: f.URL}))
	if got, err := readBlob(t.Context(), p, layer.Digest, 0); err != nil || !bytes.Equal(got, f.blobs[layer.Digest]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if pin := waitPinned(t, st, "1"); pin.Digest != root.Digest {
		t.Errorf("pinned %+v", pin)
	}
	for _, r := range f.heard() {
		if is(r.URL.Path, layer) && r.Method == http.MethodGet && r.Header.Get("Range") == "" {
			t.Error("the whole layer was asked for again")
		}
		if strings.HasSuffix(r.URL.Path, "/manifests/1") || strings.Contains(r.URL.Path, "/manifests/sha256:") {
			t.Errorf("%s %s was asked for again", r.Method, r.URL.Path)
		}
	}
}

func TestPullThroughErrors(t *testing.T) {
	tests := []struct {
		name   string
		answer func(w http.ResponseWriter)
		want   func(error) bool
		asked  int // for two requests
	}{
		{"not found", func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) }, isMissing, 1},
		{"unauthorized", func(w http.ResponseWriter) { w.WriteHeader(http.StatusUnauthorized) }, isMissing, 1},
		{"forbidden", func(w http.ResponseWriter) { w.WriteHeader(http.StatusForbidden) }, isMissing, 1},
		{"rate limit", func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "77")
			w.WriteHeader(http.StatusTooManyRequests)
		}, isUnavailable(77 * time.Second), 1},
		{"failure", func(w http.ResponseWriter) { w.WriteHeader(http.StatusBadGateway) }, isUnavailable(retryAfter), 2 * tries},
		{"no manifest", func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", v1.MediaTypeImageManifest)
			fmt.Fprint(w, "<html>")
		}, isUnavailable(retryAfter), 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, st := newFake(t), newStore(t)
			f.misbehave(func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) { tt.answer(w) })
			p := newPullThrough(t, newClient(t, st, f))
			for range 2 {
				if _, err := p.Manifest(t.Context(), app, "1"); !tt.want(err) {
					t.Errorf("manifest: %v", err)
				}
			}
			if n := count(f.asked(), "GET manifests/1"); n != tt.asked {
				t.Errorf("asked %d times, want %d", n, tt.asked)
			}
			if _, _, err := p.Blob(t.Context(), app, digest.FromString("x")); tt.name != "no manifest" && !tt.want(err) {
				t.Errorf("blob: %v", err)
			}
			if all, err := st.Arrivals(t.Context()); len(all) != 0 || err != nil {
				t.Errorf("arrivals: %v, %v", all, err)
			}
		})
	}
}

func isMissing(err error) bool { return errors.Is(err, store.ErrNotFound) }

func isUnavailable(after time.Duration) func(error) bool {
	return func(err error) bool {
		var u interface{ RetryAfter() time.Duration }
		return errors.As(err, &u) && u.RetryAfter() == after && !isMissing(err)
	}
}

func TestPullThroughOnlyListed(t *testing.T) {
	f, st := newFake(t), newStore(t)
	_, layer := f.simple(100, "1")
	c := newClient(t, st, f)
	p, err := NewPullThrough(t.Context(), c, PullThroughOptions{Registries: []string{"other.test"}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.Manifest(t.Context(), app, "1"); !isMissing(err) {
		t.Error(err)
	}
	if _, _, err := p.Blob(t.Context(), app, layer.Digest); !isMissing(err) {
		t.Error(err)
	}
	if list, err := p.Referrers(t.Context(), app, layer.Digest); len(list) != 0 || err != nil {
		t.Error(list, err)
	}
	if asked := f.asked(); len(asked) != 0 {
		t.Errorf("asked %q", asked)
	}
}
