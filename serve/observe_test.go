package serve

import (
	"io"
	"net/http"
	"testing"
	"time"
)

type ended struct {
	kind   Kind
	status int
	cache  string
	bytes  int64
}

type observing struct {
	begun int
	all   []ended
}

func (o *observing) Begin(Kind) { o.begun++ }
func (o *observing) End(k Kind, status int, cache string, bytes int64, _ time.Duration) {
	o.all = append(o.all, ended{k, status, cache, bytes})
}

func TestObserver(t *testing.T) {
	content, index, layer := testContent()
	seen := &observing{}
	h := newHandler(t, content, Options{Observer: seen})
	for _, c := range []struct {
		method, path string
		kind         Kind
		status       int
		cache        string
	}{
		{"GET", "/v2/", KindPing, 200, ""},
		{"GET", "/v2/library/debian/manifests/" + index.String(), KindManifest, 200, "hit"},
		{"HEAD", "/v2/library/debian/manifests/" + index.String(), KindManifest, 200, "hit"},
		{"GET", "/v2/library/debian/blobs/" + layer.String(), KindBlob, 200, "hit"},
		{"GET", "/v2/library/none/manifests/1", KindManifest, 404, "miss"},
		{"GET", "/v2/library/debian/tags/list", KindTags, 200, "hit"},
		{"GET", "/v2/_catalog", KindCatalog, 200, ""},
		{"PUT", "/v2/library/debian/manifests/1", KindOther, 405, ""},
		{"GET", "/", KindPage, 200, ""},
		{"GET", "/elsewhere", KindOther, 404, ""},
	} {
		seen.all = nil
		res := do(t, h, c.method, c.path)
		n, _ := io.Copy(io.Discard, res.Body)
		if len(seen.all) != 1 {
			t.Errorf("%s %s: seen %v", c.method, c.path, seen.all)
			continue
		}
		got := seen.all[0]
		if got.kind != c.kind && !(c.method == "PUT") || got.status != c.status || got.cache != c.cache || got.bytes != n {
			t.Errorf("%s %s: %+v, body %d", c.method, c.path, got, n)
		}
	}
	if seen.begun != 10 {
		t.Errorf("%d have begun", seen.begun)
	}
	for k := range Kinds {
		if k.String() == "" {
			t.Errorf("kind %d has no name", k)
		}
	}
}

// BenchmarkObserver is what an observer costs a manifest that is stored.
func BenchmarkObserver(b *testing.B) {
	content, index, _ := testContent()
	for name, o := range map[string]Observer{"without": nil, "with": quiet{}} {
		b.Run(name, func(b *testing.B) {
			h := newHandler(b, content, Options{Observer: o})
			r, err := http.NewRequest("GET", "/v2/library/debian/manifests/"+index.String(), nil)
			if err != nil {
				b.Fatal(err)
			}
			w := &nullWriter{header: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(w, r)
			}
		})
	}
}

type quiet struct{}

func (quiet) Begin(Kind)                                  {}
func (quiet) End(Kind, int, string, int64, time.Duration) {}
