//go:build e2e

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// full reports whether sizes of real life are asked for: they take minutes.
func full() bool { return os.Getenv(fullVariable) != "" }

// newThrough is a project whose docker.io is at upstream, and a mirror of it
// that fetches what is missing.
func newThrough(tb testing.TB, upstream string, flags ...string) (*project, *process, string) {
	tb.Helper()
	project, listen := newProject(tb, upstream), address()
	return project, project.through(tb, listen, flags...), listen
}

func (p *project) through(tb testing.TB, listen string, flags ...string) *process {
	tb.Helper()
	return p.server(tb, listen, append([]string{"--pull-through", "docker.io", "--access-log", "off"}, flags...)...)
}

// together lets n clients pull for amd64 at the same time and returns how long
// that took, and when each blob came to whoever got it first.
func together(tb testing.TB, n int, mirror, name, tag string, content map[string][]byte) (time.Duration, map[string]arrived) {
	tb.Helper()
	var group sync.WaitGroup
	var mu sync.Mutex
	first := map[string]arrived{}
	began := time.Now()
	for i := range n {
		group.Go(func() {
			p := newPuller(mirror, name, content)
			if err := p.pull(tag, "amd64"); err != nil {
				tb.Errorf("client %d: %v", i, err)
			}
			mu.Lock()
			defer mu.Unlock()
			for d, at := range p.first {
				if was, ok := first[d]; !ok || at.first.Before(was.first) {
					first[d] = at
				}
			}
		})
	}
	group.Wait()
	return time.Since(began), first
}

// times counts how often each blob was asked for.
func times(p *proxy) map[string]int {
	n := map[string]int{}
	for _, r := range p.seen("GET", "/blobs/") {
		n[path.Base(r.path)]++
	}
	return n
}

// A hundred clients ask at once for an image that is missing, behind a line of
// 10 MB/s with a round trip of 100 ms: everything comes over it once, and they
// take as long as one client alone.
func TestPullThroughManyClients(t *testing.T) {
	const rate, delay = 10e6, 100 * time.Millisecond
	size := int64(20e6)
	if full() {
		size = 100e6
	}
	repository := several(t, 100, size, "1")
	content := contents(t, repository)
	hub := startHub(t, "distribution-3", repository)
	run := func(n int) time.Duration {
		proxy := startProxy(t, hub.url())
		line := startLink(t, proxy.address, rate, delay)
		project, server, mirror := newThrough(t, line.url())
		took, first := together(t, n, mirror, repository.name, "1", content)
		late, latest := latency(proxy, first)
		_, peak := memory(t, server)
		t.Logf("%d clients: %.2f s; first byte of the first blob %v after the upstream sent it, of the slowest %v; peak memory %.0f MB",
			n, took.Seconds(), late.Round(time.Millisecond), latest.Round(time.Millisecond), peak)
		if late > 2*time.Second {
			t.Errorf("the first byte came %v after the upstream's", late)
		}
		project.complete(t, "docker.io/library/several:1")
		for digest, n := range times(proxy) {
			if n != 1 {
				t.Errorf("%s was asked for %d times", digest, n)
			}
		}
		t.Logf("%d GETs of %d blobs, %d GETs of manifests, %.1f MB over the line",
			len(proxy.seen("GET", "/blobs/")), len(content), len(proxy.seen("GET", "/manifests/")), float64(line.carried.Load())/1e6)
		if got := len(times(proxy)); got != len(content) {
			t.Errorf("%d of %d blobs were asked for", got, len(content))
		}
		project.verify(t)
		server.stop()
		return took
	}
	one := run(1)
	many := run(100)
	ratio := many.Seconds() / one.Seconds()
	t.Logf("image of %.0f MB: 100 clients take %.2f times as long as one", float64(size)/1e6, ratio)
	if ratio > 1.5 {
		t.Errorf("100 clients take %.2f times as long as one", ratio)
	}
}

