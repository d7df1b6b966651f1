//go:build e2e

package e2e

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	killCount = flag.Int("kills", 5, "how many processes TestCrash kills")
	seedValue = flag.Uint64("seed", 0, "of what TestCrash chooses by chance; 0 is another one each time")
)

// kill -9 at random moments of sync, of serve with pull-through and clients, of
// rm, gc and verify --repair, while another sync and clients of another mirror
// use the store. After each kill a new process opens the store as it is, verify
// finds nothing, what was reported as done is there, nothing half-done shows, and
// the next run transfers what is missing and no more.
//
//	go test -tags e2e -count=1 -v -run TestCrash ./testdata/e2e -kills 500 -seed 1
func TestCrash(t *testing.T) {
	seed := *seedValue
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-seed %d", seed)
	c := newCrashing(t, seed)
	stop := c.load()
	rounds := []struct {
		command string
		run     func() bool
	}{
		{"sync", c.killSync}, {"pull-through", c.killThrough}, {"rm", c.killRemove}, {"gc", c.killCollect}, {"verify --repair", c.killRepair},
	}
	killed := 0
	for i := 0; killed < *killCount; i++ {
		r := rounds[i%len(rounds)]
		c.release()
		if r.run() {
			c.kills[r.command]++
			if killed++; killed%50 == 0 {
				t.Logf("%d kills: %v", killed, c.kills)
			}
		}
		if t.Failed() {
			t.Fatalf("round %d, %s", i, r.command)
		}
		c.reset()
		if t.Failed() {
			t.Fatalf("round %d, after %s", i, r.command)
		}
	}
	t.Logf("seed %d: %d of %d kills survived %v; %d pins reported, 0 lost; of blobs %.1f MB were on the disk, and %.1f MB came after, none twice; %d manifests that were being written came again; %d images pulled meanwhile, all whole",
		seed, killed, *killCount, c.kills, c.pins, float64(c.kept)/1e6, float64(c.after)/1e6, c.again, c.pulled+stop())
}

// load lets a client pull the anchor from the mirror all the time.
func (c *crashing) load() (stop func() int) {
	pulls, end, done := 0, make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-end:
				return
			case <-time.After(20 * time.Millisecond):
			}
			if err := newPuller(c.mirror, c.anchor.name, c.content).pull("1", "amd64"); err != nil {
				c.Errorf("the anchor: %v", err)
			}
			pulls++
		}
	}()
	stop = sync.OnceValue(func() int {
		close(end)
		<-done
		return pulls
	})
	c.Cleanup(func() { stop() })
	return stop
}

// killed starts a command, kills it at a random moment, and returns it, or false
// if it ended before. Another sync runs meanwhile, every other time.
func (c *crashing) killed(what string, needs []*versions, args ...string) (*process, bool) {
	c.Helper()
	var beside *process
	if len(needs) > 0 && c.random.IntN(2) == 0 {
		c.bystander.needs(c, images(needs...)...)
		beside = c.bystander.begin(c, "sync", "Dockerfile")
	}
	p := c.project.begin(c, args...)
	select {
	case <-p.done:
	case <-time.After(c.moment(what)):
		p.kill()
	}
	if beside != nil {
		if code := beside.wait(c); code != exitDone {
			c.Errorf("the sync beside it ended with exit code %d", code)
		}
	}
	return p, !p.ProcessState.Exited()
}

// moment is a random one of those that a command takes.
func (c *crashing) moment(what string) time.Duration {
	limit, known := c.took[what]
	if !known {
		limit = 100 * time.Millisecond
	}
	return time.Duration(c.random.Int64N(int64(limit)))
}

// timed runs something and notes how long it took.
func (c *crashing) timed(what string, run func()) {
	began := time.Now()
	run()
	c.took[what] = time.Since(began)
}

// survived checks the store after a kill.
func (c *crashing) survived(p *process, before, done map[string]string) listed {
	c.Helper()
	list := c.list(c)
	c.project.verify(c)
	c.stands("before the kill", list.pins, before)
	c.stands(p.String()+" had said so", list.pins, done)
	c.whole(list)
	c.pins += len(done)
	return list
}

func (c *crashing) killSync() bool {
	before := c.list(c).pins
	c.project.needs(c, images(c.victims...)...)
	p, killed := c.killed("sync", append(c.others, c.victims[0]), "sync", "Dockerfile")
	list := c.survived(p, before, reported(p, "pinned|fetched|locked"))
	c.resync(list.pins)
	return killed
}

// resync syncs all victims and checks that those which are pinned stay as they are.
func (c *crashing) resync(pins map[string]string) {
	c.Helper()
	c.project.needs(c, images(c.victims...)...)
	c.frugal(func() {
		c.timed("sync", func() { c.project.must(c, "sync", "Dockerfile") })
	})
	list := c.list(c)
	c.project.verify(c)
	c.stands("before the sync", list.pins, pins)
	locked := c.project.lock(c)
	for _, v := range c.victims {
		if _, there := list.pins[v.full()]; !there || locked[v.full()] == "" {
			c.Errorf("%s is not pinned and locked after a sync", v.full())
		}
	}
	c.whole(list)
}

