//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// A file system runs out of bytes, or of files. Each is swept in steps, from where
// nothing fits to where all does.
var resources = []struct {
	name, option string
	room         int64 // of a file system that is large enough for all
	used         func(*syscall.Statfs_t) int64
}{
	{"bytes", "size", 64 * mebi, func(s *syscall.Statfs_t) int64 { return int64(s.Blocks-s.Bfree) * s.Bsize }},
	{"files", "nr_inodes", 4096, func(s *syscall.Statfs_t) int64 { return int64(s.Files - s.Ffree) }},
}

// sweep is how many sizes of a disk are tried for each resource.
func sweep() int64 {
	if full() {
		return 60
	}
	return 5
}

// used is how much of a resource a file system has given away.
func used(t *testing.T, dir string, of func(*syscall.Statfs_t) int64) int64 {
	t.Helper()
	var stat syscall.Statfs_t
	check(t, syscall.Statfs(dir, &stat))
	return of(&stat)
}

// On a disk of any size a sync does what fits and says what is missing. Nothing
// half done shows, and with room the next one fetches only the rest.
func TestFullDiskSync(t *testing.T) {
	small, _ := large(t, 40<<10)
	big := several(t, 1, 300e3, "1")
	hub := startHub(t, "distribution-3", small, big)
	proxy := startProxy(t, hub.url())
	content := contents(t, big)
	maps.Copy(content, contents(t, small))
	images := []string{"large:1", "several:1"}
	upstream := hub.record(t, "library/large:1", "library/several:1")

	for _, resource := range resources {
		t.Run(resource.name, func(t *testing.T) {
			roomy := newProject(t, proxy.url(), images...)
			tmpfs(t, roomy, fmt.Sprintf("%s=%d", resource.option, resource.room))
			roomy.must(t, "sync", "Dockerfile")
			all := used(t, roomy.store, resource.used)
			codes := map[int]int{}
			for step := range sweep() {
				// A sync needs more on its way than is left when it has ended.
				limit := max(1, all*3/2*(step+1)/sweep())
				t.Run(fmt.Sprint(limit), func(t *testing.T) {
					p := newProject(t, proxy.url(), images...)
					remount := tmpfs(t, p, fmt.Sprintf("%s=%d", resource.option, limit))
					r := p.mirrorctl(t, "sync", "Dockerfile")
					codes[r.code]++
					p.filled(t, r, upstream)
					remount(0, fmt.Sprintf("%s=%d", resource.option, resource.room))
					proxy.forget()
					here := map[string]int64{}
					if _, err := os.Stat(filepath.Join(p.store, "ingest")); err == nil {
						here = onDisk(t, p.store, content)
					}
					p.must(t, "sync", "Dockerfile")
					proxy.onlyMissing(t, here, content)
					if pins := p.list(t).pins; len(pins) != len(images) {
						t.Errorf("with room again only %v are pinned", pins)
					}
					p.verify(t)
				})
			}
			t.Logf("%d %s are used in the end; exit codes on smaller and larger disks: %v", all, resource.name, codes)
			if codes[exitDone] == 0 || codes[exitFailure]+codes[exitSome] == 0 {
				t.Errorf("the sweep does not go from too small to large enough: exit codes %v", codes)
			}
		})
	}
}

// filled checks what a sync has left on a disk that may have been too small for it.
func (p *project) filled(t *testing.T, r result, upstream *recording) {
	t.Helper()
	lock, err := os.ReadFile(filepath.Join(p.dir, "mirror.lock"))
	if err != nil && !os.IsNotExist(err) {
		t.Error(err)
	}
	locked := map[string]string{}
	if err == nil {
		locked = p.lock(t)
	}
	pins := map[string]string{}
	if list := p.mirrorctl(t, "ls"); list.code == exitDone {
		pins = p.list(t).pins
		p.verify(t)
	} else if !strings.Contains(list.stderr, "no store") && !strings.Contains(list.stderr, "no space left on device") {
		t.Errorf("ls after %v:\n%v", r, list)
	}
	for image, digest := range upstream.tags {
		name := "docker.io/" + image
		switch {
		case pins[name] == "" && locked[name] == "":
			if r.code == exitDone {
				t.Errorf("%s is neither pinned nor locked after %v", name, r)
			}
			if strings.Contains(r.stderr, "store "+p.store) { // not even an empty store fits
				says(t, r, "no space left on device", "free some space")
				continue
			}
			says(t, r, name+": ", "no space left on device", "free some space")
		case pins[name] != digest, !strings.Contains(locked[name], digest):
			t.Errorf("%s is pinned as %q and locked as %q, want %s, after %v", name, pins[name], locked[name], digest, r)
		}
	}
	if len(pins) < len(upstream.tags) && r.code != exitFailure && r.code != exitSome {
		t.Errorf("with %v pinned: %v", pins, r)
	}
	if len(lock) > 0 && !bytes.HasSuffix(lock, []byte("\n")) {
		t.Errorf("the lock is torn:\n%s", lock)
	}
	entries, err := os.ReadDir(p.dir)
	check(t, err)
	for _, entry := range entries {
		if !slices.Contains([]string{"Dockerfile", "mirrorctl.toml", "mirror.lock"}, entry.Name()) {
			t.Errorf("%s is left beside the lock", entry.Name())
		}
	}
}

