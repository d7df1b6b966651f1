package page

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"mirrorctl/store"
)

var debian = store.Repository{Registry: "docker.io", Path: "library/debian"}

// builder brings images into a store.
type builder struct {
	t     testing.TB
	store *store.Store
	lease *store.Lease
}

func newBuilder(t testing.TB) *builder {
	t.Helper()
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	lease, err := st.NewLease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(lease.Close(), st.Close()); err != nil {
			t.Error(err)
		}
	})
	return &builder{t, st, lease}
}

func (b *builder) blob(mediaType string, content []byte) v1.Descriptor {
	b.t.Helper()
	desc := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
	w, err := b.lease.Writer(b.t.Context(), desc)
	if errors.Is(err, store.ErrExists) {
		return desc
	}
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err = w.ReadFrom(bytes.NewReader(content)); err == nil {
		err = w.Commit(b.t.Context())
	}
	if err := errors.Join(err, w.Close()); err != nil {
		b.t.Fatal(err)
	}
	return desc
}

func (b *builder) manifest(mediaType string, doc any) store.Manifest {
	b.t.Helper()
	content, err := json.Marshal(doc)
	if err != nil {
		b.t.Fatal(err)
	}
	return store.Manifest{Descriptor: b.blob(mediaType, content), Bytes: content}
}

// image pins an index of two platforms that have a layer in common. Layers are
// made by the steps.
func (b *builder) image(repo store.Repository, tag string, steps ...string) store.Pin {
	b.t.Helper()
	var manifests []store.Manifest
	var entries []v1.Descriptor
	for _, arch := range []string{"amd64", "arm64"} {
		config := v1.Image{Platform: v1.Platform{OS: "linux", Architecture: arch}}
		config.History = append(config.History, v1.History{CreatedBy: "ENV nothing", EmptyLayer: true})
		var layers []v1.Descriptor
		for i, step := range steps {
			config.History = append(config.History, v1.History{CreatedBy: step})
			content := []byte(strings.Repeat(step+arch, i+1))
			if i == 0 {
				content = []byte("the first layer is the same everywhere")
			}
			layers = append(layers, b.blob(v1.MediaTypeImageLayerGzip, content))
		}
		text, err := json.Marshal(config)
		if err != nil {
			b.t.Fatal(err)
		}
		m := b.manifest(v1.MediaTypeImageManifest, v1.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
			Config: b.blob(v1.MediaTypeImageConfig, text), Layers: layers,
		})
		desc := m.Descriptor
		desc.Platform = &config.Platform
		manifests, entries = append(manifests, m), append(entries, desc)
	}
	root := b.manifest(v1.MediaTypeImageIndex, v1.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: entries,
		Annotations: map[string]string{"of": repo.String() + ":" + tag},
	})
	pin, err := b.lease.Publish(b.t.Context(), store.Image{
		Repository: repo, Reference: tag, Digest: root.Digest, Manifests: append(manifests, root),
	}, false)
	if err != nil {
		b.t.Fatal(err)
	}
	return pin
}

// serve starts the pages.
func (b *builder) serve(opts Options) *httptest.Server {
	opts.Store = b.store
	opts.Log = slog.New(slog.NewTextHandler(b.t.Output(), nil))
	srv := httptest.NewServer(New(b.t.Context(), opts))
	b.t.Cleanup(srv.Close)
	return srv
}

// get returns the text of a page, without its tags.
func get(t testing.TB, srv *httptest.Server, path string, status int) string {
	t.Helper()
	return plain(getRaw(t, srv, path, status))
}

func getRaw(t testing.TB, srv *httptest.Server, path string, status int) string {
	t.Helper()
	res, err := srv.Client().Get(srv.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != status {
		t.Errorf("GET %s: %s, want %d", path, res.Status, status)
	}
	for _, key := range []string{"Content-Security-Policy", "Referrer-Policy", "X-Content-Type-Options"} {
		if res.Header.Get(key) == "" {
			t.Errorf("GET %s: no %s", path, key)
		}
	}
	return string(body)
}

var tags = regexp.MustCompile(`(?s)<head>.*</head>|<[^>]*>`)

func plain(page string) string {
	return strings.Join(strings.Fields(tags.ReplaceAllString(page, " ")), " ")
}

func mustHave(t *testing.T, page string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(page, part) {
			t.Errorf("no %q in:\n%s", part, page)
		}
	}
}

