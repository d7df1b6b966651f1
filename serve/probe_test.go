package serve

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"mirrorctl/store"
)

// noFetch fails the test when something is fetched for a probe.
func noFetch(t *testing.T) Fetcher {
	c := newMemory()
	c.fail = fmt.Errorf("the upstream was asked")
	return c
}

// TestProbe pulls a probe as clients do, from a mirror that has nothing.
func TestProbe(t *testing.T) {
	h := newHandler(t, newMemory(), Options{Missing: noFetch(t)})
	p := NewProbe("ghcr.io")
	if other := NewProbe("ghcr.io"); other == p || !validToken(p.Token) {
		t.Errorf("token %s, then %s", p.Token, other.Token)
	}
	get := func(kind, reference string) (*http.Response, []byte) {
		t.Helper()
		target := "/v2/" + p.repository().Path + "/" + kind + "/" + reference + "?ns=ghcr.io"
		res := do(t, h, "GET", target)
		if res.StatusCode != 200 {
			t.Fatalf("%s: %s %s", target, res.Status, readAll(t, res.Body))
		}
		return res, []byte(readAll(t, res.Body))
	}
	res, body := get("manifests", "probe")
	if d := res.Header.Get("Docker-Content-Digest"); d != digest.FromBytes(body).String() || d != p.Index().String() {
		t.Errorf("the tag means %s", d)
	}
	var index v1.Index
	if err := json.Unmarshal(body, &index); err != nil || len(index.Manifests) != len(probePlatforms) {
		t.Fatalf("%v: %s", err, body)
	}
	for _, entry := range index.Manifests {
		_, body := get("manifests", entry.Digest.String())
		var m v1.Manifest
		if err := json.Unmarshal(body, &m); err != nil || digest.FromBytes(body) != entry.Digest {
			t.Fatalf("%s: %v", entry.Digest, err)
		}
		_, body = get("blobs", m.Config.Digest.String())
		var config v1.Image
		if err := json.Unmarshal(body, &config); err != nil || config.Architecture != entry.Platform.Architecture ||
			config.Config.Labels["mirrorctl.doctor"] != p.Content() || config.RootFS.DiffIDs[0] != m.Layers[0].Digest {
			t.Errorf("%s: %v: %s", m.Config.Digest, err, body)
		}
		_, body = get("blobs", m.Layers[0].Digest.String())
		archive := tar.NewReader(bytes.NewReader(body))
		if header, err := archive.Next(); err != nil || header.Name != probeFile {
			t.Fatalf("%v %v", header, err)
		}
		if text, err := io.ReadAll(archive); err != nil || string(text) != p.Content() {
			t.Errorf("%q %v", text, err)
		}
	}
	// What of a probe is not there, and what is none.
	absent := digest.FromString("absent").String()
	for target, want := range map[string]int{
		"/manifests/latest":      404,
		"/manifests/" + absent:   404,
		"/blobs/" + absent:       404,
		"/tags/list":             404,
		"/referrers/" + absent:   200,
		"x/manifests/probe":      500, // asked upstream
		"/sub/manifests/probe":   500,
		"/manifests/probe?x=%zz": 200,
	} {
		if res := do(t, h, "GET", "/v2/ghcr.io/"+p.repository().Path+target); res.StatusCode != want {
			t.Errorf("%s: %s", target, res.Status)
		}
	}
	// The same token of another registry is another image.
	if (Probe{"docker.io", p.Token}).Index() == p.Index() {
		t.Error("a probe is the same in two registries")
	}
	if _, ok := probeIn(store.Repository{Registry: "docker.io", Path: probePrefix + strings.ToUpper(p.Token)}); ok {
		t.Error("an upper-case token is one")
	}
}

func TestWatch(t *testing.T) {
	h := newHandler(t, newMemory(), Options{})
	p := NewProbe("docker.io")
	path := "/v2/" + p.repository().Path
	watched := func(p Probe) Watched {
		t.Helper()
		res := do(t, h, "GET", p.WatchPath())
		var w Watched
		if err := json.NewDecoder(res.Body).Decode(&w); err != nil || res.StatusCode != 200 || w.Doctor != 1 || w.Requests == nil || res.Header.Get("Cache-Control") != "no-store" {
			t.Fatalf("%s: %+v, %v", res.Status, w, err)
		}
		return w
	}
	do(t, h, "GET", path+"/manifests/probe") // nobody watches yet
	if w := watched(p); len(w.Requests) != 0 {
		t.Errorf("got %+v", w)
	}
	do(t, h, "HEAD", path+"/manifests/probe?ns=docker.io", "User-Agent", "docker/28\x01")
	do(t, h, "GET", "/v2/hub/"+p.repository().Path+"/manifests/probe")
	do(t, h, "GET", "/v2/ghcr.io/acme/tool/manifests/1")
	do(t, h, "PUT", path+"/manifests/probe")
	want := []WatchedRequest{
		{"192.0.2.1", "docker/28%01", "example.com", "HEAD", path + "/manifests/probe?ns=docker.io", 200},
		{"192.0.2.1", "-", "example.com", "GET", "/v2/hub/" + p.repository().Path + "/manifests/probe", 404},
		{"192.0.2.1", "-", "example.com", "PUT", path + "/manifests/probe", 405},
	}
	got := watched(p).Requests
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}

	// It keeps so much and no more.
	for range 2 * maxWatched {
		do(t, h, "GET", path+"/manifests/probe")
	}
	if n := len(watched(p).Requests); n != maxWatched {
		t.Errorf("%d requests are kept", n)
	}
	for range maxWatches {
		watched(NewProbe("docker.io"))
	}
	if n := len(h.watches.all); n != maxWatches {
		t.Errorf("%d probes are watched", n)
	}
	if w := watched(p); len(w.Requests) != 0 {
		t.Error("the oldest is still there")
	}
	for _, target := range []string{"/v2/_mirrorctl/doctor/", "/v2/_mirrorctl/doctor/x", "/v2/_mirrorctl/doctor", "/v2/_mirrorctl/", "/v2/a/_mirrorctl/doctor/" + p.Token} {
		if res := do(t, h, "GET", target); res.StatusCode != 404 {
			t.Errorf("%s: %s", target, res.Status)
		}
	}
}
