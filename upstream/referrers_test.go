package upstream

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"mirrorctl/store"
)

// listing makes a registry list referrers, page by page without end.
func listing(f *fake, page func(n int) string) {
	f.misbehave(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if !strings.Contains(r.URL.Path, "/referrers/") {
			serve(w, r)
			return
		}
		n := 0
		_, _ = fmt.Sscanf(r.URL.Query().Get("n"), "%d", &n)
		w.Header().Set("Content-Type", v1.MediaTypeImageIndex)
		w.Header().Set("Link", fmt.Sprintf(`<%s?n=%d>; rel="next"`, r.URL.Path, n+1))
		fmt.Fprintf(w, `{"schemaVersion":2,"manifests":[%s]}`, page(n))
	})
}

// A list of referrers may be as long as a registry likes: it ends with the page
// that is too much, or else after some number of pages.
func TestEndlessReferrers(t *testing.T) {
	entries := func(n int, digest func(i int) string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `{"digest":"%s"},`, digest(i))
		}
		return strings.TrimSuffix(b.String(), ",")
	}
	junk := entries(150_000, func(i int) string { return fmt.Sprintf("a%05d", i) })
	tests := []struct {
		name  string
		page  func(n int) string
		pages int // asked for at most
		says  string
	}{
		{"many", func(n int) string {
			return entries(4000, func(i int) string { return digest.FromString(fmt.Sprint(n, i)).String() })
		}, 3, "more than 10000 manifests and blobs"},
		{"no digests", func(int) string { return junk }, 25, "more than 64 MiB"},
		{"small pages", func(int) string { return "" }, maxPages, "on more than 100 pages"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, st := newFake(t), newStore(t)
			f.simple(1, "1")
			listing(f, tt.page)
			_, err := fetchTag(t, newClient(t, st, f), "1")
			wantError(t, err, ErrTooLarge, tt.says)
			pages := 0
			for _, r := range f.heard() {
				if strings.Contains(r.URL.Path, "/referrers/") {
					pages++
				}
			}
			if pages > tt.pages {
				t.Errorf("asked for %d pages, want %d at most", pages, tt.pages)
			}
		})
	}
}

// What is no digest in a list is no referrer, and what is listed twice is one.
func TestOddReferrers(t *testing.T) {
	f, st := newFake(t), newStore(t)
	root, _ := f.simple(1, "1")
	signature := f.referrer(root, "signature")
	f.misbehave(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if !strings.HasSuffix(r.URL.Path, "/referrers/"+root.Digest.String()) {
			serve(w, r)
			return
		}
		w.Header().Set("Content-Type", v1.MediaTypeImageIndex)
		fmt.Fprintf(w, `{"schemaVersion":2,"manifests":[{"digest":"a00001"},{},{"digest":%q},{"digest":%q}]}`, signature.Digest, signature.Digest)
	})
	mustFetch(t, newClient(t, st, f), "1")
	found, err := st.Referrers(t.Context(), store.Repository{}, root.Digest)
	if err != nil || len(found) != 1 || found[0].Digest != signature.Digest {
		t.Errorf("%v %v", found, err)
	}
}

// Entries that say nothing take no memory.
func TestReferrersListIsSmall(t *testing.T) {
	var l referrersList
	if err := json.Unmarshal([]byte("["+strings.Repeat("{},", 100_000)+"{}]"), &l); err != nil || l == nil || cap(l) > 0 {
		t.Errorf("room for %d: %v", cap(l), err)
	}
	for _, text := range []string{"null", "{}", "3", `"x"`} {
		l = nil
		if err := json.Unmarshal([]byte(text), &l); err != nil || l != nil {
			t.Errorf("%s: %v %v", text, l, err)
		}
	}
}
