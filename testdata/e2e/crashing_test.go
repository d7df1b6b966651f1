//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// crashing is a store whose processes are killed, and what must be true of it
// after each kill.
type crashing struct {
	*testing.T
	random *rand.Rand
	hub    *hub
	proxy  *proxy
	*project
	bystander *project // on the same store; its syncs are not killed
	mirror    string   // reads the store all the time, and is not killed

	anchor  *versions
	victims []*versions
	others  []*versions       // of the bystander
	size    map[string]int64  // of blobs, by digest
	content map[string][]byte // of blobs

	took   map[string]time.Duration // that a command needs, by its name
	kills  map[string]int
	pins   int   // that were reported when their process was killed
	kept   int64 // bytes of blobs that were on the disk when their process was killed
	after  int64 // bytes of blobs that the next run asked for
	again  int   // manifests that were being written, and that the next run asked for
	pulled int   // images, from the mirror
}

// versions are an image and what its tag means after a release.
type versions struct {
	*repository
	next int // which version the upstream's tag means
}

func (v *versions) image() string { return strings.TrimPrefix(v.name, "library/") + ":1" }
func (v *versions) full() string  { return "docker.io/" + v.name + ":1" }

// newVersions is an image of two platforms, signed, in two versions. It shares a
// layer with all others.
func newVersions(tb testing.TB, name string, seed byte, shared layer) *versions {
	tb.Helper()
	r := &repository{name: "library/" + name}
	for version := range byte(2) {
		own := func(n byte, size int64) layer { return randomLayer(tb, seed+4*version+n, size) }
		index := r.index(oci,
			r.image(oci, "amd64", shared, own(0, 150<<10), own(1, 20<<10)),
			r.image(oci, "arm64", own(2, 90<<10), own(3, 10)))
		subject := descriptor{MediaType: index.MediaType, Digest: index.Digest, Size: index.Size}
		empty := r.bytes("application/vnd.oci.empty.v1+json", []byte("{}"))
		signature := r.artifact(&subject, empty, "application/x-signature", "application/x-signature", name+fmt.Sprint(version))
		r.tag(r.index(oci, signature), fallbackTag(index.Digest))
		r.tag(index, "1")
	}
	return &versions{repository: r, next: 1} // whose tag was set last
}

// release makes the upstream's tags mean the other version.
func (c *crashing) release() {
	c.Helper()
	for _, v := range slices.Concat(c.victims, c.others) {
		var meanings []storedManifest
		for _, t := range v.tags {
			if t.name == "1" {
				meanings = append(meanings, t.manifest)
			}
		}
		v.next = 1 - v.next
		c.hub.push(c, &repository{name: v.name, tags: []tag{{"1", meanings[v.next]}}})
	}
}

func newCrashing(t *testing.T, seed uint64) *crashing {
	t.Helper()
	c := &crashing{
		T: t, random: rand.New(rand.NewPCG(seed, 0)), hub: startHub(t, "distribution-3"),
		size: map[string]int64{}, content: map[string][]byte{},
		took: map[string]time.Duration{}, kills: map[string]int{},
	}
	shared := randomLayer(t, 255, 200<<10)
	c.anchor = newVersions(t, "anchor", 0, shared)
	for i := range byte(4) {
		c.victims = append(c.victims, newVersions(t, fmt.Sprintf("victim%d", i), 8+8*i, shared))
	}
	c.others = []*versions{newVersions(t, "other", 200, shared)}
	for _, v := range slices.Concat([]*versions{c.anchor}, c.victims, c.others) {
		c.hub.push(t, v.repository)
		maps.Copy(c.content, contents(t, v.repository))
	}
	for digest, content := range c.content {
		c.size[digest] = int64(len(content))
	}
	c.proxy = startProxy(t, c.hub.url())
	c.proxy.rate.Store(4 * mebi)
	c.project = newProject(t, c.proxy.url(), c.anchor.image())
	c.project.must(t, "sync", "Dockerfile")
	c.bystander = newProject(t, c.proxy.url())
	c.bystander.store = c.project.store
	c.mirror = c.project.serve(t)
	return c
}

func images(all ...*versions) (names []string) {
	for _, v := range all {
		names = append(names, v.image())
	}
	return names
}

// reported finds what a process said it had done for images, by the words for it:
// the first twelve digits of their digests by name.
func reported(p *process, words string) map[string]string {
	line := regexp.MustCompile(`(?m)^mirrorctl: (docker\.io/\S+): (?:` + words + `)(?: (sha256:[0-9a-f]{12}))?.*\n`)
	names := map[string]string{}
	for _, match := range line.FindAllStringSubmatch(p.output(), -1) {
		names[match[1]] = match[2]
	}
	return names
}

// stands checks that names have digests that begin as they should.
func (c *crashing) stands(what string, list, want map[string]string) {
	c.Helper()
	for name, digest := range want {
		if got, there := list[name]; !there || !strings.HasPrefix(got, digest) {
			c.Errorf("%s: %s was %s and is %q", what, name, digest, got)
		}
	}
}