// latency is how long after the upstream had sent it the first byte of a blob
// came to a client: of the blob that came first, and the longest of all. A blob
// that was on its way before a client wanted it counts from when that asked.
func latency(p *proxy, got map[string]arrived) (first, longest time.Duration) {
	var earliest time.Time
	for _, r := range p.seen("GET", "/blobs/") {
		blob, wanted := got[path.Base(r.path)]
		if !wanted {
			continue
		}
		from := r.first
		if blob.asked.After(from) {
			from = blob.asked
		}
		late := blob.first.Sub(from)
		if longest = max(longest, late); earliest.IsZero() || blob.first.Before(earliest) {
			earliest, first = blob.first, late
		}
	}
	return first, longest
}

// complete waits until the images are here as a whole.
func (p *project) complete(tb testing.TB, images ...string) {
	tb.Helper()
	within(tb, patience, fmt.Sprintf("pinned: %v", images), func() bool {
		time.Sleep(20 * time.Millisecond)
		list := strings.Split(p.must(tb, "ls"), "\n")
		return !slices.ContainsFunc(images, func(image string) bool {
			return !slices.ContainsFunc(list, func(line string) bool {
				return strings.HasPrefix(line, image+" ") && !strings.Contains(line, " fetching, ")
			})
		})
	})
}

// The mirror is killed at a random moment of a pull and started again: clients
// complete, and what was on the disk does not come again.
func TestPullThroughKilled(t *testing.T) {
	const size = int64(5e6)
	rounds := 6
	if full() {
		rounds = 20
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	hub := startHub(t, "distribution-3")
	proxy := startProxy(t, hub.url())
	proxy.rate.Store(12e6)
	project, listen := newProject(t, proxy.url()), address()
	var whole time.Duration // that a pull takes
	var kept, again, manifests int64
	for round := range rounds + 1 {
		repository := several(t, byte(round*8), size, fmt.Sprint(round))
		hub.push(t, repository)
		content, tag := contents(t, repository), fmt.Sprint(round)
		proxy.forget()
		server := project.through(t, listen)
		if round == 0 { // not killed
			whole, _ = together(t, 1, listen, repository.name, tag, content)
			project.complete(t, "docker.io/library/several:"+tag) // nothing of it comes in the next round
			server.stop()
			continue
		}
		cut := make(chan error, 1)
		go func() { cut <- newPuller(listen, repository.name, content).pull(tag, "amd64") }()
		at := time.Duration(random.Int64N(int64(whole)))
		time.Sleep(at)
		server.kill()
		<-cut
		time.Sleep(200 * time.Millisecond) // for the proxy to notice
		here := onDisk(t, project.store, content)
		before := len(proxy.seen("GET", ""))

		server = project.through(t, listen)
		together(t, 3, listen, repository.name, tag, content)
		project.complete(t, "docker.io/library/several:"+tag)
		for _, r := range proxy.seen("GET", "")[before:] {
			digest := path.Base(r.path)
			had := here[digest]
			switch {
			case strings.Contains(r.path, "/manifests/") && had > 0:
				manifests++ // written, but not made durable yet
			case !strings.Contains(r.path, "/blobs/"):
			case had == int64(len(content[digest])):
				t.Errorf("round %d: %s was here and is asked for again", round, digest)
			case had > 0 && r.ranges != fmt.Sprintf("bytes=%d-", had):
				t.Errorf("round %d: %d bytes of %s were here, but Range %q is asked for", round, had, digest, r.ranges)
			default:
				again += r.bytes
			}
		}
		for digest := range content {
			kept += here[digest]
		}
		server.stop()
	}
	project.verify(t)
	t.Logf("killed %d times within %v: %.1f MB were here and stayed, %.1f MB came after; %d manifests came again",
		rounds, whole, float64(kept)/1e6, float64(again)/1e6, manifests)
	if left := project.ingested(t); left != 0 {
		t.Errorf("%d bytes are left in ingest", left)
	}
}

// onDisk is how many bytes of each blob, and of each manifest, are in a store
// that no process uses.
func onDisk(tb testing.TB, store string, content map[string][]byte) map[string]int64 {
	tb.Helper()
	here := map[string]int64{}
	for folder, prefix := range map[string]string{"blobs/sha256": "", "ingest": "sha256-"} {
		entries, err := os.ReadDir(filepath.Join(store, folder))
		check(tb, err)
		for _, entry := range entries {
			info, err := entry.Info()
			check(tb, err)
			here["sha256:"+strings.TrimPrefix(entry.Name(), prefix)] = info.Size()
		}
	}
	return here
}