func (c *crashing) killThrough() bool {
	before, listen := c.list(c).pins, address()
	server := c.project.through(c, listen)
	var group sync.WaitGroup
	var mu sync.Mutex
	decided := map[string]string{} // what clients were told
	clients := func(complain bool) {
		for _, v := range c.victims {
			for range 2 {
				group.Go(func() {
					p := newPuller(listen, v.name, c.content)
					if err := p.pull("1", "amd64"); err != nil && complain {
						c.Errorf("%s after a restart: %v", v.full(), err)
					}
					mu.Lock()
					defer mu.Unlock()
					if was, there := decided[v.full()]; there && p.digest != "" && was != p.digest {
						c.Errorf("%s was %s and became %s", v.full(), was, p.digest)
					} else if p.digest != "" {
						decided[v.full()] = p.digest
					}
				})
			}
		}
	}
	clients(false)
	time.Sleep(c.moment("pull-through"))
	server.kill()
	group.Wait()
	list := c.survived(server, before, nil)
	known := maps.Clone(list.arrivals)
	maps.Copy(known, list.pins)
	c.stands("a client was told so", known, decided)
	c.pins += len(decided)

	c.release() // what was decided stays decided
	c.frugal(func() {
		server = c.project.through(c, listen)
		c.timed("pull-through", func() {
			clients(true)
			group.Wait()
			for _, v := range c.victims {
				c.project.complete(c, v.full())
			}
		})
		server.stop()
	})
	list = c.list(c)
	c.project.verify(c)
	c.stands("a client was told so", list.pins, decided)
	c.whole(list)
	return true
}

func (c *crashing) killRemove() bool {
	c.project.needs(c, images(c.victims...)...)
	c.project.must(c, "sync", "Dockerfile")
	before := c.list(c).pins
	p, killed := c.killed("rm", c.others, append([]string{"rm"}, images(c.victims...)...)...)
	removed := reported(p, "removed from")
	for _, v := range c.victims {
		delete(before, v.full())
	}
	list := c.survived(p, before, nil)
	for name := range removed {
		if _, there := list.pins[name]; there {
			c.Errorf("%s was reported as removed and is there", name)
		}
	}
	c.resync(list.pins)
	return killed
}

func (c *crashing) killCollect() bool {
	// There is most to collect after a sync that was killed.
	c.project.needs(c, images(c.victims...)...)
	if p, killed := c.killed("sync", nil, "sync", "Dockerfile"); !killed {
		c.project.must(c, append([]string{"rm"}, images(c.victims...)...)...)
	} else if c.random.IntN(2) == 0 {
		for name := range reported(p, "pinned|fetched|locked") {
			c.project.must(c, "rm", name)
		}
	}
	before, args := c.list(c).pins, []string{"gc"}
	if c.random.IntN(2) == 0 {
		args = append(args, "--partials-older-than", "0s")
	}
	if c.random.IntN(2) == 0 {
		args = append(args, "--orphans")
	}
	p, killed := c.killed("gc", c.others, args...)
	list := c.survived(p, before, nil)
	c.resync(list.pins)
	return killed
}

func (c *crashing) killRepair() bool {
	c.project.needs(c, images(c.victims...)...)
	c.project.must(c, "sync", "Dockerfile")
	before := c.list(c).pins
	damaged := map[string]bool{}
	for _, v := range c.victims {
		for range 2 {
			// Nothing that the anchor has too.
			b := v.blobs[c.random.IntN(len(v.blobs))]
			_, err := os.Stat(blobPath(c.project.store, b.digest))
			if err == nil && !damaged[b.digest] && !c.anchor.has(b.digest) {
				c.damage(b.digest)
				damaged[b.digest] = true
			}
		}
	}
	p, killed := c.killed("verify", c.others, "verify", "--repair")
	list := c.list(c)
	c.stands("before the kill", list.pins, before)
	// What is damaged now was damaged before, and not reported as repaired.
	still := c.project.mirrorctl(c, "verify")
	for digest := range damaged {
		if strings.Contains(still.stderr, digest+": ") && strings.Contains(p.output(), digest+": repaired") {
			c.Errorf("%s was reported as repaired, and is damaged", digest)
		}
		if !strings.Contains(still.stderr, digest+": ") {
			delete(damaged, digest)
		}
	}
	if want := fmt.Sprintf(", %d damaged", len(damaged)); !strings.Contains(still.stderr, want) {
		c.Errorf("%q is expected:\n%v", want, still)
	}
	for digest := range damaged {
		// That is damage too, and what frugal finds is then all that came again.
		check(c, os.RemoveAll(blobPath(c.project.store, digest)))
	}
	c.frugal(func() { c.timed("verify", func() { c.project.must(c, "verify", "--repair") }) })
	c.whole(c.survived(p, before, nil))
	c.resync(before)
	return killed
}

// has reports whether a blob is of the image.
func (v *versions) has(digest string) bool {
	return slices.ContainsFunc(v.blobs, func(b blob) bool { return b.digest == digest })
}

// damage flips a bit of a blob, cuts it off, or removes it.
func (c *crashing) damage(digest string) {
	c.Helper()
	name := blobPath(c.project.store, digest)
	switch c.random.IntN(3) {
	case 0:
		check(c, os.Remove(name))
	case 1:
		check(c, os.Truncate(name, c.random.Int64N(c.size[digest])))
	default:
		file, err := os.OpenFile(name, os.O_RDWR, 0)
		check(c, err)
		defer file.Close()
		at, bit := c.random.Int64N(c.size[digest]), make([]byte, 1)
		_, err = file.ReadAt(bit, at)
		check(c, err)
		bit[0] ^= 1 << c.random.IntN(8)
		_, err = file.WriteAt(bit, at)
		check(c, err)
	}
}
