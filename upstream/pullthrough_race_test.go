package upstream

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"mirrorctl/store"
)

// Whoever looked into the store a moment before the image was complete asks the
// pull-through for what is pinned by now.
func TestPullThroughJustPinned(t *testing.T) {
	f, st := newFake(t), newStore(t)
	root, layer := f.simple(1000, "1")
	p := newPullThrough(t, newClient(t, st, f))
	readManifest(t, p, "1")
	waitPinned(t, st, "1")
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if _, _, known := p.lookup(layer.Digest); !known {
			break
		}
	}
	f.simple(500, "1") // it moved meanwhile
	f.heard()
	for _, reference := range []string{"1", root.Digest.String()} {
		if m, err := p.Manifest(t.Context(), app, reference); err != nil || m.Digest != root.Digest {
			t.Errorf("%s is %s, %v", reference, m.Digest, err)
		}
	}
	r, size, err := p.Blob(t.Context(), app, layer.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || size != layer.Size || !bytes.Equal(got, f.blobs[layer.Digest]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if asked := f.asked(); len(asked) != 0 {
		t.Errorf("for a pinned image the upstream was asked %q", asked)
	}
}

// Clients resolve a tag and then ask by digest: that is the same image.
func TestPullThroughRootByDigest(t *testing.T) {
	f, st := newFake(t), newStore(t)
	root, layer := f.simple(300_000, "1")
	reached, release := f.halfway(layer)
	p := newPullThrough(t, newClient(t, st, f))
	readManifest(t, p, "1")
	<-reached
	if m := readManifest(t, p, root.Digest.String()); m.Digest != root.Digest {
		t.Errorf("got %s", m.Digest)
	}
	if n := count(f.asked(), "GET manifests/"+root.Digest.String()); n != 0 {
		t.Errorf("the manifest was asked for %d times more", n)
	}
	if all, err := st.Arrivals(t.Context()); len(all) != 1 || err != nil {
		t.Errorf("arrivals %v, %v", all, err)
	}
	release()
	waitPinned(t, st, "1")
	if _, err := st.Pin(t.Context(), app, root.Digest.String()); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the digest is pinned too: %v", err)
	}
}

// What was removed is no answer for an image that came later or is still here.
func TestPullThroughRemovedAndAskedAgain(t *testing.T) {
	for name, platforms := range map[string][]v1.Platform{"all": nil, "one platform": {{OS: "linux", Architecture: "amd64"}}} {
		t.Run(name, func(t *testing.T) {
			f, st := newFake(t), newStore(t)
			amdLayer, armLayer, other := f.blob(random(300_000)), f.blob(random(300_000)), f.blob(random(100))
			amd := platform(f.image([]v1.Descriptor{amdLayer}), "amd64")
			arm := platform(f.image([]v1.Descriptor{armLayer}), "arm64")
			f.index([]v1.Descriptor{amd, arm}, "1")
			f.index([]v1.Descriptor{arm, amd, platform(f.image([]v1.Descriptor{other}), "s390x")}, "2")
			reached, release := f.halfway(amdLayer)
			defer release()
			p := newPullThrough(t, newClient(t, st, f), platforms...)
			for _, tag := range []string{"1", "2"} {
				readManifest(t, p, tag)
			}
			<-reached
			if _, _, err := st.Remove(t.Context(), app, "1"); err != nil {
				t.Fatal(err)
			}
			readManifest(t, p, arm.Digest.String())
			if got, err := readBlob(t.Context(), p, armLayer.Digest, 0); err != nil || !bytes.Equal(got, f.blobs[armLayer.Digest]) {
				t.Errorf("of the image that is still here: %d bytes, %v", len(got), err)
			}
			if _, _, err := st.Remove(t.Context(), app, "2"); err != nil {
				t.Fatal(err)
			}
			readManifest(t, p, "1")
			readManifest(t, p, arm.Digest.String())
			if got, err := readBlob(t.Context(), p, armLayer.Digest, 0); err != nil || !bytes.Equal(got, f.blobs[armLayer.Digest]) {
				t.Errorf("of the image that came again: %d bytes, %v", len(got), err)
			}
		})
	}
}

