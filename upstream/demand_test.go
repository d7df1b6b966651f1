package upstream

import (
	"bytes"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"mirrorctl/store"
)

// The size of a blob can be asked for without bringing it here.
func TestBlobSize(t *testing.T) {
	f, st := newFake(t), newStore(t)
	layer, unknown := f.blob(random(1000)), f.blob(random(2000))
	f.index([]v1.Descriptor{platform(f.image([]v1.Descriptor{layer}), "amd64")}, "1")
	p := newPullThrough(t, newClient(t, st, f), v1.Platform{OS: "linux", Architecture: "s390x"})
	readManifest(t, p, "1")
	amd := readManifest(t, p, "1")
	graph, err := store.ParseManifest(amd.MediaType, amd.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	readManifest(t, p, graph.Children[0].Digest.String())
	for _, d := range []v1.Descriptor{layer, unknown} {
		if size, err := p.BlobSize(t.Context(), app, d.Digest); err != nil || size != d.Size {
			t.Errorf("size %d, %v", size, err)
		}
	}
	if _, err := p.BlobSize(t.Context(), app, v1.DescriptorEmptyJSON.Digest); !isMissing(err) {
		t.Errorf("of what is nowhere: %v", err)
	}
	asked := f.asked()
	for _, d := range []v1.Descriptor{layer, unknown} {
		if n := count(asked, "GET blobs/"+d.Digest.String()); n != 0 {
			t.Errorf("%s was asked for", d.Digest)
		}
	}
}

// What the upstream does not give is an error and not an answer that breaks off,
// and is not asked for again at once.
func TestBlobRefused(t *testing.T) {
	tests := map[string]struct {
		status int
		want   func(error) bool
		asked  int // for two requests
	}{
		"not found":  {http.StatusNotFound, isMissing, 1},
		"forbidden":  {http.StatusForbidden, isMissing, 1},
		"rate limit": {http.StatusTooManyRequests, isUnavailable(retryAfter), 1},
		"failure":    {http.StatusBadGateway, isUnavailable(retryAfter), 2 * tries},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f, st := newFake(t), newStore(t)
			layer := f.blob(random(1000))
			amd := platform(f.image([]v1.Descriptor{layer}), "amd64")
			f.index([]v1.Descriptor{amd}, "1")
			p := newPullThrough(t, newClient(t, st, f), v1.Platform{OS: "linux", Architecture: "s390x"})
			readManifest(t, p, "1")
			readManifest(t, p, amd.Digest.String())
			f.onBlob(layer, func(_ int, w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) { w.WriteHeader(tt.status) })
			for range 2 {
				if r, _, err := p.Blob(t.Context(), app, layer.Digest); !tt.want(err) {
					t.Errorf("%v, %v", r, err)
				}
			}
			if n := count(f.asked(), "GET blobs/"+layer.Digest.String()); n != tt.asked {
				t.Errorf("asked %d times, want %d", n, tt.asked)
			}
		})
	}
}

// An image that could not be fetched rests, but not when a client asks for it:
// unless its registry refused a part of it a moment ago.
func TestArrivalIsWoken(t *testing.T) {
	tests := map[string]struct {
		status int
		woken  bool
	}{
		"failure":    {http.StatusBadGateway, true},
		"not found":  {http.StatusNotFound, false},
		"rate limit": {http.StatusTooManyRequests, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f, st := newFake(t), newStore(t)
			_, layer := f.simple(1000, "1")
			f.simple(100, "2")
			var healthy atomic.Bool
			f.onBlob(layer, func(_ int, w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
				if healthy.Load() {
					serve(w, r)
					return
				}
				w.WriteHeader(tt.status)
			})
			p := newPullThrough(t, newClient(t, st, f))
			readManifest(t, p, "1")
			waitResting(t, p)
			healthy.Store(true)
			readManifest(t, p, "1")
			if tt.woken {
				waitPinned(t, st, "1")
				return
			}
			time.Sleep(100 * time.Millisecond) // for what should not happen
			if _, err := st.Pin(t.Context(), app, "1"); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("it was asked for again: %v", err)
			}
		})
	}
}

// waitResting waits until all images rest that are arriving.
func waitResting(t *testing.T, p *PullThrough) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		p.mu.Lock()
		resting := len(p.arriving) > 0
		for _, x := range p.arriving {
			resting = resting && x.rests
		}
		p.mu.Unlock()
		if resting {
			return
		}
	}
	t.Fatal("it does not rest")
}

// When a registry is back, all images of it go on that could not be fetched.
func TestArrivalsAreWokenTogether(t *testing.T) {
	f, st := newFake(t), newStore(t)
	_, layer := f.simple(1000, "1")
	f.simple(100, "2")
	var healthy atomic.Bool
	f.onBlob(layer, func(_ int, w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if healthy.Load() {
			serve(w, r)
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	p := newPullThrough(t, newClient(t, st, f))
	readManifest(t, p, "1")
	waitResting(t, p)
	healthy.Store(true)
	readManifest(t, p, "2") // another image
	waitPinned(t, st, "1")
	if got, err := readBlob(t.Context(), p, layer.Digest, 0); err != nil || !bytes.Equal(got, f.blobs[layer.Digest]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
