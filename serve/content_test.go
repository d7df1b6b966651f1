package serve

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"mirrorctl/store"
)

var _ Content = (*store.Store)(nil)

// memory is a Content in maps. Errors set in fail come before anything else.
type memory struct {
	manifests map[digest.Digest]store.Manifest
	blobs     map[digest.Digest][]byte
	pins      map[store.Repository]map[string]digest.Digest
	referrers map[digest.Digest][]v1.Descriptor
	fail      error

	// open replaces the reader of a blob.
	open func(data []byte) (io.ReadSeekCloser, int64)
}

func newMemory() *memory {
	return &memory{
		manifests: map[digest.Digest]store.Manifest{},
		blobs:     map[digest.Digest][]byte{},
		pins:      map[store.Repository]map[string]digest.Digest{},
		referrers: map[digest.Digest][]v1.Descriptor{},
	}
}

func (m *memory) addBlob(data []byte) digest.Digest {
	d := digest.FromBytes(data)
	m.blobs[d] = data
	return d
}

func (m *memory) addManifest(mediaType, data string) digest.Digest {
	d := m.addBlob([]byte(data))
	m.manifests[d] = store.Manifest{
		Descriptor: v1.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))},
		Bytes:      []byte(data),
	}
	return d
}

func (m *memory) pin(name, tag string, d digest.Digest) {
	registry, path, _ := strings.Cut(name, "/")
	repo := store.Repository{Registry: registry, Path: path}
	if m.pins[repo] == nil {
		m.pins[repo] = map[string]digest.Digest{}
	}
	m.pins[repo][tag] = d
}

func (m *memory) Manifest(_ context.Context, repo store.Repository, reference string) (store.Manifest, error) {
	if m.fail != nil {
		return store.Manifest{}, m.fail
	}
	d, ok := m.pins[repo][reference]
	if !ok {
		d = digest.Digest(reference)
	}
	found, ok := m.manifests[d]
	if !ok {
		return store.Manifest{}, store.ErrNotFound
	}
	return found, nil
}

type nopCloser struct{ io.ReadSeeker }

func (nopCloser) Close() error { return nil }

func (m *memory) Blob(_ context.Context, _ store.Repository, d digest.Digest) (io.ReadSeekCloser, int64, error) {
	if m.fail != nil {
		return nil, 0, m.fail
	}
	data, ok := m.blobs[d]
	if !ok {
		return nil, 0, store.ErrNotFound
	}
	if m.open != nil {
		r, size := m.open(data)
		return r, size, nil
	}
	return nopCloser{bytes.NewReader(data)}, int64(len(data)), nil
}

func (m *memory) BlobSize(_ context.Context, _ store.Repository, d digest.Digest) (int64, error) {
	if m.fail != nil {
		return 0, m.fail
	}
	data, ok := m.blobs[d]
	if !ok {
		return 0, store.ErrNotFound
	}
	return int64(len(data)), nil
}

func (m *memory) Tags(_ context.Context, repo store.Repository, last string, n int) ([]string, error) {
	if m.fail != nil {
		return nil, m.fail
	}
	if len(m.pins[repo]) == 0 {
		return nil, store.ErrNotFound
	}
	tags := slices.Sorted(maps.Keys(m.pins[repo]))
	return after(tags, func(s string) string { return s }, last, n), nil
}

func (m *memory) Repositories(_ context.Context, registry, last string, n int) ([]store.Repository, error) {
	if m.fail != nil {
		return nil, m.fail
	}
	var list []store.Repository
	for repo := range m.pins {
		if registry == "" || repo.Registry == registry {
			list = append(list, repo)
		}
	}
	slices.SortFunc(list, func(a, b store.Repository) int { return cmp.Compare(a.String(), b.String()) })
	return after(list, store.Repository.String, last, n), nil
}

func after[T any](list []T, key func(T) string, last string, n int) []T {
	i := 0
	for i < len(list) && last != "" && key(list[i]) <= last {
		i++
	}
	list = list[i:]
	if n >= 0 && len(list) > n {
		list = list[:n]
	}
	return list
}

func (m *memory) Referrers(_ context.Context, _ store.Repository, subject digest.Digest) ([]v1.Descriptor, error) {
	return m.referrers[subject], m.fail
}

func newHandler(t testing.TB, content Content, opts Options) *Handler {
	t.Helper()
	h, err := New(content, opts)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// do sends a request to a handler and returns the whole answer. headers are
// pairs of key and value.
func do(t testing.TB, h http.Handler, method, target string, headers ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func readAll(t testing.TB, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