func TestList(t *testing.T) {
	b := newBuilder(t)
	srv := b.serve(Options{PullThrough: []string{"docker.io"}})
	mustHave(t, get(t, srv, "/", 200), "Nothing is pinned yet", "or let a client pull an image")

	for i := range perPage + 5 {
		b.image(debian, fmt.Sprintf("tag-%02d", i), "RUN apt-get install thing")
	}
	app := store.Repository{Registry: "ghcr.io", Path: "owner/app"}
	b.image(app, "1", "COPY . .")
	if err := b.store.RecordStandings(t.Context(), []store.Standing{{Repository: app, Reference: "1", At: time.Now(), State: "moved"}}); err != nil {
		t.Fatal(err)
	}
	if err := b.store.RecordUsage(t.Context(), []store.Usage{{Repository: app, Reference: "1", Hits: 3, Last: time.Now().Add(-3 * time.Hour)}}); err != nil {
		t.Fatal(err)
	}

	srv = b.serve(Options{})
	page := get(t, srv, "/", 200)
	mustHave(t, page, "56 images", "1 moved", "docker.io/library/debian:tag-00", "1 to 50 of 56 Next", "linux/amd64")
	if strings.Contains(page, "ghcr.io/owner") {
		t.Error("the first page has what comes on the second")
	}
	mustHave(t, get(t, srv, "/?page=2", 200), "ghcr.io/owner/app:1 moved", "Previous 51 to 56 of 56", "3 hours ago 3")
	mustHave(t, get(t, srv, "/?page=99", 200), "The list ends before this page")
	mustHave(t, get(t, srv, "/?q=OWNER", 200), "ghcr.io/owner/app:1", "1 to 1 of 1")
	mustHave(t, get(t, srv, "/?state=moved", 200), "ghcr.io/owner/app:1", "1 to 1 of 1")
	mustHave(t, get(t, srv, "/?sort=hits", 200), "Requests ghcr.io/owner/app:1")
	mustHave(t, get(t, srv, "/?q=none", 200), "No pinned image has this")
	// What was typed is text, wherever it is shown.
	if raw := getRaw(t, srv, "/?q=%22%3E%3Cscript%3Ealert(1)%3C/script%3E&removed=%3Cscript%3E&state=%3Cb%3E&page=-1", 200); strings.Contains(raw, "<script>") || strings.Contains(raw, "<b>") {
		t.Error("what was typed is a part of the page's own text")
	}
	mustHave(t, get(t, srv, "/?removed=debian:gone", 200), "docker.io/library/debian:gone was removed")
	if page := get(t, srv, "/?removed=debian:tag-00", 200); strings.Contains(page, "was removed") {
		t.Error("an image that is here was said to be removed")
	}
}

