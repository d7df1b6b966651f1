package upstream

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/docker/libtrust"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"mirrorctl/store"
)

// schema1 adds an image of schema 1 with the given layers, which is signed anew
// each time it is asked for, as distribution 2 does.
func (f *fake) schema1(layers []v1.Descriptor, tags ...string) v1.Descriptor {
	var doc struct {
		SchemaVersion int                 `json:"schemaVersion"`
		Architecture  string              `json:"architecture"`
		FSLayers      []map[string]string `json:"fsLayers"`
		History       []map[string]string `json:"history"`
	}
	doc.SchemaVersion, doc.Architecture = 1, "amd64"
	for _, layer := range layers {
		doc.FSLayers = append(doc.FSLayers, map[string]string{"blobSum": layer.Digest.String()})
		doc.History = append(doc.History, map[string]string{"v1Compatibility": `{"os":"linux","config":{"OnBuild":["RUN x"]}}`})
	}
	return f.manifest(store.MediaTypeSchema1Signed, doc, tags...)
}

// sign returns a payload with a signature, as distribution 2 sends it.
func sign(payload []byte) []byte {
	js, err := libtrust.NewJSONSignature(payload)
	if err != nil {
		panic(err)
	}
	key, err := libtrust.GenerateECP256PrivateKey()
	if err != nil {
		panic(err)
	}
	if err := js.Sign(key); err != nil {
		panic(err)
	}
	content, err := js.PrettySignature("signatures")
	if err != nil {
		panic(err)
	}
	return content
}

// checkSigned returns a manifest's bytes, which must be signed and complete.
func checkSigned(t *testing.T, f *fake, m store.Manifest, want v1.Descriptor) string {
	t.Helper()
	js, err := libtrust.ParsePrettySignature(m.Bytes, "signatures")
	if err != nil {
		t.Fatalf("%s: %v", m.Bytes, err)
	}
	if _, err := js.Verify(); err != nil {
		t.Errorf("signature: %v", err)
	}
	payload, err := js.Payload()
	if err != nil || m.Digest != want.Digest || m.MediaType != want.MediaType || !bytes.Equal(payload, f.blobs[want.Digest]) {
		t.Errorf("%s %s: payload %s, %v", m.MediaType, m.Digest, payload, err)
	}
	return string(m.Bytes)
}

