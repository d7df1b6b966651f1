package upstream

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"mirrorctl/store"
)

// twoRegistries is a pull-through for example.test, which is one, and other.test,
// which is two.
func twoRegistries(t *testing.T, one, two *fake) *PullThrough {
	t.Helper()
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	c := New(newStore(t), Options{Registries: map[string]Registry{"example.test": {URL: one.URL}, "other.test": {URL: two.URL}}})
	c.pause, c.precedence.lull = 20*time.Millisecond, 20*time.Millisecond
	t.Cleanup(func() { _ = c.Close() })
	p, err := NewPullThrough(t.Context(), c, PullThroughOptions{Registries: []string{"example.test", "other.test"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// A registry that answers nothing holds up nobody who wants something of
// another, however many wait for it: clients as well as what goes on in the
// background.
func TestStalledRegistry(t *testing.T) {
	stalled, f := newFake(t), newFake(t)
	layers := make([]v1.Descriptor, 3*maxUrgent)
	for i := range layers {
		layers[i] = stalled.blob(random(1000 + i))
	}
	for i := range 2 * parallelArrivals {
		stalled.image([]v1.Descriptor{layers[i]}, fmt.Sprint(i))
	}
	// Content of their own: a blob is one flight for all registries.
	f.simple(5000, "a")
	_, layer := f.simple(6000, "b")
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	p := twoRegistries(t, stalled, f)
	for i := range 2 * parallelArrivals {
		readManifest(t, p, fmt.Sprint(i))
	}
	var held atomic.Int64
	stalled.misbehave(func(_ http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		held.Add(1)
		<-r.Context().Done()
	})
	for i, layer := range layers {
		go func() { _, _, _ = p.Blob(ctx, app, layer.Digest) }()
		go func() { _, _ = p.Manifest(ctx, app, fmt.Sprintf("absent-%d", i)) }()
	}
	for end := time.Now().Add(10 * time.Second); held.Load() < 2*maxUrgent && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	other := store.Repository{Registry: "other.test", Path: app.Path}
	limited, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for _, tag := range []string{"a", "b"} {
		if _, err := p.Manifest(limited, other, tag); err != nil {
			t.Fatalf("%s of another registry: %v", tag, err)
		}
	}
	r, _, err := p.Blob(limited, other, layer.Digest)
	if err != nil {
		t.Fatalf("a layer of another registry: %v", err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, f.blobs[layer.Digest]) {
		t.Errorf("a layer of another registry: %d bytes, %v", len(got), err)
	}
	for limited.Err() == nil {
		if _, err := p.store.Pin(t.Context(), other, "a"); err == nil {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Error("an image of another registry was not fetched in the background")
}

// Transfers whose clients have left go on, but not before what other clients
// wait for; and without asking for anything twice as long as nobody needs the place.
func TestAbandonedTransfersGiveWay(t *testing.T) {
	f := newFake(t)
	abandoned := make([]v1.Descriptor, maxUrgent+DefaultJobs)
	for i := range abandoned {
		abandoned[i] = f.blob(random(400_000 + i))
	}
	wanted := f.blob(random(300_000))
	var slow = make(chan struct{}) // until it is closed, the abandoned ones trickle
	f.misbehave(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if r.Method != http.MethodGet || is(r.URL.Path, wanted) {
			serve(w, r)
			return
		}
		w.Header().Set("Accept-Ranges", "none")
		serve(&trickle{w, r, slow}, r)
	})
	p := newPullThrough(t, newClient(t, newStore(t), f))
	limited, cancel := context.WithTimeout(t.Context(), 4*time.Second) // less than a polite pause
	defer cancel()
	for _, d := range abandoned {
		r, _, err := p.Blob(limited, app, d.Digest)
		if err != nil {
			t.Fatalf("with others whose clients have left: %v", err)
		}
		if _, err := io.ReadFull(r, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, d := range slices.Insert(slices.Clone(abandoned), 0, wanted)[:2] {
		r, _, err := p.Blob(limited, app, d.Digest)
		if err != nil {
			t.Fatalf("what a client waits for: %v", err)
		}
		defer r.Close()
		if d.Digest == wanted.Digest {
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, f.blobs[wanted.Digest]) {
				t.Fatalf("what a client waits for: %d bytes, %v", len(got), err)
			}
		}
	}
	close(slow)
	again := 0
	for _, d := range abandoned {
		if got, err := readBlob(t.Context(), p, d.Digest, 0); err != nil || !bytes.Equal(got, f.blobs[d.Digest]) {
			t.Errorf("an abandoned blob: %d bytes, %v", len(got), err)
		}
	}
	for _, r := range f.heard() {
		if r.Method == http.MethodGet && r.Header.Get("Range") != "" {
			again++
		}
	}
	if again > len(abandoned)/2 {
		t.Errorf("%d of %d transfers were broken off for two clients", again, len(abandoned))
	}
}

// trickle is an answer that comes in small pieces.
type trickle struct {
	http.ResponseWriter
	r    *http.Request
	slow <-chan struct{}
}

func (w *trickle) Write(b []byte) (n int, err error) {
	for len(b) > 0 && err == nil {
		var m int
		m, err = w.ResponseWriter.Write(b[:min(len(b), 2000)])
		_ = http.NewResponseController(w.ResponseWriter).Flush()
		n, b = n+m, b[m:]
		select {
		case <-w.slow:
		case <-w.r.Context().Done():
			return n, w.r.Context().Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return n, err
}

// Who gets an image's manifest asks for its blobs next: they come before what is
// fetched in the background, which would else fill the line.
func TestClientsComeFirst(t *testing.T) {
	f := newFake(t)
	var layers []v1.Descriptor
	for i := range 2 * DefaultJobs {
		layers = append(layers, f.blob(random(1000+i)))
	}
	f.image(layers, "1")
	c := newClient(t, newStore(t), f)
	c.precedence.lull = 400 * time.Millisecond
	p := newPullThrough(t, c)
	readManifest(t, p, "1")
	time.Sleep(50 * time.Millisecond) // that a client takes
	var want []string
	for _, d := range []v1.Descriptor{layers[3], layers[9]} {
		want = append(want, "GET blobs/"+d.Digest.String())
		if got, err := readBlob(t.Context(), p, d.Digest, 0); err != nil || !bytes.Equal(got, f.blobs[d.Digest]) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	}
	blobs := slices.DeleteFunc(f.asked(), func(one string) bool { return !strings.HasPrefix(one, "GET blobs/") })
	if len(blobs) < 2 || !slices.Equal(blobs[:2], want) {
		t.Errorf("asked for %q, and the client wanted %q", blobs, want)
	}
	waitPinned(t, p.store, "1")
}
