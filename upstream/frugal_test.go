package upstream

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// gets counts the GET requests for each path.
func gets(asked []string) map[string]int {
	n := map[string]int{}
	for _, one := range asked {
		if what, ok := strings.CutPrefix(one, "GET "); ok {
			n[what]++
		}
	}
	return n
}

// Images that share layers, fetched at the same time, cost one request for each
// manifest and blob; the same image 50 times at once costs no more.
func TestEachOnce(t *testing.T) {
	f, st := newFake(t), newStore(t)
	base := f.blob(random(300_000))
	var tags []string
	for i := range 8 {
		tag := fmt.Sprint("t", i)
		amd := f.image([]v1.Descriptor{base, f.blob(random(1000 + i))}, "a"+tag)
		arm := f.image([]v1.Descriptor{base, f.blob(random(2000 + i)), base}, "b"+tag)
		f.index([]v1.Descriptor{platform(amd, "amd64"), platform(arm, "arm64")}, tag)
		tags = append(tags, tag)
	}
	c := newClient(t, st, f)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			if _, err := fetchTag(t, c, tags[i%len(tags)]); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	content := 0
	for what, n := range gets(f.asked()) {
		if strings.HasPrefix(what, "referrers/") {
			continue
		}
		content++
		if n != 1 {
			t.Errorf("%d times %s", n, what)
		}
	}
	if content != len(f.blobs) {
		t.Errorf("%d contents asked for, there are %d", content, len(f.blobs))
	}
	checkStored(t, st, f)
}

func TestSecondFetch(t *testing.T) {
	f, st := newFake(t), newStore(t)
	image, _ := f.simple(1000, "1", "2")
	c := newClient(t, st, f)
	mustFetch(t, c, "1")
	f.asked()
	if _, err := c.Fetch(t.Context(), named(t, "example.test/team/app:1"), image, false, &Progress{}); err != nil {
		t.Fatal(err)
	}
	if asked := f.asked(); len(asked) > 0 {
		t.Errorf("a second fetch asked %v", asked)
	}
	mustFetch(t, c, "2")
	if asked := f.asked(); len(asked) != 1 || asked[0] != "HEAD manifests/2" {
		t.Errorf("another tag of the same image asked %v", asked)
	}
}

// What a failed fetch has brought is not asked for again, in another process too.
func TestNotAgainAfterFailure(t *testing.T) {
	f, st := newFake(t), newStore(t)
	good, bad := f.blob(random(500)), f.blob(random(600))
	first, second := f.image([]v1.Descriptor{good}), f.image([]v1.Descriptor{bad})
	f.index([]v1.Descriptor{platform(first, "amd64"), platform(second, "arm64")}, "1")
	f.misbehave(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if is(r.URL.Path, bad) {
			time.Sleep(300 * time.Millisecond) // let the others arrive
			http.Error(w, "gone", http.StatusNotFound)
			return
		}
		serve(w, r)
	})
	_, err := fetchTag(t, newClient(t, st, f), "1")
	wantError(t, err, ErrNotFound, "its layer "+bad.Digest.String())
	f.misbehave(nil)
	f.asked()
	mustFetch(t, newClient(t, st, f), "1")
	for what, n := range gets(f.asked()) {
		if strings.HasPrefix(what, "referrers/") {
			continue
		}
		if n != 1 || what != "blobs/"+bad.Digest.String() {
			t.Errorf("after the failure, %d times %s", n, what)
		}
	}
	checkStored(t, st, f)
}

// A manifest that could not be sent once, or a registry that is unwell for a
// moment, must not slow down what comes after.
func TestOneFailureSlowsNobody(t *testing.T) {
	f, st := newFake(t), newStore(t)
	var manifests []v1.Descriptor
	for i := range 60 {
		image, _ := f.simple(100, fmt.Sprint("m", i))
		manifests = append(manifests, platform(image, fmt.Sprint("arch", i)))
	}
	f.index(manifests, "1")
	var n atomic.Int64
	f.misbehave(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		switch i := n.Add(1); {
		case r.Method == http.MethodGet && i%40 == 3:
			w.WriteHeader(http.StatusInternalServerError)
		case strings.Contains(r.URL.Path, "sha256-") && i%3 == 0:
			w.WriteHeader(http.StatusForbidden)
		case strings.Contains(r.URL.Path, "sha256-"):
			w.WriteHeader(http.StatusBadRequest)
		default:
			serve(w, r)
		}
	})
	began := time.Now()
	mustFetch(t, newClient(t, st, f), "1")
	if took := time.Since(began); took > time.Minute {
		t.Errorf("took %v", took)
	}
	t.Logf("%d requests in %v", n.Load(), time.Since(began))
}

// The progress ends where it should, and counts what came over the network.
func TestProgress(t *testing.T) {
	f, st := newFake(t), newStore(t)
	layer := f.blob(random(200_000))
	image := f.image([]v1.Descriptor{layer, layer})
	f.index([]v1.Descriptor{platform(image, "amd64"), platform(image, "arm64")}, "1")
	f.referrer(image, "sbom")
	f.referrersAPI = true
	c := newClient(t, st, f)
	name := named(t, "example.test/team/app:1")
	desc, err := c.Resolve(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	var p Progress
	if _, err := c.Fetch(t.Context(), name, desc, false, &p); err != nil {
		t.Fatal(err)
	}
	var all int64
	for _, content := range f.blobs {
		all += int64(len(content))
	}
	if p.Bytes.Load() != p.TotalBytes.Load() || p.Blobs.Load() != p.TotalBlobs.Load() || p.Blobs.Load() != 4 {
		t.Errorf("%d of %d bytes, %d of %d blobs", p.Bytes.Load(), p.TotalBytes.Load(), p.Blobs.Load(), p.TotalBlobs.Load())
	}
	if p.Transferred.Load() != all {
		t.Errorf("%d bytes transferred, there are %d", p.Transferred.Load(), all)
	}
}
