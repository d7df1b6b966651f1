//go:build e2e

package e2e

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

// tmpfs mounts a file system of a given size where the project's store is. The
// mount is seen in the sandbox only.
func tmpfs(t *testing.T, p *project, options string) (remount func(flags uintptr, options string)) {
	t.Helper()
	p.store = tempDir(t)
	check(t, syscall.Mount("tmpfs", p.store, "tmpfs", 0, options))
	t.Cleanup(func() { syscall.Unmount(p.store, syscall.MNT_DETACH) })
	return func(flags uintptr, options string) {
		t.Helper()
		check(t, syscall.Mount("tmpfs", p.store, "tmpfs", syscall.MS_REMOUNT|flags, options))
	}
}

// says checks that a failed run says all of it on stderr.
func says(t *testing.T, r result, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(r.stderr, word) {
			t.Errorf("the message lacks %q:\n%v", word, r)
		}
	}
}

func TestReadOnlyStore(t *testing.T) {
	hub := startHub(t, "distribution-3", busybox(t))
	project := newProject(t, hub.url(), "busybox:1.35")
	remount := tmpfs(t, project, "size=64m")

	remount(syscall.MS_RDONLY, "size=64m")
	r := project.mirrorctl(t, "sync", "Dockerfile")
	if r.code != exitFailure && r.code != exitSome {
		t.Errorf("sync into an empty read-only folder: %v", r)
	}
	says(t, r, project.store, "read-only file system")

	remount(0, "size=64m")
	project.must(t, "sync", "Dockerfile")
	before := project.lock(t)

	// A filled store that can no longer be written.
	remount(syscall.MS_RDONLY, "size=64m")
	project.needs(t, "busybox:1.35", "busybox:1.35-zstd")
	r = project.mirrorctl(t, "sync", "Dockerfile")
	if r.code != exitFailure && r.code != exitSome {
		t.Errorf("sync into a filled read-only folder: %v", r)
	}
	says(t, r, "read-only")
	if names := changed(before, project.lock(t)); names != nil {
		t.Errorf("a sync that could store nothing changed the lock of %v", names)
	}

	remount(0, "size=64m")
	project.must(t, "sync", "Dockerfile")
	project.verify(t)
}

// The disk fills up during a sync: the image that did not fit says so, the
// others are done, and after space was made the next sync completes.
func TestFullDisk(t *testing.T) {
	repository, layer := large(t, 24*mebi)
	hub := startHub(t, "distribution-3", busybox(t), repository)
	proxy := startProxy(t, hub.url())
	// busybox has its 2 MiB before large has filled the disk.
	proxy.rate.Store(8 * mebi)
	project := newProject(t, proxy.url(), "large:1", "busybox:1.35")
	remount := tmpfs(t, project, "size=8m")

	r := project.mirrorctl(t, "sync", "Dockerfile")
	if r.code != exitSome {
		t.Errorf("sync on a full disk: %v", r)
	}
	says(t, r, "large", "no space left on device")
	list := project.must(t, "ls")
	if !strings.Contains(list, "busybox") || strings.Contains(list, "large") {
		t.Errorf("ls after the disk was full:\n%s", list)
	}
	lock := project.lock(t)
	if len(lock) != 1 || lock["docker.io/library/busybox:1.35"] == "" {
		t.Errorf("the lock after the disk was full: %v", lock)
	}
	mirror := project.serve(t)
	hub.record(t, "library/busybox:1.35").compare(t, "http://"+mirror)
	if got := answers(t, mirror, "library/large:1"); got != "404" {
		t.Errorf("the mirror answers %s for the image that did not fit", got)
	}

	remount(0, "size=64m")
	project.must(t, "sync", "Dockerfile")
	within(t, 100*time.Millisecond, "the mirror has the image", func() bool {
		return answers(t, mirror, "library/large:1") != "404"
	})
	if digest, _ := hashFile(t, blobPath(project.store, layer.Digest)); digest != layer.Digest {
		t.Errorf("the stored layer is %s, want %s", digest, layer.Digest)
	}
	project.verify(t)
}