// whole checks that the mirror shows what ls does and no more, and that all of it
// is complete and as upstream has it.
func (c *crashing) whole(list listed) {
	c.Helper()
	time.Sleep(30 * time.Millisecond) // for what the mirror may remember
	var repositories []string
	for _, v := range slices.Concat([]*versions{c.anchor}, c.victims, c.others) {
		want, pinned := list.pins[v.full()]
		if !pinned {
			want = "404"
			for _, m := range v.manifests {
				if answer := get(c, "http://"+c.mirror+"/v2/"+v.name+"/manifests/"+m.Digest); answer.StatusCode != http.StatusNotFound {
					c.Errorf("%s is not pinned, but the mirror has its manifest %s", v.full(), m.Digest)
				}
			}
		} else {
			repositories = append(repositories, v.name)
			arch := []string{"amd64", "arm64"}[c.random.IntN(2)] // verify has looked at both
			if err := newPuller(c.mirror, v.name, c.content).pull("1", arch); err != nil {
				c.Errorf("%s is pinned, but cannot be pulled: %v", v.full(), err)
			}
			c.pulled++
			if got := answers(c, c.mirror, v.name+":"+fallbackTag(want)); got == "404" {
				c.Errorf("%s is pinned, but its signature is not there", v.full())
			}
		}
		if got := answers(c, c.mirror, v.name+":1"); got != want {
			c.Errorf("%s: the mirror has %s, ls %s", v.full(), got, want)
		}
	}
	var catalog struct{ Repositories []string }
	check(c, json.Unmarshal(get(c, "http://"+c.mirror+"/v2/_catalog").body, &catalog))
	for i, name := range catalog.Repositories {
		catalog.Repositories[i] = strings.TrimPrefix(name, "docker.io/")
	}
	slices.Sort(repositories)
	slices.Sort(catalog.Repositories)
	if !slices.Equal(catalog.Repositories, repositories) {
		c.Errorf("the catalog has %q, pinned are %q", catalog.Repositories, repositories)
	}
}

// frugal runs what may ask the registry, and checks that no byte of a blob comes
// that is on the disk already. No other process may write to the store.
func (c *crashing) frugal(run func()) {
	c.Helper()
	here, complete := onDisk(c, c.project.store, c.content), map[string]bool{}
	for digest := range here {
		_, err := os.Stat(blobPath(c.project.store, digest))
		complete[digest] = err == nil
	}
	c.proxy.forget()
	run()
	for _, r := range c.proxy.seen(http.MethodGet, "") {
		switch digest := path.Base(r.path); {
		case strings.Contains(r.path, "/blobs/"):
		case !strings.Contains(r.path, "/manifests/"): // a list of referrers
		case complete[digest]:
			c.Errorf("the manifest %s is here, and came again", digest)
		case here[digest] > 0:
			c.again++
		}
	}
	c.after += c.proxy.onlyMissing(c, here, c.content)
	for digest, n := range here {
		if _, blob := c.size[digest]; blob {
			c.kept += n
		}
	}
}

// reset drops all images but the anchor, and checks that nothing of them stays.
func (c *crashing) reset() {
	c.Helper()
	list := c.list(c)
	var names []string
	for name := range list.pins {
		if name != c.anchor.full() {
			names = append(names, name)
		}
	}
	for name := range list.arrivals {
		names = append(names, name)
	}
	if len(names) > 0 {
		c.timed("rm", func() { c.project.must(c, append([]string{"rm"}, names...)...) })
	}
	c.timed("gc", func() { c.project.must(c, "gc", "--partials-older-than", "0s") })
	want := map[string]bool{}
	upstream := c.hub.record(c, c.anchor.name+":1", c.anchor.name+":"+fallbackTag(list.pins[c.anchor.full()]))
	for key := range upstream.manifests {
		want["sha256:"+strings.Split(key, "@sha256:")[1]] = true
	}
	for key := range upstream.blobs {
		want["sha256:"+strings.Split(key, "@sha256:")[1]] = true
	}
	for digest := range onDisk(c, c.project.store, c.content) {
		if !want[digest] {
			c.Errorf("%s is still there when all that needs it is gone", digest)
		}
	}
	if leases, err := os.ReadDir(filepath.Join(c.project.store, "leases")); err != nil || len(leases) > 0 {
		c.Errorf("leases that are left: %v, %v", leases, err)
	}
	for _, p := range []*project{c.project, c.bystander} {
		check(c, os.RemoveAll(filepath.Join(p.dir, "mirror.lock")))
		entries, err := os.ReadDir(p.dir)
		check(c, err)
		for _, entry := range entries {
			if name := entry.Name(); name != "Dockerfile" && name != "mirrorctl.toml" {
				c.Errorf("%s is left beside the lock", name)
			}
		}
	}
}
