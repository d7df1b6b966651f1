//go:build e2e

package e2e

import (
	"bytes"
	"net"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// small is a registry with what a repository holds, for what real ones refuse
// or cannot do. special may answer in its place.
func small(r *repository, special func(http.ResponseWriter, *http.Request) bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if special != nil && special(w, q) {
			return
		}
		reference := path.Base(q.URL.Path)
		switch path.Base(path.Dir(q.URL.Path)) {
		case "manifests":
			for _, t := range r.tags {
				if t.name == reference {
					reference = t.manifest.Digest
				}
			}
			for _, m := range r.manifests {
				if m.Digest == reference {
					w.Header().Set("Content-Type", m.MediaType)
					w.Header().Set("Docker-Content-Digest", m.Digest)
					http.ServeContent(w, q, "", time.Time{}, bytes.NewReader(m.bytes))
					return
				}
			}
		case "blobs":
			for _, b := range r.blobs {
				if b.digest != reference {
					continue
				}
				if body, err := b.open(); err == nil {
					defer body.Close()
					var text bytes.Buffer
					_, _ = text.ReadFrom(body)
					http.ServeContent(w, q, "", time.Time{}, bytes.NewReader(text.Bytes()))
					return
				}
			}
		}
		w.WriteHeader(http.StatusNotFound)
	})
}

// listen runs a handler and returns its URL.
func listen(tb testing.TB, handler http.Handler) string {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(tb, err)
	server := &http.Server{Handler: handler}
	go server.Serve(listener)
	tb.Cleanup(func() { server.Close() })
	return "http://" + listener.Addr().String()
}

// The upstream is down when the mirror starts, comes, and goes again: what is
// stored is served all the time, the rest as soon as it can be had.
func TestPullThroughUpstreamDown(t *testing.T) {
	hub := startHub(t, "distribution-3", busybox(t))
	project := newProject(t, hub.url(), "busybox:1.35")
	project.must(t, "sync", "Dockerfile")
	upstream := hub.record(t, "library/busybox:1.35-oci", "library/busybox:1.35-zstd")
	mirror := address()
	down := func(image string) {
		t.Helper()
		name, tag, _ := strings.Cut(image, ":")
		answer := get(t, "http://"+mirror+"/v2/"+name+"/manifests/"+tag)
		after, err := strconv.Atoi(answer.Header.Get("Retry-After"))
		if answer.StatusCode != http.StatusServiceUnavailable || err != nil || after < 1 {
			t.Errorf("%s: %s, Retry-After %q", image, answer.Status, answer.Header.Get("Retry-After"))
		}
		if got := answers(t, mirror, "library/busybox:1.35"); !strings.HasPrefix(got, "sha256:") {
			t.Errorf("what is stored: %s", got)
		}
	}
	back := func(image string) {
		t.Helper()
		hub.restart(t)
		took := within(t, 30*time.Second, image+" is served", func() bool {
			time.Sleep(50 * time.Millisecond)
			return answers(t, mirror, image) == upstream.digest(t, image)
		})
		t.Logf("%s served %.1f s after the upstream was back", image, took.Seconds())
	}
	hub.stop()
	project.through(t, mirror)
	down("library/busybox:1.35-oci")
	back("library/busybox:1.35-oci")
	project.complete(t, "docker.io/library/busybox:1.35-oci")
	hub.stop()
	down("library/busybox:1.35-zstd")
	back("library/busybox:1.35-zstd")
	project.complete(t, "docker.io/library/busybox:1.35-zstd")
	upstream.compare(t, "http://"+mirror)
}

// With --platform the others are not fetched, until somebody asks.
func TestPullThroughPlatform(t *testing.T) {
	repository := several(t, 1, 1e6, "1")
	content := contents(t, repository)
	hub := startHub(t, "distribution-3", repository)
	proxy := startProxy(t, hub.url())
	_, _, mirror := newThrough(t, proxy.url(), "--platform", "linux/amd64")
	for _, stage := range []struct {
		arch  string
		blobs int
	}{{"amd64", 6}, {"arm64", 9}} {
		if err := newPuller(mirror, repository.name, content).pull("1", stage.arch); err != nil {
			t.Error(err)
		}
		time.Sleep(500 * time.Millisecond) // for what should not be fetched
		if got := times(proxy); len(got) != stage.blobs {
			t.Errorf("after a pull for %s %d blobs had been asked for, want %d", stage.arch, len(got), stage.blobs)
		}
	}
	for digest, n := range times(proxy) {
		if n != 1 {
			t.Errorf("%s was asked for %d times", digest, n)
		}
	}
}

// A foreign layer has URLs, which lead to hosts that nobody named: only the
// registry is asked, and only if a client asks.
func TestPullThroughForeignLayer(t *testing.T) {
	elsewhere := listenAndCount(t, address())
	r := &repository{name: "library/windows"}
	config := r.json(dockerConfig, map[string]any{"os": "windows", "architecture": "amd64"})
	kept := r.bytes(dockerLayer, []byte("a layer"))
	// One that the registry has all the same, and one that it has not.
	pushed := r.bytes("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", []byte("a pushed base"))
	absent := descriptor{MediaType: pushed.MediaType, Digest: digestOf([]byte("a base")), Size: 6}
	m := manifest{SchemaVersion: 2, MediaType: dockerManifest, Config: &config, Layers: []descriptor{pushed, absent, kept}}
	for i := range 2 {
		m.Layers[i].URLs = []string{"http://" + elsewhere.address + "/" + m.Layers[i].Digest}
	}
	r.tag(r.manifest(m), "1")
	var mu sync.Mutex
	asked := map[string]int{}
	project, _, mirror := newThrough(t, listen(t, small(r, func(_ http.ResponseWriter, q *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		asked[path.Base(q.URL.Path)]++
		return false
	})))
	get(t, "http://"+mirror+"/v2/library/windows/manifests/1")
	project.complete(t, "docker.io/library/windows:1")
	mu.Lock()
	if asked[pushed.Digest]+asked[absent.Digest] != 0 || asked[kept.Digest] != 1 {
		t.Errorf("asked for %v", asked)
	}
	mu.Unlock()
	for digest, want := range map[string]int{pushed.Digest: http.StatusOK, absent.Digest: http.StatusNotFound, kept.Digest: http.StatusOK} {
		answer := get(t, "http://"+mirror+"/v2/library/windows/blobs/"+digest)
		if answer.StatusCode != want || want == http.StatusOK && digestOf(answer.body) != digest {
			t.Errorf("%s: %s", digest, answer.Status)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if asked[pushed.Digest] == 0 || asked[absent.Digest] == 0 {
		t.Errorf("the registry was not asked for them: %v", asked)
	}
	if n := elsewhere.connections.Load(); n != 0 {
		t.Errorf("the URLs of foreign layers were followed %d times", n)
	}
}
