//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const mebi = 1 << 20

// slack is what may be on its way through sockets and buffers when a download
// is cut off.
const slack = 12 * mebi

// kill -9 in the middle of a layer, with one registry of 1 GiB: the next sync asks for the rest.
func TestKilledSyncResumes(t *testing.T) {
	eachRegistry(t, func(t *testing.T, kind string) {
		size := int64(1024 * mebi)
		if kind != "distribution-3" && !full() {
			size = 256 * mebi
		}
		i := interrupt(t, kind, size, size*2/5, func(sync *process) { sync.kill() })
		i.resume(t)
	})
}

// kill -9 while a layer is fetched in parts: those that came before their turn
// are lost, and nothing else.
func TestKilledInParts(t *testing.T) {
	const size, inMemory = 160 * mebi, 48 * mebi
	repository, layer := large(t, size)
	hub := startHub(t, "distribution-3", repository)
	proxy := startProxy(t, hub.url())
	proxy.rate.Store(8 * mebi)
	project := newProject(t, proxy.url(), "large:1")
	sync := project.begin(t, "sync", "Dockerfile")
	within(t, time.Minute, "most of the layer is sent, in parts", func() bool {
		seen := proxy.seen("GET", layer.Digest)
		return len(seen) > 8 && sent(seen) >= size*2/3 || !sync.running()
	})
	sync.kill()
	if sync.ProcessState.Success() {
		t.Fatal("sync was done before it was killed")
	}
	time.Sleep(100 * time.Millisecond)
	first := proxy.seen("GET", layer.Digest)
	proxy.forget()
	project.must(t, "sync", "Dockerfile")
	second := proxy.seen("GET", layer.Digest)
	t.Logf("layer of %d bytes: %d in %d requests before the kill, %d in %d after", layer.Size, sent(first), len(first), sent(second), len(second))
	if total := sent(first) + sent(second); total > layer.Size+inMemory+slack {
		t.Errorf("%d bytes in all", total)
	}
	for _, r := range second {
		if r.status != 206 {
			t.Errorf("the second sync asked with Range %q and got %d", r.ranges, r.status)
		}
	}
	project.verify(t)
	if digest, _ := hashFile(t, blobPath(project.store, layer.Digest)); digest != layer.Digest {
		t.Errorf("the stored layer is %s, want %s", digest, layer.Digest)
	}
}

// Ctrl-C keeps what was downloaded, says so with its exit code, and the next
// sync asks for the rest.
func TestInterruptedSyncResumes(t *testing.T) {
	eachRegistry(t, func(t *testing.T, kind string) {
		i := interrupt(t, kind, 96*mebi, 32*mebi, func(sync *process) {
			began := time.Now()
			sync.Process.Signal(syscall.SIGINT)
			if code := sync.wait(t); code != exitInterrupted {
				t.Errorf("exit code %d after Ctrl-C, want %d", code, exitInterrupted)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("sync took %v to stop", took)
			}
		})
		if kept := i.project.ingested(t); kept < i.first-slack {
			t.Errorf("the store kept %d of %d bytes", kept, i.first)
		}
		i.resume(t)
	})
}

// interrupted is a sync that was cut off.
type interrupted struct {
	project *project
	proxy   *proxy
	layer   layer
	first   int64 // bytes of the layer that were sent by then
}

// interrupt starts a sync of one large layer and cuts it off after some bytes.
func interrupt(t *testing.T, kind string, size, after int64, cut func(*process)) *interrupted {
	t.Helper()
	repository, layer := large(t, size)
	hub := startHub(t, kind, repository, busybox(t))
	proxy := startProxy(t, hub.url())
	proxy.rate.Store(256 * mebi)
	project := newProject(t, proxy.url(), "large:1", "busybox:1.35")
	// Over one connection every byte has its place when it comes.
	project.configure(t, fmt.Sprintf("connections = 1\n[registry.\"docker.io\"]\nurl = %q\n", proxy.url()))
	i := &interrupted{project: project, proxy: proxy, layer: layer}

	sync := project.begin(t, "sync", "Dockerfile")
	within(t, time.Minute, "part of the layer is sent", func() bool {
		return sent(proxy.seen("GET", layer.Digest)) >= after || !sync.running()
	})
	cut(sync)
	if sync.ProcessState.Success() {
		t.Fatalf("sync was done before it was cut off")
	}
	// The proxy notices after a moment that nobody listens any more.
	time.Sleep(100 * time.Millisecond)
	i.first = sent(proxy.seen("GET", layer.Digest))
	if i.first >= size {
		t.Fatalf("all %d bytes were sent before sync was cut off", i.first)
	}
	// What is not complete is not there.
	if list := project.must(t, "ls"); strings.Contains(list, "large") {
		t.Errorf("ls shows an image that was not pulled completely:\n%s", list)
	}
	if _, err := os.Stat(blobPath(project.store, layer.Digest)); err == nil {
		t.Error("the layer is among the blobs before it is complete")
	}
	return i
}

// resume syncs again and checks what was asked for.
func (i *interrupted) resume(t *testing.T) {
	t.Helper()
	i.proxy.forget()
	i.proxy.rate.Store(0)
	i.project.must(t, "sync", "Dockerfile")
	requests := i.proxy.seen("GET", i.layer.Digest)
	for _, r := range requests {
		offset, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(r.ranges, "bytes="), "-"), 10, 64)
		if err != nil || offset <= 0 || r.status != 206 {
			t.Errorf("the second sync asked for the layer with Range %q and got %d", r.ranges, r.status)
		}
	}
	total := i.first + sent(requests)
	t.Logf("layer of %d bytes: %d sent before the cut, then %d requests with %d bytes",
		i.layer.Size, i.first, len(requests), sent(requests))
	if len(requests) == 0 || total > i.layer.Size+slack {
		t.Errorf("%d requests, %d bytes in all for a layer of %d", len(requests), total, i.layer.Size)
	}
	i.project.verify(t)
	if left := i.project.ingested(t); left != 0 {
		t.Errorf("%d bytes left in ingest", left)
	}
	if digest, _ := hashFile(t, blobPath(i.project.store, i.layer.Digest)); digest != i.layer.Digest {
		t.Errorf("the stored layer is %s, want %s", digest, i.layer.Digest)
	}
}