func storedManifest(t *testing.T, st *store.Store, reference string) store.Manifest {
	t.Helper()
	m, err := st.Manifest(t.Context(), app, reference)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// A sync takes all layers, each once, whose sizes it asks for. What was cut off
// goes on, with the signatures that came first.
func TestSchema1(t *testing.T) {
	f, st := newFake(t), newStore(t)
	large, empty := f.blob(random(100_000)), f.blob([]byte("empty"))
	root := f.schema1([]v1.Descriptor{large, empty, f.blob([]byte("base")), empty}, "1")
	f.onBlob(large, func(i int, w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if i < 1+tries && r.Method == http.MethodGet {
			cut(w, r, serve, 300)
		}
		serve(w, r)
	})
	c := newClient(t, st, f)
	if _, err := fetchTag(t, c, "1"); err == nil {
		t.Fatal("it should have been cut off")
	}
	kept, err := st.ReadManifest(t.Context(), v1.Descriptor{Digest: root.Digest})
	if err != nil {
		t.Fatal(err)
	}
	first := checkSigned(t, f, kept, root)
	f.asked()
	f.onBlob(large, func(_ int, w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if r.Method == http.MethodGet && r.Header.Get("Range") == "" {
			t.Error("begins anew")
		}
		serve(w, r)
	})
	pin := mustFetch(t, c, "1")
	if asked := f.asked(); slices.ContainsFunc(asked, func(s string) bool { return strings.HasPrefix(s, "GET manifests/sha256:") }) {
		t.Errorf("asked for the manifest again: %q", asked)
	}
	if checkSigned(t, f, storedManifest(t, st, "1"), root) != first {
		t.Error("other signatures than at first")
	}
	if len(pin.Platforms) != 1 || store.FormatPlatform(pin.Platforms[0].Platform) != "linux/amd64" || pin.Size != int64(len(f.blobs[root.Digest]))+100_000+5+4 {
		t.Errorf("pin is %+v", pin)
	}
	if pin := mustFetch(t, c, "1"); pin.Digest != root.Digest {
		t.Errorf("pinned %s", pin.Digest)
	}
	checked, err := st.Verify(t.Context(), nil, nil)
	if err != nil || len(checked.Damage) > 0 || checked.Blobs != 5 {
		t.Errorf("%+v, %v", checked, err)
	}
	raw, err := c.Config(t.Context(), named(t, "example.test/team/app:1"), v1.Platform{OS: "linux", Architecture: "amd64"})
	if err != nil || !strings.Contains(string(raw), "OnBuild") {
		t.Errorf("configuration %s, %v", raw, err)
	}

	// By digest, as a lock has it; each layer once.
	f.misbehave(nil)
	f.asked()
	st = newStore(t)
	pin, err = newClient(t, st, f).Fetch(t.Context(), named(t, "example.test/team/app@"+root.Digest.String()), v1.Descriptor{Digest: root.Digest}, false, &Progress{})
	if err != nil || pin.Digest != root.Digest || pin.MediaType != store.MediaTypeSchema1Signed {
		t.Fatalf("%+v, %v", pin, err)
	}
	asked := f.asked()
	for _, want := range []string{"GET manifests/" + root.Digest.String(), "HEAD blobs/" + large.Digest.String(), "GET blobs/" + large.Digest.String(), "GET blobs/" + empty.Digest.String()} {
		if n := count(asked, want); n != 1 {
			t.Errorf("%s: %d times", want, n)
		}
	}
	checkSigned(t, f, storedManifest(t, st, root.Digest.String()), root)
}

// Without signatures it is a manifest like any other.
func TestSchema1Unsigned(t *testing.T) {
	f, st := newFake(t), newStore(t)
	layer := f.blob(random(1000))
	root := f.manifest(store.MediaTypeSchema1, json.RawMessage(fmt.Sprintf(`{"schemaVersion":1,"architecture":"arm","fsLayers":[{"blobSum":%q}]}`, layer.Digest)), "1")
	pin := mustFetch(t, newClient(t, st, f), "1")
	if pin.Digest != root.Digest || pin.MediaType != store.MediaTypeSchema1 || pin.Size != root.Size+1000 || store.FormatPlatform(pin.Platforms[0].Platform) != "linux/arm" {
		t.Errorf("pin is %+v", pin)
	}
	checkStored(t, st, f)
}

// Whatever is wrong with it is an error, and nothing is pinned.
func TestSchema1Refused(t *testing.T) {
	protect := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	signed := func(protected string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", store.MediaTypeSchema1Signed)
			fmt.Fprintf(w, `{"schemaVersion":1,"signatures":[{"header":{"alg":"none"},"signature":"","protected":%q}]}`, protected)
		}
	}
	for _, tt := range []struct {
		name     string
		kind     string
		answer   http.HandlerFunc
		cause    error
		mentions string
	}{
		{"signatures elsewhere", "/manifests/", signed(protect(`{"formatLength":1,"formatTail":"fQ"}`)), ErrIntegrity, "do not begin where"},
		{"payload beside", "/manifests/", signed(protect(`{"formatLength":18,"formatTail":"` + protect(`,"a":1}`) + `"}`)), ErrIntegrity, "no JSON object"},
		{"no size", "/blobs/", func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				t.Error("a blob of no known size was asked for")
			}
			w.Header().Set("Transfer-Encoding", "chunked")
		}, ErrNotRegistry, "how many bytes"},
		{"a wrong size", "/blobs/", func(w http.ResponseWriter, r *http.Request) {
			n := 1000
			if r.Method == http.MethodHead {
				n = 900
			}
			w.Header().Set("Content-Length", fmt.Sprint(n))
			_, _ = w.Write(make([]byte, n))
		}, ErrIntegrity, "which has 900 bytes"},
		{"no layer", "/blobs/", status(404), ErrNotFound, "its layer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, st := newFake(t), newStore(t)
			f.schema1([]v1.Descriptor{f.blob(random(1000))}, "1")
			f.misbehave(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
				if strings.Contains(r.URL.Path, tt.kind) && (r.Method == http.MethodGet || tt.kind == "/blobs/") {
					tt.answer(w, r)
					return
				}
				serve(w, r)
			})
			c := newClient(t, st, f)
			_, err := fetchTag(t, c, "1")
			if tt.kind == "/manifests/" { // which another digest was announced for
				wantError(t, err, tt.cause)
			} else {
				wantError(t, err, tt.cause, tt.mentions)
			}
			if pins, err := st.Pins(t.Context()); err != nil || len(pins) > 0 {
				t.Errorf("pinned: %v %v", pins, err)
			}
			if tt.kind == "/manifests/" {
				_, err := newPullThrough(t, c).Manifest(t.Context(), app, "1")
				if err == nil || !strings.Contains(err.Error(), tt.mentions) {
					t.Errorf("pulled through: %v", err)
				}
			}
		})
	}
}

