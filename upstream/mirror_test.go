package upstream

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// A mirror is asked first, with the registry that is meant, and by digest; the
// registry is asked only for what a mirror cannot know not to exist.
func TestMirror(t *testing.T) {
	mirror, f, st := newFake(t), newFake(t), newStore(t)
	_, layer := f.simple(1000, "1")
	mirror.blobs, mirror.manifests = f.blobs, f.manifests
	mustFetch(t, newClientOf(t, st, Registry{URL: f.URL, Mirrors: []string{mirror.URL + "/"}}), "1")
	for _, one := range f.asked() {
		if !strings.HasPrefix(one, "HEAD manifests/sha256-") && !strings.HasPrefix(one, "GET referrers/") {
			t.Errorf("the registry was asked %s", one)
		}
	}
	for _, r := range mirror.heard() {
		if got := r.URL.Query().Get("ns"); got != "example.test" {
			t.Errorf("%s: ns is %q", r.URL, got)
		}
		if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/1") {
			t.Errorf("asked by tag: %s", r.URL)
		}
	}
	checkStored(t, st, f, layer)
}

// Whatever a mirror does wrong, the registry has the image.
func TestMirrorFails(t *testing.T) {
	for name, fail := range map[string]func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc){
		"404":    func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) { w.WriteHeader(404) },
		"401":    func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) { w.WriteHeader(401) },
		"429":    func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) { w.WriteHeader(429) },
		"500":    func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) { w.WriteHeader(500) },
		"HTML":   func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) { _, _ = w.Write([]byte("<html>")) },
		"closed": func(http.ResponseWriter, *http.Request, http.HandlerFunc) { panic(http.ErrAbortHandler) },
		"wrong blobs": func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
			if strings.Contains(r.URL.Path, "/blobs/") {
				w.Header().Set("Content-Length", "50000")
				_, _ = w.Write(random(50_000))
				return
			}
			serve(w, r)
		},
		// Its bytes are bad and not even complete: the registry's rest does
		// not fit them.
		"half of wrong blobs": func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
			if strings.Contains(r.URL.Path, "/blobs/") {
				w.Header().Set("Content-Length", "50000")
				_, _ = w.Write(random(20_000))
				panic(http.ErrAbortHandler)
			}
			serve(w, r)
		},
		"wrong manifests": func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
			if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/manifests/") {
				w.Header().Set("Content-Type", v1.MediaTypeImageManifest)
				_, _ = w.Write([]byte("{}"))
				return
			}
			serve(w, r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			mirror, f, st := newFake(t), newFake(t), newStore(t)
			image, layer := f.simple(50_000, "1")
			mirror.blobs, mirror.manifests = f.blobs, f.manifests
			mirror.misbehave(fail)
			began := time.Now()
			mustFetch(t, newClientOf(t, st, Registry{URL: f.URL, Mirrors: []string{mirror.URL}}), "1")
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
			checkStored(t, st, f, image, layer)
		})
	}
}

// A mirror that nobody answers for costs its wait once.
func TestDeadMirror(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	f, st := newFake(t), newStore(t)
	var all []v1.Descriptor
	for range 20 {
		image, _ := f.simple(100)
		all = append(all, platform(image, image.Digest.Encoded()[:6]))
	}
	f.index(all, "1")
	c := newClientOf(t, st, Registry{URL: f.URL, Mirrors: []string{"http://127.0.0.1:1", "http://" + silent.Addr().String()}})
	c.silence = 3 * time.Second // a mirror gets a third of it: 20 s if each manifest waited
	began := time.Now()
	mustFetch(t, c, "1")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
}

// A mirror that knows nothing of referrers does not hide those of the registry,
// and where the registry cannot be reached a mirror is enough.
func TestMirrorAndReferrers(t *testing.T) {
	for name, mirrored := range map[string]bool{"api": true, "no api": false} {
		t.Run(name, func(t *testing.T) {
			mirror, f, st := newFake(t), newFake(t), newStore(t)
			image, _ := f.simple(100, "1")
			mirror.blobs[image.Digest] = f.blobs[image.Digest]
			mirror.manifests[image.Digest.String()] = image
			mirror.referrersAPI, f.referrersAPI = mirrored, true
			f.referrer(image, "sbom")
			f.image(nil, "sha256-"+image.Digest.Encoded()+".sig")
			mustFetch(t, newClientOf(t, st, Registry{URL: f.URL, Mirrors: []string{mirror.URL}}), "1")
			checkStored(t, st, f)
		})
	}
	t.Run("registry out of reach", func(t *testing.T) {
		mirror, st := newFake(t), newStore(t)
		mirror.simple(100, "1")
		mustFetch(t, newClientOf(t, st, Registry{URL: "http://127.0.0.1:1", Mirrors: []string{mirror.URL}}), "1")
		checkStored(t, st, mirror)
	})
}

func TestPathPrefix(t *testing.T) {
	f, st := newFake(t), newStore(t)
	f.simple(100, "1")
	mustFetch(t, newClientOf(t, st, Registry{URL: f.URL + "/proxy/hub/"}), "1")
	for _, r := range f.heard() {
		if !strings.HasPrefix(r.URL.Path, "/v2/proxy/hub/team/app/") {
			t.Errorf("asked %s", r.URL)
		}
	}
}

// Registries and proxies answer questions about referrers in many ways that
// only mean that there are none.
func TestNoReferrers(t *testing.T) {
	for _, code := range []int{400, 401, 403, 404, 405, 501} {
		f, st := newFake(t), newStore(t)
		f.simple(100, "1")
		f.misbehave(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
			if strings.Contains(r.URL.Path, "/referrers/") || strings.Contains(r.URL.Path, "/manifests/sha256-") {
				w.WriteHeader(code)
				return
			}
			serve(w, r)
		})
		if _, err := fetchTag(t, newClient(t, st, f), "1"); err != nil {
			t.Errorf("%d: %v", code, err)
		}
	}
}