// The project's own disk is full, and the store's is not: the lock stays as it
// was, byte for byte, and is completed without a request when there is room.
func TestFullDiskLock(t *testing.T) {
	other, _ := large(t, 1000)
	hub := startHub(t, "distribution-3", busybox(t), other)
	proxy := startProxy(t, hub.url())
	for _, resource := range resources {
		t.Run(resource.name, func(t *testing.T) {
			p := newProject(t, proxy.url())
			config, err := os.ReadFile(filepath.Join(p.dir, "mirrorctl.toml"))
			check(t, err)
			roomy := fmt.Sprintf("%s=%d", resource.option, resource.room)
			check(t, syscall.Mount("tmpfs", p.dir, "tmpfs", 0, roomy))
			t.Cleanup(func() { syscall.Unmount(p.dir, syscall.MNT_DETACH) })
			p.configure(t, string(config))
			path := filepath.Join(p.dir, "mirror.lock")
			for _, images := range [][]string{{"busybox:1.35"}, {"busybox:1.35", "large:1"}} {
				p.needs(t, images...)
				before, _ := os.ReadFile(path) // there is none at first
				limit := fmt.Sprintf("%s=%d", resource.option, used(t, p.dir, resource.used))
				check(t, syscall.Mount("tmpfs", p.dir, "tmpfs", syscall.MS_REMOUNT, limit))

				r := p.mirrorctl(t, "sync", "Dockerfile")
				if r.code != exitFailure {
					t.Errorf("sync: %v", r)
				}
				says(t, r, "mirror.lock", "no space left on device", "free some space")
				if after, _ := os.ReadFile(path); !bytes.Equal(after, before) {
					t.Errorf("the lock was\n%s\nand is\n%s", before, after)
				}
				if left, err := filepath.Glob(filepath.Join(p.dir, ".mirror.lock*")); err != nil || len(left) > 0 {
					t.Errorf("%v is left beside the lock (%v)", left, err)
				}

				check(t, syscall.Mount("tmpfs", p.dir, "tmpfs", syscall.MS_REMOUNT, roomy))
				proxy.forget()
				p.must(t, "sync", "Dockerfile")
				if lock := p.lock(t); len(lock) != len(images) {
					t.Errorf("locked are %v, want %v", lock, images)
				}
				if again := proxy.seen("", ""); len(again) > 0 {
					t.Errorf("what was pinned is asked for again: %v", again)
				}
			}
		})
	}
}

// On a disk of any size clients of a pull-through get the right bytes, or hear
// that they shall come back, or see a connection break off. The mirror
// goes on, and with room has the whole image.
func TestFullDiskPullThrough(t *testing.T) {
	repository := several(t, 1, 300e3, "1")
	hub := startHub(t, "distribution-3", repository)
	content := contents(t, repository)
	refused := regexp.MustCompile(`: (503 Service Unavailable|404 Not Found)\b|broke off|EOF`)
	const name = "docker.io/library/several:1"
	mirror := address()
	want := hub.record(t, "library/several:1")

	for _, resource := range resources {
		t.Run(resource.name, func(t *testing.T) {
			through := func() (p *project, server *process, empty int64, remount func(limit int64)) {
				p = newProject(t, hub.url())
				mount := tmpfs(t, p, fmt.Sprintf("%s=%d", resource.option, resource.room))
				server = p.through(t, mirror)
				return p, server, used(t, p.store, resource.used), func(limit int64) {
					mount(0, fmt.Sprintf("%s=%d", resource.option, limit))
				}
			}
			p, server, empty, _ := through()
			together(t, 1, mirror, repository.name, "1", content)
			p.complete(t, name)
			needed := used(t, p.store, resource.used) - empty
			server.stop()

			outcomes := map[string]int{}
			for step := range sweep() {
				p, server, empty, remount := through()
				limit := empty + needed*3/2*step/(sweep()-1)
				remount(limit)
				for range 2 {
					var group sync.WaitGroup
					pull := func() string {
						err := newPuller(mirror, repository.name, content).pull("1", "amd64")
						if err == nil {
							return "whole"
						}
						if !refused.MatchString(err.Error()) {
							t.Errorf("with room for %d of %d %s more: %v", limit-empty, needed, resource.name, err)
						}
						return refused.FindString(err.Error())
					}
					var pulled [3]string
					for i := range pulled {
						group.Go(func() { pulled[i] = pull() })
					}
					group.Wait()
					for _, outcome := range pulled {
						outcomes[outcome]++
					}
				}
				if got := p.list(t).pins; len(got) > 0 && got[name] != want.digest(t, "library/several:1") {
					t.Errorf("pinned are %v", got)
				}
				p.verify(t)

				remount(resource.room)
				together(t, 2, mirror, repository.name, "1", content)
				want.compare(t, "http://"+mirror)
				if step > 0 || !full() {
					// An image that failed rests for a while. A new process tries at once.
					server.stop()
					server = p.through(t, mirror)
				}
				p.complete(t, name)
				p.verify(t)
				server.stop()
			}
			t.Logf("%d %s are used beside an empty store; clients got %v", needed, resource.name, outcomes)
			if outcomes["whole"] == 0 || len(outcomes) == 1 {
				t.Errorf("the sweep does not go from too small to large enough: %v", outcomes)
			}
		})
	}
}
