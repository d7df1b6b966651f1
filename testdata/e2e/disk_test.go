//go:build e2e

package e2e

import (
	"net/http"
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

// The store turns read-only under running mirrors: what they have they go on to
// serve, what a pull-through lacks is trouble that passes, and passes.
func TestStoreTurnsReadOnly(t *testing.T) {
	repository := several(t, 1, 300e3, "1")
	content := contents(t, repository)
	hub := startHub(t, "distribution-3", busybox(t), repository)
	here, missing := hub.record(t, "library/busybox:1.35"), hub.record(t, "library/several:1")
	project := newProject(t, hub.url(), "busybox:1.35")
	project.must(t, "sync", "Dockerfile")
	mirror, through := project.serve(t), address()
	server := project.through(t, through)

	// The kernel refuses to make a file system read-only in which files are open
	// for writing; a mount on top of it does so for all that is opened from now on.
	check(t, syscall.Mount(project.store, project.store, "", syscall.MS_BIND, ""))
	t.Cleanup(func() { syscall.Unmount(project.store, syscall.MNT_DETACH) })
	check(t, syscall.Mount("", project.store, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	for range 2 {
		for _, address := range []string{mirror, through} {
			here.compare(t, "http://"+address)
		}
		if got := answers(t, mirror, "library/several:1"); got != "404" {
			t.Errorf("the mirror answers %s for what it does not have", got)
		}
		for _, d := range repository.manifests {
			answer := get(t, "http://"+through+"/v2/library/several/manifests/"+d.Digest)
			if answer.StatusCode == http.StatusOK && digestOf(answer.body) == d.Digest {
				continue // it may pass on what it need not write
			}
			if answer.StatusCode != http.StatusServiceUnavailable || answer.Header.Get("Retry-After") == "" {
				t.Errorf("the pull-through answers %s for manifest %s, Retry-After %q", answer.Status, d.Digest, answer.Header.Get("Retry-After"))
			}
		}
		if err := newPuller(through, repository.name, content).pull("1", "amd64"); err == nil || !strings.Contains(err.Error(), "503") {
			t.Errorf("a pull of what is missing ends with %v, want 503", err)
		}
	}
	if list := project.must(t, "ls"); !strings.Contains(list, "busybox") {
		t.Errorf("ls of a store that turned read-only:\n%s", list)
	}
	project.verify(t)

	check(t, syscall.Unmount(project.store, syscall.MNT_DETACH))
	together(t, 2, through, repository.name, "1", content)
	missing.compare(t, "http://"+through)
	// The image as a whole rests after its failure. A new process tries at once.
	server.stop()
	project.through(t, through)
	project.complete(t, "docker.io/library/several:1")
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
