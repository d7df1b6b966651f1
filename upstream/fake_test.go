package upstream

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"mirrorctl/store"
)

// fake is a registry in memory that notes what it is asked and can be told to
// misbehave.
type fake struct {
	*httptest.Server
	referrersAPI bool
	// hook, if not nil, may answer in the registry's place, which serve is.
	hook func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc)

	mu        sync.Mutex
	blobs     map[digest.Digest][]byte
	manifests map[string]v1.Descriptor // by tag or digest
	requests  []*http.Request
}

func newFake(t *testing.T) *fake {
	f := &fake{blobs: map[digest.Digest][]byte{}, manifests: map[string]v1.Descriptor{}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

// host is the address as registries are named.
func (f *fake) host() string { return strings.TrimPrefix(f.URL, "http://") }

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.requests = append(f.requests, r.Clone(context.Background()))
	hook := f.hook
	f.mu.Unlock()
	if hook != nil {
		hook(w, r, f.serve)
		return
	}
	f.serve(w, r)
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(r.URL.Path, "/")
	kind, ref := parts[len(parts)-2], parts[len(parts)-1]
	f.mu.Lock()
	desc, known := f.manifests[ref]
	content, there := f.blobs[digest.Digest(ref)]
	if known {
		content = f.blobs[desc.Digest]
	}
	f.mu.Unlock()
	switch {
	case kind == "referrers" && f.referrersAPI:
		f.serveReferrers(w, digest.Digest(ref))
		return
	case kind == "manifests" && known:
		if desc.MediaType == store.MediaTypeSchema1Signed {
			content = sign(content)
		}
		w.Header().Set("Content-Type", desc.MediaType)
		w.Header().Set("Docker-Content-Digest", desc.Digest.String())
	case kind == "blobs" && there && !known:
		w.Header().Set("Content-Type", "application/octet-stream")
	default:
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`)
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
}

func (f *fake) serveReferrers(w http.ResponseWriter, subject digest.Digest) {
	list := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{}}
	f.mu.Lock()
	for ref, desc := range f.manifests {
		var m v1.Manifest
		if json.Unmarshal(f.blobs[desc.Digest], &m) == nil && m.Subject != nil && m.Subject.Digest == subject && ref == desc.Digest.String() {
			list.Manifests = append(list.Manifests, desc)
		}
	}
	f.mu.Unlock()
	w.Header().Set("Content-Type", v1.MediaTypeImageIndex)
	_ = json.NewEncoder(w).Encode(list)
}

// blob adds a blob.
func (f *fake) blob(content []byte) v1.Descriptor {
	return f.blobAs(digest.SHA256, content)
}

func (f *fake) blobAs(alg digest.Algorithm, content []byte) v1.Descriptor {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := alg.FromBytes(content)
	f.blobs[d] = content
	return v1.Descriptor{MediaType: v1.MediaTypeImageLayerGzip, Digest: d, Size: int64(len(content))}
}

// manifest adds a manifest or index, as JSON with odd whitespace so that
// whoever writes it anew is found out.
func (f *fake) manifest(mediaType string, v any, tags ...string) v1.Descriptor {
	raw, err := json.MarshalIndent(v, " ", "   ")
	if err != nil {
		panic(err)
	}
	return f.raw(digest.SHA256, mediaType, raw, tags...)
}

func (f *fake) raw(alg digest.Algorithm, mediaType string, content []byte, tags ...string) v1.Descriptor {
	desc := f.blobAs(alg, content)
	desc.MediaType = mediaType
	f.mu.Lock()
	defer f.mu.Unlock()
	f.manifests[desc.Digest.String()] = desc
	for _, tag := range tags {
		f.manifests[tag] = desc
	}
	return desc
}

// image adds an image with the given layers.
func (f *fake) image(layers []v1.Descriptor, tags ...string) v1.Descriptor {
	config := f.blob([]byte(`{"os":"linux","architecture":"` + fmt.Sprint(len(layers), tags) + `"}`))
	config.MediaType = v1.MediaTypeImageConfig
	return f.manifest(v1.MediaTypeImageManifest, v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, Config: config, Layers: layers,
	}, tags...)
}

// simple adds an image of one layer of n random bytes, and returns that too.
func (f *fake) simple(n int, tags ...string) (image, layer v1.Descriptor) {
	layer = f.blob(random(n))
	return f.image([]v1.Descriptor{layer}, tags...), layer
}

func (f *fake) index(manifests []v1.Descriptor, tags ...string) v1.Descriptor {
	return f.manifest(v1.MediaTypeImageIndex, v1.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: manifests,
	}, tags...)
}

// referrer adds an artifact that refers to subject.
func (f *fake) referrer(subject v1.Descriptor, content string) v1.Descriptor {
	empty := f.blob([]byte("{}"))
	empty.MediaType = v1.MediaTypeEmptyJSON
	return f.manifest(v1.MediaTypeImageManifest, v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, ArtifactType: "application/example",
		Config: empty, Layers: []v1.Descriptor{f.blob([]byte(content))}, Subject: &subject,
	})
}

// misbehave sets the hook.
func (f *fake) misbehave(hook func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = hook
}

// asked returns "METHOD kind/reference" of each request so far and forgets them.
func (f *fake) asked() []string {
	var all []string
	for _, r := range f.heard() {
		parts := strings.Split(r.URL.Path, "/")
		all = append(all, r.Method+" "+strings.Join(parts[len(parts)-2:], "/"))
	}
	return all
}

func (f *fake) heard() []*http.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.requests
	f.requests = nil
	return all
}

func count(all []string, one string) (n int) {
	for _, s := range all {
		if s == one {
			n++
		}
	}
	return n
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

func is(path string, d v1.Descriptor) bool { return strings.HasSuffix(path, "/"+d.Digest.String()) }

// newStore opens an empty store.
func newStore(t *testing.T) *store.Store {
	t.Helper()
	st, err := store.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return st
}

// newClient returns a client for the registry example.test, which is f.
func newClient(t *testing.T, st *store.Store, f *fake) *Client {
	t.Helper()
	return newClientOf(t, st, Registry{URL: f.URL})
}

// parallelClient is newClient for parallel tests, which cannot set variables.
func parallelClient(t *testing.T, st *store.Store, f *fake) *Client {
	t.Helper()
	return clientOf(t, st, Registry{URL: f.URL, Username: "me", Password: "secret"})
}

func newClientOf(t *testing.T, st *store.Store, r Registry) *Client {
	t.Helper()
	t.Setenv("DOCKER_CONFIG", t.TempDir()) // nobody's logins
	return clientOf(t, st, r)
}

func clientOf(t *testing.T, st *store.Store, r Registry) *Client {
	t.Helper()
	c := New(st, Options{Registries: map[string]Registry{"example.test": r}})
	c.pause = 20 * time.Millisecond
	c.precedence.lull = 20 * time.Millisecond
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func named(t *testing.T, s string) reference.Named {
	t.Helper()
	name, err := reference.ParseDockerRef(s)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// fetchTag resolves example.test/team/app:tag and fetches it.
func fetchTag(t *testing.T, c *Client, tag string) (store.Pin, error) {
	t.Helper()
	return fetchName(c, named(t, "example.test/team/app:"+tag))
}

func fetchName(c *Client, name reference.Named) (store.Pin, error) {
	ctx := context.Background()
	desc, err := c.Resolve(ctx, name)
	if err != nil {
		return store.Pin{}, err
	}
	return c.Fetch(ctx, name, desc, false, &Progress{})
}

func mustFetch(t *testing.T, c *Client, tag string) store.Pin {
	t.Helper()
	pin, err := fetchTag(t, c, tag)
	if err != nil {
		t.Fatalf("fetch %s: %v", tag, err)
	}
	return pin
}

// checkStored compares content in the store with what f has: all of it, or only
// that of the digests.
func checkStored(t *testing.T, st *store.Store, f *fake, only ...v1.Descriptor) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	digests := slices.Collect(maps.Keys(f.blobs))
	if len(only) > 0 {
		digests = nil
		for _, d := range only {
			digests = append(digests, d.Digest)
		}
	}
	for _, d := range digests {
		got, err := st.ReadBlob(t.Context(), d, 1<<30)
		if err != nil || !bytes.Equal(got, f.blobs[d]) {
			t.Errorf("%s: not as it is upstream: %v", d, err)
		}
		want, isManifest := f.manifests[d.String()]
		if !isManifest {
			continue
		}
		m, err := st.Manifest(t.Context(), store.Repository{Registry: "example.test", Path: "team/app"}, d.String())
		if err != nil || m.MediaType != want.MediaType || !bytes.Equal(m.Bytes, f.blobs[d]) {
			t.Errorf("manifest %s: not as it is upstream: media type %q, %v", d, m.MediaType, err)
		}
	}
	checked, err := st.Verify(t.Context(), nil, nil)
	if err != nil || len(checked.Damage) > 0 {
		t.Errorf("store is not clean: %v %v", checked.Damage, err)
	}
}

func mustURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