func TestImage(t *testing.T) {
	b := newBuilder(t)
	pin := b.image(debian, "12", "/bin/sh -c #(nop) ADD file:1234 in / ", "RUN /bin/sh -c apt-get <update> # buildkit")
	b.image(debian, "11", "/bin/sh -c #(nop) ADD file:1234 in / ")
	srv := b.serve(Options{Pending: func(repo store.Repository, reference string) store.Usage {
		return store.Usage{Hits: 7, Last: time.Now()}
	}})
	raw := getRaw(t, srv, imageURL(pin.Name()), 200)
	page := plain(raw)
	mustHave(t, page, "docker.io/library/debian:12", pin.Digest.String(), "linux/amd64 linux/arm64", "7 times, last just now",
		"docker pull "+strings.TrimPrefix(srv.URL, "http://")+"/docker.io/library/debian:12",
		"podman pull --tls-verify=false ", "ADD file:1234 in /", "RUN /bin/sh -c apt-get &lt;update&gt;", "shared", "History", "pin "+short(pin.Digest))
	mustHave(t, raw, `<rect width="100.00" height="8"/>`)
	if strings.Contains(raw, "/-/remove/") {
		t.Error("removing is offered where nobody may")
	}
	for _, path := range []string{"docker.io/library/debian:13", "UPPER/case:1", "..%2f..%2fetc", "a b", "debian@sha256:1"} {
		mustHave(t, get(t, srv, "/-/image/"+strings.ReplaceAll(path, " ", "%20"), 404), "This image is not pinned here")
	}
	mustHave(t, get(t, srv, "/-/nothing", 404), "There is no such page")
	for _, method := range []string{"POST", "DELETE", "PUT"} {
		req := must(http.NewRequest(method, srv.URL+"/-/remove/"+pin.Name(), nil))
		res := must(srv.Client().Do(req))
		res.Body.Close()
		if res.StatusCode != http.StatusNotFound {
			t.Errorf("%s where nobody may remove: %s", method, res.Status)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A damaged configuration, or one that lies about its steps, explains no layers.
func TestDescribe(t *testing.T) {
	layers := func() []layer {
		return []layer{{Kind: store.KindConfig}, {Kind: store.KindLayer}, {Kind: store.KindForeign}, {Kind: store.KindLayer}}
	}
	for _, tt := range []struct {
		name  string
		steps []v1.History
		want  string
	}{
		{"none", nil, "|||"},
		{"one for each", []v1.History{{CreatedBy: "ADD a"}, {CreatedBy: "ENV", EmptyLayer: true}, {CreatedBy: "ADD b"}, {CreatedBy: "ADD c"}}, "|ADD a|ADD b|ADD c"},
		{"too few", []v1.History{{CreatedBy: "ADD a"}}, "|ADD a||"},
		{"too many", []v1.History{{CreatedBy: "1"}, {CreatedBy: "2"}, {CreatedBy: "3"}, {CreatedBy: "4"}}, "|1|2|3"},
		{"long", []v1.History{{CreatedBy: strings.Repeat("é", 400)}}, "|" + strings.Repeat("é", 300) + "…||"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := layers()
			describe(l, v1.Image{History: tt.steps})
			var made []string
			for _, one := range l {
				made = append(made, one.MadeBy)
			}
			if got := strings.Join(made, "|"); got != tt.want {
				t.Errorf("made by %s, want %s", got, tt.want)
			}
		})
	}
}

func TestClients(t *testing.T) {
	b := newBuilder(t)
	b.image(store.Repository{Registry: "quay.io", Path: "org/tool"}, "1", "RUN true")
	srv := b.serve(Options{PullThrough: []string{"ghcr.io"}})
	mustHave(t, get(t, srv, "/-/clients", 200), "containerd", "podman")
	mustHave(t, get(t, srv, "/-/clients/podman", 200), strings.TrimPrefix(srv.URL, "http://"), "quay.io", "ghcr.io")
	mustHave(t, get(t, srv, "/-/clients/emacs", 404), "This client is not known")
	req := must(http.NewRequest("GET", srv.URL+"/-/clients/podman", nil))
	req.Host = `x"]inject`
	res := must(srv.Client().Do(req))
	body := must(io.ReadAll(res.Body))
	res.Body.Close()
	if bytes.Contains(body, []byte("inject")) {
		t.Errorf("a Host header that is no address is in the configuration:\n%s", body)
	}
}

// A page is light, and its time does not grow with what it does not show.
func TestWeight(t *testing.T) {
	b := newBuilder(t)
	var steps []string
	for i := range 40 {
		steps = append(steps, fmt.Sprintf("RUN step %d of a long build that has a long command line", i))
	}
	for i := range perPage + 1 {
		b.image(store.Repository{Registry: "registry.example.com", Path: strings.Repeat("long-name/", 5) + "app"}, fmt.Sprintf("version-%04d", i), "RUN x")
	}
	pin := b.image(debian, "12", steps...)
	srv := b.serve(Options{})
	assets := len(getRaw(t, srv, "/-/assets/style.css", 200)) + len(getRaw(t, srv, "/-/assets/page.js", 200)) + len(getRaw(t, srv, "/-/assets/icon.svg", 200))
	for _, path := range []string{"/", imageURL(pin.Name()), "/-/clients/docker"} {
		if n := len(getRaw(t, srv, path, 200)) + assets; n > 100_000 {
			t.Errorf("%s weighs %d bytes", path, n)
		} else {
			t.Logf("%s weighs %d bytes with its assets", path, n)
		}
	}
}

func TestEvents(t *testing.T) {
	b := newBuilder(t)
	ctx, stop := context.WithCancel(t.Context())
	srv := httptest.NewServer(New(ctx, Options{Store: b.store}))
	defer srv.Close()
	content := []byte(`{"schemaVersion":2,"manifests":[]}`)
	if _, err := b.store.Arrive(t.Context(), debian, "13", v1.Descriptor{MediaType: v1.MediaTypeImageIndex, Digest: digest.FromBytes(content)}); err != nil {
		t.Fatal(err)
	}
	mustHave(t, get(t, srv, "/", 200), "Arriving docker.io/library/debian:13 0 % 0 of 1 blobs")

	res := must(srv.Client().Get(srv.URL + "/-/events"))
	defer res.Body.Close()
	if got := res.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("Content-Type %s", got)
	}
	var seen bytes.Buffer
	buf := make([]byte, 4096)
	for !strings.Contains(seen.String(), "debian:13") {
		n, err := res.Body.Read(buf)
		if err != nil {
			t.Fatalf("%v after %s", err, seen.String())
		}
		seen.Write(buf[:n])
	}
	mustHave(t, seen.String(), "event: arriving\ndata: <li>")
	stop() // a server that stops ends them
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		t.Errorf("after the stop: %v", err)
	}
}

// The rate is that between two looks.
func TestRate(t *testing.T) {
	l := newLive(t.Context(), nil)
	at := time.Unix(1000, 0)
	look := func(n int64) int64 {
		list := []arriving{{Name: "a", Arrived: store.Arrived{Bytes: n}}}
		l.rate(list, at)
		at = at.Add(2 * time.Second)
		return list[0].Rate
	}
	for _, tt := range []struct{ bytes, want int64 }{{100, 0}, {300, 100}, {300, 0}, {200, 0}, {1200, 500}} {
		if got := look(tt.bytes); got != tt.want {
			t.Errorf("rate at %d bytes = %d, want %d", tt.bytes, got, tt.want)
		}
	}
}

// Too many who watch are told to come back.
func TestWatchers(t *testing.T) {
	b := newBuilder(t)
	h := New(t.Context(), Options{Store: b.store})
	for range maxWatchers {
		if h.live.watch() == nil {
			t.Fatal("refused too early")
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/-/events", nil))
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("one too many: %d", w.Code)
	}
}
