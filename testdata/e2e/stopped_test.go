//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// stopWriting stops a process while it has the lock of those who write to the
// index; false if it ended before. A transaction takes a millisecond or less, so
// this stops it at random moments until it was one.
func (p *project) stopWriting(t *testing.T, writer *process, random *rand.Rand) bool {
	t.Helper()
	for writer.running() {
		time.Sleep(time.Duration(random.Int64N(int64(2 * time.Millisecond))))
		writer.Process.Signal(syscall.SIGSTOP)
		if p.writes(t, writer.Process.Pid) {
			return true
		}
		writer.Process.Signal(syscall.SIGCONT)
	}
	return false
}

// writes reports whether a process has the lock of writers, which is byte 120 of
// the WAL's index (https://sqlite.org/walformat.html#locks).
func (p *project) writes(t *testing.T, pid int) bool {
	t.Helper()
	var stat unix.Stat_t
	if unix.Stat(filepath.Join(p.store, "index.db-shm"), &stat) != nil {
		return false
	}
	list, err := os.ReadFile("/proc/locks")
	check(t, err)
	held := fmt.Sprintf(" %d %02x:%02x:%d 120 120\n", pid, unix.Major(stat.Dev), unix.Minor(stat.Dev), stat.Ino)
	return bytes.Contains(list, []byte(held))
}

// A sync is stopped (Ctrl-Z) just as it writes to the index. Others read, also
// those that start only now; who wants to write waits for it, and is told for whom
// if it takes too long.
func TestStoppedWriter(t *testing.T) {
	tries, patient := 2, 0
	if full() {
		tries, patient = 10, 1
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	hub := startHub(t, "distribution-3", busybox(t), layered(t))
	upstream := hub.record(t, "library/busybox:1.35")
	whole := hub.record(t, "library/busybox:1.35", "library/layered:41")
	project := newProject(t, hub.url(), "busybox:1.35")
	project.must(t, "sync", "Dockerfile")
	mirror := project.serve(t)

	stopped := 0
	for stopped < tries {
		project.needs(t, "busybox:1.35", "layered:41")
		first := project.begin(t, "sync", "Dockerfile")
		if project.stopWriting(t, first, random) {
			stopped++
			began := time.Now()
			if list := project.must(t, "ls"); !strings.Contains(list, "busybox") {
				t.Errorf("ls beside a stopped sync:\n%s", list)
			}
			project.verify(t)
			late := project.server(t, address(), "--access-log", "off")
			for _, address := range []string{mirror, late.Args[slices.Index(late.Args, "--listen")+1]} {
				upstream.compare(t, "http://"+address)
			}
			late.stop()
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("beside a stopped sync the others took %v", took)
			}
			if stopped <= patient {
				r := project.mirrorctl(t, "rm", "busybox:1.35")
				if r.code != exitFailure {
					t.Errorf("rm beside a stopped sync: %v", r)
				}
				says(t, r, "index.db has been locked by another process", fmt.Sprintf("process %d (mirrorctl), which is stopped: let it go on (kill -CONT %[1]d) or end it", first.Process.Pid))
				t.Logf("rm said: %s", r.stderr)
			}
			second := project.begin(t, "sync", "Dockerfile")
			time.Sleep(50 * time.Millisecond)
			if !second.running() && second.ProcessState.ExitCode() == exitDone {
				t.Error("a sync had nothing to wait for")
			}
			first.Process.Signal(syscall.SIGCONT)
			if code := second.wait(t); code != exitDone {
				t.Errorf("a sync that had to wait ends with %d: %s", code, second.output())
			}
		}
		if code := first.wait(t); code != exitDone {
			t.Errorf("a sync that was stopped for a while ends with %d: %s", code, first.output())
		}
		whole.compare(t, "http://"+mirror)
		project.verify(t)
		project.must(t, "rm", "layered:41")
		project.must(t, "gc", "--partials-older-than", "0s")
	}
}
