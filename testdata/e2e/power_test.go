//go:build e2e

package e2e

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"mirrorctl/lockfile"
	"mirrorctl/store"
)

var powerCuts = flag.Int("powercuts", 100, "how many power cuts TestPowerCut tries; 0 is all")

// A power cut after any system call of a sync, one that moves pins, rm, gc,
// pull-through with a client, and verify --repair. From a trace of these a model
// makes the disks that may be left; the store opens each as it is, verify finds
// nothing, pins that were reported are there and whole, those that were reported
// as removed are not, and the lock is one of those that were written.
//
//	go test -tags e2e -count=1 -v -timeout 60m -run TestPowerCut ./testdata/e2e -powercuts 0
func TestPowerCut(t *testing.T) {
	seed := *seedValue
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-seed %d", seed)
	w := newPowered(t)
	steps := w.record()
	random := rand.New(rand.NewPCG(seed, 0))
	chance := 1.0
	if *powerCuts > 0 {
		calls := 0
		for _, s := range steps {
			for _, c := range s.calls {
				if !c.failed && !c.began && c.name != "read" && c.name != "lseek" && c.name != "close" { // or nearly so
					calls++
				}
			}
		}
		chance = float64(*powerCuts) / float64(calls*len(cuts(random)))
	}
	w.explore(steps, random, chance)
	if t.Failed() {
		return
	}
	t.Logf("seed %d: %d system calls changed the disk, %d power cuts tried %v, none lost or broke anything; %d pins, %d removals and %d locks were promised",
		seed, w.changes, w.tried, w.cuts, w.pinned, w.removed, w.locks)
}

// powered is a project on a disk that may lose its power.
type powered struct {
	*testing.T
	*project
	hub    *hub
	images map[string]*versions
	disk   *disk
	laid   string // folder for what a power cut leaves

	pins    map[string]string // promised: digests, or their first digits, by name
	gone    map[string]bool   // promised to be gone
	locked  bool              // a lock was promised
	decided string            // a digest that a client was told
	damaged string            // the digest of a blob that is damaged on purpose
	hurt    string            // the same, between that and its repair

	changes, tried         int
	cuts                   map[string]int
	pinned, removed, locks int
}

// step is a command that was traced.
type step struct {
	args  []string
	calls []systemCall
}

func newPowered(t *testing.T) *powered {
	w := &powered{
		T: t, hub: startHub(t, "distribution-3"), images: map[string]*versions{}, laid: tempDir(t),
		pins: map[string]string{}, gone: map[string]bool{}, cuts: map[string]int{},
	}
	check(t, syscall.Mount("tmpfs", w.laid, "tmpfs", 0, ""))
	t.Cleanup(func() { syscall.Unmount(w.laid, syscall.MNT_DETACH) })
	shared := randomLayer(t, 255, 40<<10)
	for i, name := range []string{"moves", "goes", "stays", "asked"} {
		v := newVersions(t, name, byte(8*i), shared)
		w.images[name] = v
		w.hub.push(t, v.repository)
	}
	w.project = newProject(t, w.hub.url(), "moves:1", "goes:1", "stays:1")
	w.project.store = filepath.Join(w.dir, "store")
	var err error
	w.disk, err = newDisk(w.dir)
	check(t, err)
	return w
}

// record runs the commands, one after the other, and traces them.
func (w *powered) record() (steps []step) {
	w.Helper()
	trace := func(during func(), args ...string) {
		file := filepath.Join(tempDir(w), "trace")
		name, all := w.command(args...)
		cmd := traceTo(file, name, all...)
		cmd.Dir = w.dir
		p := start(w, cmd)
		if during != nil {
			during()
			// strace would detach from its child at a signal of its own.
			children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", p.Process.Pid))
			check(w, err)
			child, err := strconv.Atoi(strings.TrimSpace(string(children)))
			check(w, err)
			check(w, syscall.Kill(child, syscall.SIGTERM))
		}
		if code := p.wait(w); code != exitDone {
			w.Fatalf("%q ended with exit code %d:\n%s", args, code, p.output())
		}
		steps = append(steps, step{args: args, calls: readTrace(w, file)})
	}
	trace(nil, "sync", "Dockerfile")
	c := &crashing{T: w.T, hub: w.hub, victims: []*versions{w.images["moves"]}}
	c.release()
	trace(nil, "sync", "--update=moves:1", "Dockerfile")
	trace(nil, "rm", "goes:1")
	trace(nil, "gc")
	listen := address()
	trace(func() {
		content := contents(w, w.images["asked"].repository)
		within(w, time.Minute, "the mirror answers", func() bool { return dial("tcp", listen)() == nil })
		if err := newPuller(listen, "library/asked", content).pull("1", "amd64"); err != nil {
			w.Error(err)
		}
		w.complete(w, w.images["asked"].full())
	}, "serve", "--listen", listen, "--access-log", "off", "--pull-through", "docker.io")
	blobs := w.images["stays"].blobs
	w.damaged = blobs[len(blobs)/2+1].digest // a layer of the second version that no other image has
	check(w, os.WriteFile(blobPath(w.store, w.damaged), []byte("damaged"), 0o444))
	trace(nil, "verify", "--repair")
	return steps
}