// Referrers that are listed but lost, or that refer to something else, are left
// out as a whole; the image and its other referrers are there.
func TestBadReferrers(t *testing.T) {
	f, st := newFake(t), newStore(t)
	image, _ := f.simple(100, "1")
	other, _ := f.simple(100, "2")
	good, lost, strange := f.referrer(image, "good"), f.referrer(image, "lost"), f.referrer(other, "strange")
	delete(f.blobs, digest.FromString("lost"))
	f.answers("/referrers/"+image.Digest.String(), func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", v1.MediaTypeImageIndex)
		_, _ = w.Write([]byte(`{"schemaVersion":2,"manifests":[{"digest":"` + good.Digest.String() + `"},{"digest":"` + lost.Digest.String() +
			`"},{"digest":"` + strange.Digest.String() + `"},{"digest":"../../etc/passwd"}]}`))
	})
	pin := mustFetch(t, newClient(t, st, f), "1")
	got, err := st.Referrers(t.Context(), pin.Repository, image.Digest)
	if err != nil || len(got) != 1 || got[0].Digest != good.Digest {
		t.Errorf("referrers: %v %v", got, err)
	}
	if _, err := st.Manifest(t.Context(), pin.Repository, strange.Digest.String()); err == nil {
		t.Error("what refers to another image was published with this one")
	}
	checkStored(t, st, f, image, good)
}

// After a registry has failed to list referrers, the next image has its own.
func TestReferrersAfterFailure(t *testing.T) {
	f, st := newFake(t), newStore(t)
	f.referrersAPI = true
	first, _ := f.simple(100, "1")
	second, _ := f.simple(100, "2")
	f.referrer(second, "sbom")
	c := newClient(t, st, f)
	f.answers("/referrers/"+first.Digest.String(), status(http.StatusServiceUnavailable))
	_, err := fetchTag(t, c, "1")
	wantError(t, err, ErrUnavailable)
	pin := mustFetch(t, c, "2")
	if got, err := st.Referrers(t.Context(), pin.Repository, second.Digest); err != nil || len(got) != 1 {
		t.Errorf("referrers: %v %v", got, err)
	}
}

func TestRepair(t *testing.T) {
	f, st := newFake(t), newStore(t)
	image, layer := f.simple(50_000, "1")
	c := newClient(t, st, f)
	pin := mustFetch(t, c, "1")
	for _, d := range []v1.Descriptor{image, layer} {
		path := filepath.Join(st.Dir(), "blobs", "sha256", d.Digest.Encoded())
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, random(int(d.Size)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f.asked()
	checked, err := st.Verify(t.Context(), nil, nil)
	if err != nil || len(checked.Damage) != 2 {
		t.Fatalf("damage: %v %v", checked.Damage, err)
	}
	for _, d := range checked.Damage {
		if err := c.Repair(t.Context(), pin.Repository, d.Descriptor); err != nil {
			t.Errorf("repair %s: %v", d.Digest, err)
		}
	}
	if asked := f.asked(); len(asked) != 1 || asked[0] != "GET blobs/"+layer.Digest.String() {
		t.Errorf("repair asked %v", asked)
	}
	checkStored(t, st, f)

	f.misbehave(func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) { w.WriteHeader(404) })
	err = c.Repair(t.Context(), pin.Repository, layer)
	wantError(t, err, ErrNotFound)
	checkStored(t, st, f)
}

// Files that are gone come back with one request each, however many ask, and
// manifests without any.
func TestRestore(t *testing.T) {
	f, st := newFake(t), newStore(t)
	image, layer := f.simple(50_000, "1")
	c := newClient(t, st, f)
	pin := mustFetch(t, c, "1")
	for _, d := range []v1.Descriptor{image, layer} {
		if err := os.Remove(filepath.Join(st.Dir(), "blobs", "sha256", d.Digest.Encoded())); err != nil {
			t.Fatal(err)
		}
	}
	f.asked()
	lost, err := st.Lost(t.Context(), image.Digest)
	if err != nil || len(lost) != 2 {
		t.Fatalf("lost: %v %v", lost, err)
	}
	var wg sync.WaitGroup
	progress := make([]Progress, 20)
	for i := range progress {
		wg.Go(func() {
			if err := c.Restore(t.Context(), pin.Repository, lost, &progress[i]); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	// Who has looked before, and asks when it is back.
	if err := c.Restore(t.Context(), pin.Repository, lost, &Progress{}); err != nil {
		t.Error(err)
	}
	if asked := f.asked(); len(asked) != 1 || asked[0] != "GET blobs/"+layer.Digest.String() {
		t.Errorf("asked %v", asked)
	}
	var transferred int64
	for i := range progress {
		transferred += progress[i].Transferred.Load()
	}
	if transferred != layer.Size {
		t.Errorf("%d bytes transferred, want %d", transferred, layer.Size)
	}
	checkStored(t, st, f)

	if err := os.Remove(filepath.Join(st.Dir(), "blobs", "sha256", layer.Digest.Encoded())); err != nil {
		t.Fatal(err)
	}
	f.misbehave(func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) { w.WriteHeader(404) })
	wantError(t, c.Restore(t.Context(), pin.Repository, []v1.Descriptor{layer}, &Progress{}), ErrNotFound, "its blob "+layer.Digest.String())
}
