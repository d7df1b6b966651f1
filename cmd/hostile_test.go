package cmd

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"mirrorctl/serve"
	"mirrorctl/store"
	"mirrorctl/upstream"
)

// heard is what servers of a test were asked.
type heard struct {
	mu  sync.Mutex
	all []string
}

func (h *heard) note(s string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, s)
}

func (h *heard) take() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := h.all
	h.all = nil
	return all
}

// trap is a server that nobody may ask. Its address is on this machine.
func trap(t *testing.T, asked *heard) (address, port string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.note("TRAP " + r.Method + " " + r.URL.Path)
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			asked.note("TRAP connection")
		}
	}
	t.Cleanup(server.Close)
	address = server.Listener.Addr().String()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return address, port
}

// evilRegistry has one image, team/app:1, whose every part leads elsewhere.
type evilRegistry struct {
	heard
	answers map[string]func(w http.ResponseWriter)
	foreign digest.Digest
	layers  []digest.Digest // one for each redirect
}

// newEvilRegistry takes where the layers are redirected to, and the URL of a
// foreign one.
func newEvilRegistry(foreign string, redirects ...string) *evilRegistry {
	e := &evilRegistry{answers: map[string]func(http.ResponseWriter){}, foreign: digest.FromString("foreign")}
	config := []byte(`{"os":"linux","architecture":"amd64"}`)
	m := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
		Config: v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))},
		Layers: []v1.Descriptor{{MediaType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Digest: e.foreign, Size: 7, URLs: []string{foreign}}},
	}
	content := func(mediaType string, body []byte) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", mediaType)
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			w.Header().Set("Link", `<`+foreign+`>; rel="next"`)
			_, _ = w.Write(body)
		}
	}
	e.answers["blobs/"+m.Config.Digest.String()] = content("application/octet-stream", config)
	for i, to := range redirects {
		d := digest.FromString(fmt.Sprint("layer", i))
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: d, Size: 6})
		e.layers = append(e.layers, d)
		e.answers["blobs/"+d.String()] = func(w http.ResponseWriter) {
			w.Header().Set("Location", to)
			w.WriteHeader(http.StatusTemporaryRedirect)
		}
	}
	text, _ := json.Marshal(m) // of the specification's types
	for _, reference := range []string{"1", digest.FromBytes(text).String()} {
		e.answers["manifests/"+reference] = content(m.MediaType, text)
	}
	e.answers["manifests/token"] = func(w http.ResponseWriter) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+strings.Replace(foreign, "http:", "https:", 1)+`",service="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	}
	e.answers["manifests/moved"] = func(w http.ResponseWriter) {
		w.Header().Set("Location", strings.Replace(foreign, "http:", "https:", 1))
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
	return e
}

func (e *evilRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.note(r.Method + " " + r.URL.RequestURI())
	if answer := e.answers[strings.TrimPrefix(r.URL.Path, "/v2/team/app/")]; answer != nil {
		answer(w)
		return
	}
	w.WriteHeader(http.StatusNotFound)
}

// startPullThrough serves an empty store that fetches from the listed registries
// as mirrorctl serve does.
func startPullThrough(t *testing.T, listed []string, known map[string]upstream.Registry) *httptest.Server {
	t.Helper()
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	client := upstream.New(st, upstream.Options{Registries: known, Guarded: true, Log: log})
	through, err := upstream.NewPullThrough(t.Context(), client, upstream.PullThroughOptions{Registries: listed, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	handler, err := serve.New(st, serve.Options{Missing: through})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(func() {
		server.Close()
		_, _, _ = through.Close(), client.Close(), st.Close() // the folder goes
	})
	return server
}

// hostileRow is a request for a mirror with pull-through, its answer, and what
// registries may be asked because of it.
type hostileRow struct {
	what, method, target string
	want                 int
	asked                []string // beginnings of requests; none is nobody
}

// broken is the status of an answer that begins before the upstream has said no,
// and breaks off; where that was faster, it is 503.
const broken = -200

func runHostile(t *testing.T, mirror *httptest.Server, rows []hostileRow, listed, others *heard) {
	t.Helper()
	for _, row := range rows {
		req, err := http.NewRequest(row.method, mirror.URL+row.target, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := mirror.Client().Do(req)
		if err != nil {
			t.Errorf("%s: %v", row.what, err)
			continue
		}
		_, err = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		status := res.StatusCode
		if err != nil {
			status = -status
		}
		time.Sleep(20 * time.Millisecond) // for what goes on in the background
		asked, elsewhere := listed.take(), others.take()
		t.Logf("%-44s %s %-90.90s %d, registry: %v, elsewhere: %v", row.what, row.method, row.target, status, asked, elsewhere)
		if status != row.want && (row.want != broken || status != http.StatusServiceUnavailable) {
			t.Errorf("%s: %d, want %d", row.what, status, row.want)
		}
		if len(elsewhere) > 0 {
			t.Errorf("%s: others were asked: %v", row.what, elsewhere)
		}
		for _, one := range asked {
			if !slices.ContainsFunc(row.asked, func(s string) bool { return strings.HasPrefix(one, s) }) {
				t.Errorf("%s: the registry was asked: %s", row.what, one)
			}
		}
	}
}

// TestHostilePullThrough asks a mirror with pull-through for what should lead
// it astray. Nobody but the listed registry is to be asked, and that only for
// its own images.
func TestHostilePullThrough(t *testing.T) {
	var others heard
	address, port := trap(t, &others)
	registry := newEvilRegistry("http://" + address + "/foreign")
	upstreamServer := httptest.NewServer(registry)
	t.Cleanup(upstreamServer.Close)
	loopback := "localhost.localdomain:" + port
	mirror := startPullThrough(t, []string{"registry.test", loopback}, map[string]upstream.Registry{"registry.test": {URL: upstreamServer.URL}})
	absent := digest.FromString("absent").String()
	ns := func(host string) string { return "/v2/team/app/manifests/1?ns=" + host }
	own := []string{"GET /v2/team/app/", "HEAD /v2/team/app/", "GET /v2/"}
	rows := []hostileRow{
		{"unlisted: by a prefix", "GET", "/v2/evil.test/team/app/manifests/1", 404, nil},
		{"unlisted: before /v2", "GET", "/evil.test/v2/team/app/manifests/1", 404, nil},
		{"unlisted: by ns", "GET", ns("evil.test"), 404, nil},
		{"unlisted: the default registry", "GET", "/v2/team/app/manifests/1", 404, nil},
		{"unlisted: a blob", "GET", "/v2/evil.test/team/app/blobs/" + absent, 404, nil},
		{"unlisted: a digest", "GET", "/v2/evil.test/team/app/manifests/" + absent, 404, nil},
		{"unlisted: referrers", "GET", "/v2/evil.test/team/app/referrers/" + absent, 200, nil},
		{"unlisted: a name that begins like a listed one", "GET", ns("registry.test.evil.test"), 404, nil},
		{"unlisted: a name that ends like a listed one", "GET", ns("evil-registry.test"), 404, nil},
		{"unlisted: another port of a listed one", "GET", ns("registry.test:443"), 404, nil},
		{"unlisted: the listed one's address", "GET", ns(strings.TrimPrefix(upstreamServer.URL, "http://")), 404, nil},
		{"private: this machine", "GET", ns(address), 404, nil},
		{"private: this machine by a prefix", "GET", "/v2/" + address + "/team/app/manifests/1", 404, nil},
		{"private: localhost", "GET", ns("localhost:" + port), 404, nil},
		{"private: IPv6", "GET", ns("[::1]:" + port), 404, nil},
		{"private: IPv4 in IPv6", "GET", ns("[::ffff:127.0.0.1]:" + port), 400, nil},
		{"private: a short address", "GET", ns("127.1:" + port), 404, nil},
		{"private: a number", "GET", ns("2130706433:" + port), 404, nil},
		{"private: all zeros", "GET", ns("0.0.0.0:" + port), 404, nil},
		{"private: the metadata service", "GET", ns("169.254.169.254"), 404, nil},
		{"private: 10/8", "GET", ns("10.0.0.1:" + port), 404, nil},
		{"private: a listed name that leads here", "GET", ns(loopback), 503, nil},
		{"private: its blobs", "GET", "/v2/team/app/blobs/" + absent + "?ns=" + loopback, 503, nil},
		{"name: a user before a listed registry", "GET", ns("user@registry.test"), 400, nil},
		{"name: a listed one before an @", "GET", ns("registry.test@" + address), 400, nil},
		{"name: a URL", "GET", ns("http://" + address), 400, nil},
		{"name: a path behind a listed one", "GET", ns("registry.test/../.."), 400, nil},
		{"name: dots below a listed one", "GET", "/v2/registry.test/../../manifests/1", 400, nil},
		{"name: a query in a tag", "GET", "/v2/registry.test/team/app/manifests/1%3fns=evil.test", 404, nil},
		{"name: a line end in a tag", "GET", "/v2/registry.test/team/app/manifests/1%0d%0aHost:%20evil.test", 400, nil},
		{"name: ns against a listed prefix", "GET", "/v2/registry.test/team/app/manifests/1?ns=evil.test", 404, nil},
		{"probe: what it does not have", "GET", "/v2/registry.test/mirrorctl/doctor-" + strings.Repeat("0", 32) + "/manifests/latest", 404, nil},
		{"probe: a blob", "GET", "/v2/registry.test/mirrorctl/doctor-" + strings.Repeat("0", 32) + "/blobs/" + absent, 404, nil},
		{"write: a manifest", "PUT", "/v2/registry.test/team/app/manifests/1", 405, nil},
		{"write: an upload", "POST", "/v2/registry.test/team/app/blobs/uploads/", 405, nil},
		{"write: a mount", "POST", "/v2/registry.test/team/app/blobs/uploads/?mount=" + absent + "&from=evil", 405, nil},
		{"write: a removal", "DELETE", "/v2/registry.test/team/app/manifests/" + absent, 405, nil},
		{"list: tags", "GET", "/v2/registry.test/team/app/tags/list", 404, nil},
		{"list: catalog", "GET", "/v2/registry.test/_catalog", 200, nil},
		{"listed: its image, however it is written", "GET", ns("REGISTRY.Test"), 200, own},
		{"listed: its foreign layer", "GET", "/v2/team/app/blobs/" + registry.foreign.String() + "?ns=registry.test", 404, own},
		{"listed: what it does not have", "GET", "/v2/team/app/manifests/2?ns=registry.test", 404, own},
		{"listed: referrers with a Link elsewhere", "GET", "/v2/team/app/referrers/" + absent + "?ns=registry.test", 200, own},
	}
	runHostile(t, mirror, rows, &registry.heard, &others)
}

// TestHostileRegistry has a public registry, as far as names tell, that sends
// the mirror to this machine and to its network. Since no public network is
// here, it is behind a proxy of the environment, which is read once in a
// process: the test runs itself again.
func TestHostileRegistry(t *testing.T) {
	const variable = "MIRRORCTL_TEST_TRAP"
	var others heard
	address := os.Getenv(variable)
	if address == "" {
		address, _ = trap(t, &others)
		registry := newEvilRegistry("http://"+address+"/foreign", "https://"+address+"/layer", "http://"+address+"/layer", "https://localhost/layer", "https://[::1]/layer", "file:///etc/passwd", "//"+address+"/layer")
		behind := httptest.NewTLSServer(registry)
		t.Cleanup(behind.Close)
		// The proxy connects to the registry, and to nobody else.
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodConnect || r.Host != "example.com:443" {
				others.note("PROXY " + r.Method + " " + r.Host)
				http.Error(w, "not here", http.StatusForbidden)
				return
			}
			to, err := net.Dial("tcp", behind.Listener.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			w.WriteHeader(http.StatusOK)
			from, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			go func() { _, _ = io.Copy(to, from); to.Close() }()
			_, _ = io.Copy(from, to)
			from.Close()
		}))
		t.Cleanup(proxy.Close)
		ca := filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: behind.Certificate().Raw}), 0o644); err != nil {
			t.Fatal(err)
		}
		again := exec.Command(os.Args[0], "-test.run=^TestHostileRegistry$", "-test.v", "-test.timeout=60s")
		again.Env = append(os.Environ(), variable+"="+address, "MIRRORCTL_TEST_CA="+ca, "HTTPS_PROXY="+proxy.URL, "HTTP_PROXY="+proxy.URL, "NO_PROXY=")
		out, err := again.CombinedOutput()
		t.Logf("%s", out)
		if err != nil {
			t.Error(err)
		}
		asked := registry.take()
		t.Logf("the registry was asked: %q", asked)
		if !slices.Contains(asked, "GET /v2/team/app/manifests/1") {
			t.Error("the mirror did not reach the registry")
		}
		for _, d := range registry.layers {
			if !slices.ContainsFunc(asked, func(s string) bool { return strings.HasPrefix(s, "GET /v2/team/app/blobs/"+d.String()) }) {
				t.Errorf("%s was never asked for", d)
			}
		}
		if elsewhere := others.take(); len(elsewhere) > 0 {
			t.Errorf("others were asked: %v", elsewhere)
		}
		return
	}
	ca, err := os.ReadFile(os.Getenv("MIRRORCTL_TEST_CA"))
	if err != nil {
		t.Fatal(err)
	}
	mirror := startPullThrough(t, []string{"example.com"}, map[string]upstream.Registry{"example.com": {CA: bytes.TrimSpace(ca)}})
	rows := []hostileRow{
		{"an image", "GET", "/v2/example.com/team/app/manifests/1", 200, nil},
		{"a token server on this machine", "GET", "/v2/example.com/team/app/manifests/token", 503, nil},
		{"a manifest on this machine", "GET", "/v2/example.com/team/app/manifests/moved", 503, nil},
		{"a foreign layer on this machine", "GET", "/v2/example.com/team/app/blobs/" + digest.FromString("foreign").String(), 404, nil},
	}
	for i := range 6 {
		rows = append(rows, hostileRow{"a layer that is redirected", "GET", "/v2/example.com/team/app/blobs/" + digest.FromString(fmt.Sprint("layer", i)).String(), broken, nil})
	}
	runHostile(t, mirror, rows, &heard{}, &others)
}