// explore replays the trace, and tries power cuts.
func (w *powered) explore(steps []step, random *rand.Rand, chance float64) {
	w.Helper()
	for _, s := range steps {
		r := &replay{disk: w.disk, root: w.dir, folder: w.dir, files: map[string]*opened{}, syncs: map[string]syncing{}}
		if s.args[0] == "rm" { // from now on it may be there or not
			delete(w.pins, w.images["goes"].full())
		}
		if slices.Contains(s.args, "--update=moves:1") {
			delete(w.pins, w.images["moves"].full())
		}
		if s.args[0] == "verify" {
			p, err := w.disk.find(blobPath("store", w.damaged))
			check(w, err)
			p.node().content, p.node().safe = []byte("damaged"), []byte("damaged")
			w.hurt = w.damaged
		}
		for _, c := range s.calls {
			changed, err := r.step(c)
			if err != nil {
				w.Fatalf("%q: %v", s.args, err)
			}
			if !changed {
				continue
			}
			w.changes++
			w.promises(r)
			kinds := cuts(random)
			for _, kind := range slices.Sorted(maps.Keys(kinds)) {
				if random.Float64() < chance {
					w.cut(kind, kinds[kind], fmt.Sprintf("after change %d, %s by %q", w.changes, c.name, s.args))
				}
				if w.Failed() {
					return
				}
			}
		}
	}
}

// promises notes what a program has said.
func (w *powered) promises(r *replay) {
	for line := range strings.Lines(r.said.String()) {
		if !strings.HasSuffix(line, "\n") {
			return // more of it comes
		}
		name, rest, _ := strings.Cut(strings.TrimPrefix(line, "mirrorctl: "), ": ")
		for _, word := range []string{"pinned ", "moved from "} {
			if _, said, ok := strings.Cut(rest, word); ok && strings.HasPrefix(rest, word) {
				if _, to, moved := strings.Cut(said, " to "); moved {
					said = to
				}
				w.pins[name], _, _ = strings.Cut(said, " ")
				w.pinned++
			}
		}
		if name == w.hurt && strings.HasPrefix(rest, "repaired") {
			w.hurt = ""
		}
		if strings.HasPrefix(rest, "removed from") {
			w.gone[name] = true
			w.removed++
		}
		if strings.Contains(line, "mirror.lock written") {
			w.locked = true
			w.locks++
		}
	}
	r.said.Reset()
	if r.answered != "" && w.decided == "" {
		w.decided = r.answered
	}
}

// cut lays out what a power cut leaves, and opens it.
func (w *powered) cut(kind string, c cut, where string) {
	w.Helper()
	w.tried++
	w.cuts[kind]++
	root := filepath.Join(w.laid, fmt.Sprint(w.tried))
	check(w, w.disk.lay(root, c))
	defer os.RemoveAll(root)
	fail := func(format string, args ...any) {
		w.Helper()
		w.Errorf("power cut %s, of what was not durable %s survives: %s", where, kind, fmt.Sprintf(format, args...))
	}

	lock, err := lockfile.Read(filepath.Join(root, "mirror.lock"))
	if err != nil && (w.locked || !errors.Is(err, fs.ErrNotExist)) {
		fail("%v", err)
	}
	if w.locked && len(lock.Images) < 2 {
		fail("the lock has %d images", len(lock.Images))
	}
	if _, err := os.Stat(filepath.Join(root, "store", "index.db")); err != nil && len(w.pins) == 0 {
		return // there is no store yet
	}
	st, err := store.Open(w.Context(), filepath.Join(root, "store"))
	if err != nil {
		fail("%v", err)
		return
	}
	defer st.Close()
	look := func(when string) {
		w.Helper()
		checked, err := st.Verify(w.Context(), nil, nil)
		for _, d := range checked.Damage {
			if d.Digest.String() != w.damaged || w.hurt == "" {
				fail("%sverify: %s is %s", when, d.Digest, d.Problem)
			}
		}
		if err != nil {
			fail("%sverify: %v", when, err)
		}
		pins, err := st.Pins(w.Context())
		check(w, err)
		list := map[string]string{}
		for _, pin := range pins {
			list[pin.Name()] = pin.Digest.String()
			if w.gone[pin.Name()] {
				fail("%s%s was reported as removed, and is there", when, pin.Name())
			}
		}
		if arrival, err := st.Arrival(w.Context(), store.Repository{Registry: "docker.io", Path: "library/asked"}, "1"); err == nil {
			list[arrival.Name()] = arrival.Digest.String()
		}
		if name := w.images["asked"].full(); list[name] != w.decided && w.decided != "" {
			fail("%sa client was told that %s is %s, and it is %q", when, name, w.decided, list[name])
		}
		for name, digest := range w.pins {
			if !strings.HasPrefix(list[name], digest) {
				fail("%s%s was reported as pinned to %s, and is %q", when, name, digest, list[name])
			}
		}
	}
	look("")
	if _, err := st.Collect(w.Context(), 0); err != nil {
		fail("gc: %v", err)
	}
	look("after gc, ")
}
