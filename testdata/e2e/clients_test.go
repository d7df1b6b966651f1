//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// pinned is what the Dockerfile of the main job names: every media type,
// compression and shape that a build meets.
var pinned = []string{
	"debian:bookworm",
	"busybox:1.35", "busybox:1.35-oci", "busybox:1.35-zstd", "busybox:1.35-tar",
	"busybox:1.35-single", "busybox:1.35-single-oci", "busybox:1.35-nested",
	"attested:1", "layered:41",
}

// The main job: sync a Dockerfile from a real registry, stop that registry, and
// let every client pull from serve what upstream had.
func TestClientsPullFromServe(t *testing.T) {
	eachRegistry(t, func(t *testing.T, kind string) {
		hub := startHub(t, kind, debian(t), busybox(t), attested(t), layered(t))
		project := newProject(t, hub.url(), pinned...)
		project.must(t, "sync", "Dockerfile")
		upstream := hub.record(t, library(pinned)...)
		index := upstream.digest(t, "library/attested:1")
		signature := "library/attested:" + fallbackTag(index) + ".sig"
		upstream.add(t, hub.url(), signature)
		referrers := decode(t, get(t, hub.url()+"/v2/library/attested/manifests/"+fallbackTag(index)).body).Manifests
		for _, r := range referrers {
			upstream.walk(t, hub.url(), "library/attested", r.Digest)
		}
		hub.stop()

		mirror := project.serve(t)
		t.Run("every byte", func(t *testing.T) { upstream.compare(t, "http://"+mirror) })
		t.Run("referrers", func(t *testing.T) { checkReferrers(t, mirror, index, referrers) })
		project.verify(t)
		// The bytes are the same now wherever they came from: once is enough
		// for the gate.
		if kind != "distribution-3" && !full() {
			return
		}
		for _, c := range clients {
			t.Run(c.name, func(t *testing.T) { pullAll(t, c, mirror, upstream) })
		}
		t.Run("docker build", func(t *testing.T) { newDockerd(t, mirror).build(t) })
	})
}

// The clients themselves work here: they pull from a plain registry, so that a
// failure above is the mirror's.
func TestClientsPullFromRegistry(t *testing.T) {
	if !full() {
		t.Skip("it tests the tests: set " + fullVariable)
	}
	hub := startHub(t, "distribution-3", debian(t), busybox(t), attested(t), layered(t))
	upstream := hub.record(t, library(pinned)...)
	registry := startProxy(t, hub.url()).address
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) { pullAll(t, c, registry, upstream) })
	}
	t.Run("docker build", func(t *testing.T) { newDockerd(t, registry).build(t) })
}

func pullAll(t *testing.T, c client, mirror string, upstream *recording) {
	pull := c.start(t, mirror)
	for _, image := range pinned {
		if image == c.cannot {
			continue
		}
		t.Run(image, func(t *testing.T) { pull(t, "library/"+image, upstream) })
	}
}

func library(images []string) (names []string) {
	for _, image := range images {
		names = append(names, "library/"+image)
	}
	return names
}

// checkReferrers asks as cosign does: all of them, and those of one type.
func checkReferrers(t *testing.T, mirror, subject string, want []descriptor) {
	url := fmt.Sprintf("http://%s/v2/library/attested/referrers/%s", mirror, subject)
	answer := get(t, url)
	if answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Type") != ociIndex {
		t.Fatalf("%s: %s, %s", url, answer.Status, answer.Header.Get("Content-Type"))
	}
	if got, want := digests(decode(t, answer.body).Manifests), digests(want); !slices.Equal(got, want) {
		t.Errorf("referrers\n got %v\nwant %v", got, want)
	}
	for _, one := range want {
		answer := get(t, url+"?artifactType="+strings.ReplaceAll(one.ArtifactType, "+", "%2B"))
		if got := digests(decode(t, answer.body).Manifests); !slices.Equal(got, []string{one.Digest}) {
			t.Errorf("referrers of type %s: %v, want %s", one.ArtifactType, got, one.Digest)
		}
		if got := answer.Header.Get("OCI-Filters-Applied"); got != "artifactType" {
			t.Errorf("OCI-Filters-Applied: %q", got)
		}
	}
}

func digests(list []descriptor) (all []string) {
	for _, d := range list {
		all = append(all, d.Digest)
	}
	slices.Sort(all)
	return all
}
