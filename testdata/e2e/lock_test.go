//go:build e2e

package e2e

import (
	"slices"
	"testing"
)

// The upstream moves a tag. The lock, the store and every client stay with what
// was pinned, until a person drops the pin.
func TestTagMoves(t *testing.T) {
	eachRegistry(t, func(t *testing.T, kind string) {
		const image = "library/busybox:1.35"
		hub := startHub(t, kind, busybox(t), layered(t))
		project := newProject(t, hub.url(), "busybox:1.35", "layered:41")
		project.must(t, "sync", "Dockerfile")
		before := project.lock(t)
		was := hub.record(t, image).digest(t, image)
		mirror := project.serve(t)
		client := startCrane(t, mirror)

		hub.push(t, movedBusybox(t))
		moved := hub.record(t, image)
		now := moved.digest(t, image)
		if was == now {
			t.Fatal("the tag did not move")
		}

		project.must(t, "sync", "Dockerfile")
		if got := answers(t, mirror, image); got != was {
			t.Errorf("after the move and a sync the mirror answers %s, pinned was %s", got, was)
		}
		if names := changed(before, project.lock(t)); names != nil {
			t.Errorf("sync changed the lock of %v", names)
		}

		project.must(t, "rm", "busybox:1.35")
		project.must(t, "sync", "Dockerfile")
		if got := answers(t, mirror, image); got != now {
			t.Errorf("after rm and sync the mirror answers %s, upstream has %s", got, now)
		}
		client(t, image, moved)
		if names := changed(before, project.lock(t)); !slices.Equal(names, []string{"docker.io/" + image}) {
			t.Errorf("the lock of %v changed, want busybox alone", names)
		}
		project.verify(t)
	})
}

// The upstream is down, and nobody notices: a sync with everything locked and
// stored connects to nothing.
func TestUpstreamDown(t *testing.T) {
	eachRegistry(t, func(t *testing.T, kind string) {
		hub := startHub(t, kind, busybox(t), attested(t))
		project := newProject(t, hub.url(), "busybox:1.35", "busybox:1.35-single", "attested:1")
		project.must(t, "sync", "Dockerfile")
		before := project.lock(t)
		hub.stop()
		listener := listenAndCount(t, hub.address)

		for _, args := range [][]string{{"sync", "Dockerfile"}, {"sync", "--locked", "Dockerfile"}, {"sync"}} {
			project.must(t, args...)
		}
		if n := listener.connections.Load(); n != 0 {
			t.Errorf("sync made %d connections", n)
		}
		if names := changed(before, project.lock(t)); names != nil {
			t.Errorf("sync changed the lock of %v", names)
		}

		// The listener does count: an image that is not stored needs the upstream.
		project.needs(t, "busybox:1.35", "layered:41")
		if r := project.mirrorctl(t, "sync", "Dockerfile"); r.code != exitSome && r.code != exitFailure {
			t.Errorf("sync of an image that cannot be had: %v", r)
		}
		if listener.connections.Load() == 0 {
			t.Error("the counting listener saw no connection at all")
		}
	})
}