// A client does not lose its blob because another part of the image cannot be had.
func TestPullThroughOtherPartLost(t *testing.T) {
	f, st := newFake(t), newStore(t)
	here, lost := f.blob(random(1<<20)), f.blob(random(100))
	lost.Digest = digest.FromString("what the registry lost")
	f.index([]v1.Descriptor{
		platform(f.image([]v1.Descriptor{here}), "amd64"), platform(f.image([]v1.Descriptor{lost}), "arm64"),
	}, "1")
	reached, release := f.halfway(here)
	refused := make(chan struct{})
	halfway := f.hook
	f.misbehave(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if is(r.URL.Path, lost) {
			<-reached
			defer close(refused)
		}
		halfway(w, r, serve)
	})
	p := newPullThrough(t, newClient(t, st, f))
	readManifest(t, p, "1")
	<-reached
	r, _, err := p.Blob(t.Context(), app, here.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	first := make([]byte, 1000)
	if _, err := io.ReadFull(r, first); err != nil {
		t.Fatal(err)
	}
	<-refused
	time.Sleep(50 * time.Millisecond) // for what should not happen
	release()
	rest, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(append(first, rest...), f.blobs[here.Digest]) {
		t.Errorf("%d of %d bytes, %v", len(first)+len(rest), here.Size, err)
	}
	if n := count(f.asked(), "GET blobs/"+here.Digest.String()); n != 1 {
		t.Errorf("it was asked for %d times", n)
	}
}

// Two mirrors on one store wait for each other's transfers. What waits takes no
// precedence, or each would slow down what the other one waits for.
func TestPullThroughTwoProcesses(t *testing.T) {
	f, st := newFake(t), newStore(t)
	f.simple(1<<20, "1")
	other := f.blob(random(100))
	lease, err := st.NewLease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Close()
	elsewhere, err := lease.Writer(t.Context(), other) // by the other process
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close()
	c := newClient(t, st, f)
	p := newPullThrough(t, c)
	wait, _ := p.demand(wanted{Descriptor: other, repo: app})
	readManifest(t, p, "1")
	waitPinned(t, st, "1") // in a pause per read it would not come in time
	if err := elsewhere.Close(); err != nil {
		t.Fatal(err)
	}
	if <-wait.done; wait.err != nil {
		t.Error(wait.err)
	}
}

// A second mirror on the same store streams what the first one is fetching, and
// goes on with it when that ends.
func TestPullThroughElsewhere(t *testing.T) {
	for name, ends := range map[string]bool{"it completes": false, "it ends": true} {
		t.Run(name, func(t *testing.T) {
			f, st := newFake(t), newStore(t)
			_, layer := f.simple(1<<20, "1")
			reached, release := f.halfway(layer)
			defer release()
			first := newPullThrough(t, newClient(t, st, f))
			readManifest(t, first, "1")
			<-reached
			other, err := store.Open(t.Context(), st.Dir())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = other.Close() })
			second := newPullThrough(t, newClient(t, other, f))
			r, _, err := second.Blob(t.Context(), app, layer.Digest)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			got := make([]byte, 300_000)
			if _, err := io.ReadFull(r, got); err != nil {
				t.Fatalf("while the other one fetches it: %v", err)
			}
			if ends {
				if err := first.Close(); err != nil {
					t.Error(err)
				}
			} else {
				release()
			}
			rest, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(append(got, rest...), f.blobs[layer.Digest]) {
				t.Errorf("%d bytes, %v", len(got)+len(rest), err)
			}
			waitPinned(t, other, "1")
			if n := count(f.asked(), "GET blobs/"+layer.Digest.String()); !ends && n != 1 {
				t.Errorf("it was asked for %d times", n)
			}
		})
	}
}
