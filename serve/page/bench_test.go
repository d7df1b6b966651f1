package page

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"mirrorctl/store"
)

// BenchmarkPages measures pages of a store with ten thousand images.
func BenchmarkPages(b *testing.B) {
	in := newBuilder(b)
	root := in.image(store.Repository{Registry: "docker.io", Path: "library/base"}, "1", "RUN a", "RUN b")
	for i := range 10_000 {
		repo := store.Repository{Registry: "docker.io", Path: fmt.Sprintf("team%d/app%d", i%20, i/20)}
		if _, err := in.store.PinPublished(b.Context(), repo, fmt.Sprintf("v%d", i), root.Digest, false); err != nil {
			b.Fatal(err)
		}
	}
	h := New(b.Context(), Options{Store: in.store})
	for name, path := range map[string]string{
		"first": "/", "last": "/?page=200", "search": "/?q=team7+app3", "nothing": "/?q=nothing-of-the-kind", "hits": "/?sort=hits",
		"image": imageURL("docker.io/team7/app3:v67"),
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
				if w.Code != http.StatusOK {
					b.Fatal(w.Body)
				}
			}
		})
	}
}
