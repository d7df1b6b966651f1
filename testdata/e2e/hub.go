//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"testing"
)

// registries are the programs that play the upstream.
var registries = []struct{ name, program, config string }{
	{"docker-registry-2.8", "docker-registry", "storage: {cache: {blobdescriptor: inmemory}, filesystem: {rootdirectory: %s}}"},
	{"distribution-3", "registry", "storage: {filesystem: {rootdirectory: %s}}"},
}

// hub is a running upstream registry.
type hub struct {
	*process
	address string
	config  string
	program string
	login   *http.Header // sent with every push
}

// eachRegistry runs a test against every kind of upstream.
func eachRegistry(t *testing.T, test func(t *testing.T, kind string)) {
	for _, r := range registries {
		t.Run(r.name, func(t *testing.T) { test(t, r.name) })
	}
}

// startHub runs a registry that holds the given repositories.
func startHub(tb testing.TB, kind string, content ...*repository) *hub {
	tb.Helper()
	return startHubWith(tb, kind, "", nil, content...)
}

// The user of a private hub, and the line of a password file that "htpasswd -nbB"
// printed for it.
const (
	hubUser     = "alice"
	hubPassword = "open sesame"
	hubAccess   = "alice:$2y$05$3Er0WFfMPbMjh/1WRdobceVQKirJ6.PaQwoNo057xNtkSvPXNJx/2"
)

// startPrivateHub runs a registry that wants to know who asks.
func startPrivateHub(tb testing.TB, kind string, content ...*repository) *hub {
	tb.Helper()
	access := writeFile(tb, filepath.Join(tempDir(tb), "htpasswd"), hubAccess+"\n")
	login := &http.Request{Header: http.Header{}}
	login.SetBasicAuth(hubUser, hubPassword)
	return startHubWith(tb, kind, "auth: {htpasswd: {realm: private, path: "+access+"}}\n", &login.Header, content...)
}

func startHubWith(tb testing.TB, kind, extra string, login *http.Header, content ...*repository) *hub {
	tb.Helper()
	for _, r := range registries {
		if r.name != kind {
			continue
		}
		h := &hub{address: address(), program: r.program, login: login}
		dir := tempDir(tb)
		h.config = writeFile(tb, filepath.Join(dir, "config.yml"), fmt.Sprintf(
			"version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nhttp: {addr: %q}\n"+r.config+"\n%s",
			h.address, filepath.Join(dir, "data"), extra))
		h.restart(tb)
		h.push(tb, content...)
		return h
	}
	tb.Fatalf("no registry %q", kind)
	return nil
}

// restart starts the registry again where it was.
func (h *hub) restart(tb testing.TB) {
	tb.Helper()
	cmd := exec.Command(h.program, "serve", h.config)
	cmd.Env = append(cmd.Environ(), "OTEL_TRACES_EXPORTER=none")
	h.process = start(tb, cmd)
	h.ready(tb, dial("tcp", h.address))
}

func (h *hub) url() string { return "http://" + h.address }

// push fills the registry through its own API.
func (h *hub) push(tb testing.TB, content ...*repository) {
	tb.Helper()
	for _, r := range content {
		base := h.url() + "/v2/" + r.name
		for _, b := range r.blobs {
			h.pushBlob(tb, base, b)
		}
		put := func(reference string, m storedManifest) {
			h.send(tb, http.MethodPut, base+"/manifests/"+reference, m.MediaType, bytes.NewReader(m.bytes), m.Size, http.StatusCreated)
		}
		for _, m := range r.manifests {
			put(m.Digest, m)
		}
		for _, t := range r.tags {
			put(t.name, t.manifest)
		}
	}
}

func (h *hub) pushBlob(tb testing.TB, base string, b blob) {
	tb.Helper()
	upload := h.send(tb, http.MethodPost, base+"/blobs/uploads/", "", nil, 0, http.StatusAccepted)
	location, err := upload.Request.URL.Parse(upload.Header.Get("Location"))
	check(tb, err)
	query := location.Query()
	query.Set("digest", b.digest)
	location.RawQuery = query.Encode()
	body, err := b.open()
	check(tb, err)
	h.send(tb, http.MethodPut, location.String(), "application/octet-stream", body, b.size, http.StatusCreated)
}

func (h *hub) send(tb testing.TB, method, target, mediaType string, body io.Reader, size int64, want int) *http.Response {
	tb.Helper()
	request, err := http.NewRequest(method, target, body)
	check(tb, err)
	if h.login != nil {
		request.Header = h.login.Clone()
	}
	request.ContentLength = size
	if mediaType != "" {
		request.Header.Set("Content-Type", mediaType)
	}
	response, err := http.DefaultClient.Do(request)
	check(tb, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	check(tb, err)
	if response.StatusCode != want {
		tb.Fatalf("%s %s: %s: %s", method, target, response.Status, text)
	}
	return response
}

// record reads everything that the given images reach, as the registry sends it.
func (h *hub) record(tb testing.TB, images ...string) *recording {
	tb.Helper()
	rec := &recording{manifests: map[string]recordedManifest{}, blobs: map[string]int64{}, tags: map[string]string{}}
	rec.add(tb, h.url(), images...)
	return rec
}
