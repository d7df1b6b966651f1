//go:build e2e

package e2e

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"testing"
)

// Another process drops an image while a client is in the middle of its layer:
// the client gets all of it, and then nothing of it is left. Once it is a stored
// image and a mirror that reads, once a stored and once an arriving one and a
// mirror that fetches what is missing.
func TestRemovedWhileRead(t *testing.T) {
	const size, first = 12 * mebi, mebi
	repository, layer := large(t, size)
	content := contents(t, repository)[layer.Digest]
	hub := startHub(t, "distribution-3", repository)
	for _, tt := range []struct {
		name            string
		stored, through bool
	}{
		{"stored, and served read-only", true, false},
		{"stored, and served with pull-through", true, true},
		{"arriving", false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			proxy := startProxy(t, hub.url())
			project, listen := newProject(t, proxy.url(), "large:1"), address()
			if tt.stored {
				project.must(t, "sync", "Dockerfile")
			} else {
				proxy.rate.Store(8 * mebi)
			}
			serve := []string{"--access-log", "off"}
			if tt.through {
				serve = append(serve, "--pull-through", "docker.io")
			}
			project.server(t, listen, serve...)
			if got := answers(t, listen, "library/large:1"); got == "404" {
				t.Fatal("the mirror does not have the image")
			}
			response, err := http.Get("http://" + listen + "/v2/library/large/blobs/" + layer.Digest)
			check(t, err)
			defer response.Body.Close()
			got := make([]byte, first, size)
			_, err = io.ReadFull(response.Body, got)
			check(t, err)

			project.must(t, "rm", "large:1")
			project.must(t, "gc", "--orphans", "--partials-older-than", "0s")
			_, err = os.Stat(blobPath(project.store, layer.Digest))
			if left := project.ingested(t); !errors.Is(err, fs.ErrNotExist) || (left > 0) == tt.stored {
				t.Errorf("after rm and gc: %v, %d bytes in ingest", err, left)
			}
			rest, err := io.ReadAll(response.Body)
			if got = append(got, rest...); err != nil || !bytes.Equal(got, content) {
				t.Errorf("the client got %d of %d bytes: %v", len(got), len(content), err)
			}
			if n := times(proxy)[layer.Digest]; n != 1 {
				t.Errorf("the layer was asked for %d times", n)
			}
			// Other blobs of the image may have been on their way.
			within(t, patience, "nothing is left", func() bool {
				project.must(t, "gc", "--partials-older-than", "0s")
				return len(onDisk(t, project.store, nil)) == 0
			})
			project.verify(t)
		})
	}
}

// gc and rm of all others, again and again, beside a sync: nothing that it needs
// goes, and nothing comes twice.
func TestCollectWhileSyncing(t *testing.T) {
	hub := startHub(t, "distribution-3", layered(t), busybox(t))
	proxy := startProxy(t, hub.url())
	proxy.rate.Store(4 * mebi)
	one, two := newProject(t, proxy.url(), "layered:41", "busybox:1.35"), newProject(t, proxy.url(), "busybox:1.35")
	two.store = one.store
	two.must(t, "sync", "Dockerfile")
	sync := one.begin(t, "sync", "Dockerfile")
	runs := 0
	for ; sync.running(); runs++ {
		if r := two.mirrorctl(t, "rm", "busybox:1.35"); r.code != exitDone && r.code != exitFailure { // it is gone
			t.Error(r)
		}
		two.must(t, "gc", "--orphans", "--partials-older-than", "0s")
	}
	if code := sync.wait(t); code != exitDone {
		t.Errorf("sync ended with exit code %d", code)
	}
	again := contents(t, busybox(t)) // twice, if it went before the sync wanted it
	for digest, n := range times(proxy) {
		if _, ok := again[digest]; n > 2 || n > 1 && !ok {
			t.Errorf("%s was asked for %d times", digest, n)
		}
	}
	t.Logf("%d times rm and gc beside the sync, %d blobs", runs, len(times(proxy)))
	one.verify(t)
}