// Clients get the same bytes from the first answer on.
func TestPullThroughSchema1(t *testing.T) {
	f, dir := newFake(t), t.TempDir()
	big := f.blob(random(1 << 20))
	root := f.schema1([]v1.Descriptor{big, f.blob([]byte("base"))}, "1")
	reached, release := f.halfway(big)
	st, err := store.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	p := newPullThrough(t, newClient(t, st, f))
	first := checkSigned(t, f, readManifest(t, p, "1"), root)
	<-reached
	for _, reference := range []string{"1", root.Digest.String()} {
		if m := readManifest(t, p, reference); string(m.Bytes) != first {
			t.Errorf("%s: other bytes while it arrives", reference)
		}
	}
	r, size, err := p.Blob(t.Context(), app, big.Digest)
	if err != nil || size != big.Size {
		t.Fatalf("size %d, %v", size, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	// The server is restarted in the middle.
	if err := errors.Join(p.Close(), p.client.Close(), st.Close()); err != nil {
		t.Fatal(err)
	}
	release()
	if st, err = store.Open(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	p = newPullThrough(t, newClient(t, st, f))
	if m := readManifest(t, p, "1"); string(m.Bytes) != first {
		t.Error("other bytes after a restart")
	}
	if got, err := readBlob(t.Context(), p, big.Digest, 0); err != nil || !bytes.Equal(got, f.blobs[big.Digest]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	waitPinned(t, st, "1")
	if m := storedManifest(t, st, "1"); string(m.Bytes) != first {
		t.Error("other bytes when it was complete")
	}
	if n := count(f.asked(), "GET manifests/1"); n != 1 {
		t.Errorf("asked for the tag %d times", n)
	}
}

// Files of a signed manifest come back from the index; where that has lost the
// signatures as well, an upstream that signs anew cannot help.
func TestRestoreSchema1(t *testing.T) {
	f, dir := newFake(t), t.TempDir()
	root := f.schema1([]v1.Descriptor{f.blob(random(1000))}, "1")
	st, err := store.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	c := newClient(t, st, f)
	pin := mustFetch(t, c, "1")
	m := storedManifest(t, st, "1")
	whole := digest.FromBytes(m.Bytes)
	path := func(d digest.Digest) string { return filepath.Join(dir, "blobs", "sha256", d.Encoded()) }
	for _, d := range []digest.Digest{root.Digest, whole} {
		if err := os.Remove(path(d)); err != nil {
			t.Fatal(err)
		}
	}
	lost, err := st.Lost(t.Context(), root.Digest)
	if err != nil || len(lost) != 2 {
		t.Fatalf("lost %v, %v", lost, err)
	}
	f.asked()
	if err := c.Restore(t.Context(), pin.Repository, lost, &Progress{}); err != nil {
		t.Fatal(err)
	}
	if asked := f.asked(); len(asked) > 0 {
		t.Errorf("asked for what the index has: %q", asked)
	}
	checked, err := st.Verify(t.Context(), nil, nil)
	if err != nil || len(checked.Damage) > 0 {
		t.Errorf("%+v, %v", checked.Damage, err)
	}
	if got := storedManifest(t, st, "1"); !bytes.Equal(got.Bytes, m.Bytes) {
		t.Error("other bytes than before")
	}
}
