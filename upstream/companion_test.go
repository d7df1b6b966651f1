package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"mirrorctl/store"
)

// What one repository has pinned says nothing of the signatures in another: they
// are looked for there, with a pin of the digest as without.
func TestSignaturesOfEachRepository(t *testing.T) {
	f, st := newFake(t), newStore(t)
	image, layer := f.simple(1000, "1", "2")
	signature, _ := f.simple(10)
	tag := "sha256-" + image.Digest.Encoded() + ".sig"
	f.manifests[tag] = signature
	f.misbehave(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if strings.Contains(r.URL.Path, "/team/app/") && strings.HasSuffix(r.URL.Path, tag) {
			http.NotFound(w, r)
			return
		}
		serve(w, r)
	})
	c := newClient(t, st, f)
	signed := func(repo store.Repository) bool {
		t.Helper()
		m, err := st.Manifest(t.Context(), repo, tag)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			t.Fatal(err)
		}
		return err == nil && m.Digest == signature.Digest
	}
	pin := mustFetch(t, c, "1")
	if signed(pin.Repository) {
		t.Fatal("a signature that is not there")
	}
	f.asked()
	other := named(t, "example.test/other/app:1")
	pin, err := c.Fetch(t.Context(), other, v1.Descriptor{Digest: image.Digest}, false, &Progress{})
	if err != nil || !signed(pin.Repository) {
		t.Errorf("the other repository's signature is not there: %v", err)
	}
	asked := f.asked()
	if count(asked, "HEAD manifests/"+tag) != 1 || count(asked, "GET blobs/"+layer.Digest.String()) != 0 {
		t.Errorf("asked %v", asked)
	}

	// The first is signed later: another tag takes over what is pinned, an
	// update looks again.
	f.misbehave(nil)
	pin, err = c.Fetch(t.Context(), named(t, "example.test/team/app:2"), image, false, &Progress{})
	if asked := f.asked(); err != nil || len(asked) > 0 || signed(pin.Repository) {
		t.Errorf("another tag asked %v: %v", asked, err)
	}
	pin, err = c.Fetch(t.Context(), named(t, "example.test/team/app:1"), image, true, &Progress{})
	if err != nil || !signed(pin.Repository) {
		t.Errorf("an update did not find the new signature: %v", err)
	}
	checkStored(t, st, f)
}

// A registry that refuses to tell what refers to an image may just not know
// referrers: the image is fetched, and the refusal said, once.
func TestRefusedReferrers(t *testing.T) {
	for _, code := range []int{http.StatusUnauthorized, http.StatusForbidden} {
		for _, kind := range []string{"/referrers/", "/manifests/sha256-"} {
			f, st := newFake(t), newStore(t)
			image, _ := f.simple(100)
			f.index([]v1.Descriptor{platform(image, "amd64")}, "1")
			f.answers(kind, status(code))
			c := newClient(t, st, f)
			var log bytes.Buffer
			c.log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
			mustFetch(t, c, "1")
			said := log.String()
			if strings.Count(said, "\n") != 1 || !strings.Contains(said, "cannot be read and are left out") ||
				!strings.Contains(said, "repository=example.test/team/app") || !strings.Contains(said, fmt.Sprint("answered ", code)) {
				t.Errorf("%d on %s: said %q", code, kind, said)
			}
			checkStored(t, st, f)
		}
	}
	// What is simply not there is nothing to talk about.
	f, st := newFake(t), newStore(t)
	f.simple(100, "1")
	c := newClient(t, st, f)
	var log bytes.Buffer
	c.log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	mustFetch(t, c, "1")
	if log.Len() > 0 {
		t.Errorf("said %q", log.String())
	}
}
