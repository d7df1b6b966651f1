//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"
)

// Two projects with images in common sync into one store at the same time: both
// get all they need, and every blob comes over the wire once.
func TestTwoSyncsAtOnce(t *testing.T) {
	eachRegistry(t, func(t *testing.T, kind string) {
		hub := startHub(t, kind, busybox(t), attested(t), layered(t))
		proxy := startProxy(t, hub.url())
		proxy.rate.Store(4 * mebi)
		one := newProject(t, proxy.url(), "busybox:1.35", "layered:41", "busybox:1.35-zstd")
		two := newProject(t, proxy.url(), "layered:41", "busybox:1.35", "attested:1")
		two.store = one.store

		first, second := one.begin(t, "sync", "Dockerfile"), two.begin(t, "sync", "Dockerfile")
		for name, sync := range map[string]*process{"first": first, "second": second} {
			if code := sync.wait(t); code != exitDone {
				t.Errorf("the %s sync ended with exit code %d", name, code)
			}
		}
		times := map[string]int{}
		for _, r := range proxy.seen("GET", "/blobs/") {
			times[r.path[strings.LastIndex(r.path, "/")+1:]]++
		}
		for digest, n := range times {
			if n != 1 {
				t.Errorf("blob %s was asked for %d times", digest, n)
			}
		}
		t.Logf("%d blobs, %d manifests", len(times), len(proxy.seen("GET", "/manifests/")))
		one.verify(t)
		upstream := hub.record(t, "library/busybox:1.35", "library/busybox:1.35-zstd", "library/layered:41", "library/attested:1")
		upstream.compare(t, "http://"+one.serve(t))
	})
}

// What another process pins or drops, a running mirror shows at once.
func TestSyncWhileServing(t *testing.T) {
	const limit = 100 * time.Millisecond
	hub := startHub(t, "distribution-3", busybox(t), layered(t))
	project := newProject(t, hub.url(), "busybox:1.35")
	project.must(t, "sync", "Dockerfile")
	mirror := project.serve(t)
	upstream := hub.record(t, "library/layered:41")
	want := upstream.digest(t, "library/layered:41")

	// Asked before it is there, so that a remembered miss would show.
	if got := answers(t, mirror, "library/layered:41"); got != "404" {
		t.Fatalf("the mirror answers %s before the sync", got)
	}
	project.needs(t, "busybox:1.35", "layered:41")
	project.must(t, "sync", "Dockerfile")
	took := within(t, limit, "the new pin is served", func() bool {
		return answers(t, mirror, "library/layered:41") == want
	})
	t.Logf("served %v after sync ended", took.Round(time.Microsecond))
	upstream.compare(t, "http://"+mirror)

	project.must(t, "rm", "layered:41")
	took = within(t, limit, "the removed pin is gone", func() bool {
		return answers(t, mirror, "library/layered:41") == "404"
	})
	t.Logf("gone %v after rm ended", took.Round(time.Microsecond))
	if got := answers(t, mirror, "library/busybox:1.35"); got == "404" {
		t.Error("rm of one image took another along")
	}
}
