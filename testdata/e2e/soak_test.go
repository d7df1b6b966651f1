//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

var soakTime = flag.Duration("soak", 3*time.Second, "how long TestSoak goes on")

// Eight syncs of overlapping Dockerfiles, a mirror that fetches what is missing
// and one that only reads, clients of both, rm, gc, verify and ls, all on one
// store: none of them fails, no pin is lost, and no blob comes twice, counted at
// the registry, unless rm or gc has dropped it.
//
//	go test -tags e2e -count=1 -v -timeout 30m -run TestSoak ./testdata/e2e -soak 10m
func TestSoak(t *testing.T) {
	s := newSoak(t)
	ctx, stop := context.WithTimeout(t.Context(), *soakTime)
	defer stop()
	for i := range 8 {
		s.repeat(ctx, s.syncing(i))
	}
	for i := range 4 {
		s.repeat(ctx, s.pulling(s.through, fmt.Sprint("through", i), slices.Concat(s.kept, s.dropped, s.asked)))
	}
	for i := range 2 {
		s.repeat(ctx, s.pulling(s.mirror, fmt.Sprint("mirror", i), s.kept))
	}
	s.repeat(ctx, s.removing)
	s.repeat(ctx, s.collecting)
	s.repeat(ctx, s.verifying)
	s.repeat(ctx, s.listing)
	s.repeat(ctx, s.watching)
	s.group.Wait()
	s.finish()
}

// soak is what runs on one store, and what is counted of it.
type soak struct {
	*testing.T
	proxy    *proxy
	projects []*project // the last is nobody's sync
	through  string     // the mirror that fetches what is missing
	mirror   string     // the one that reads
	servers  []*process
	content  map[string][]byte

	kept    []*versions // are never removed
	dropped []*versions // are removed from time to time
	asked   []*versions // are in no Dockerfile, and removed too
	stands  map[string]string

	group sync.WaitGroup
	pulls atomic.Int64 // images
	bytes atomic.Int64 // that the clients got

	mu    sync.Mutex
	runs  map[string]int
	peak  map[string]float64 // MB, by command
	files int                // descriptors of a server, at most
	drops []drop
	freed int
}

// drop is a run of rm or gc that freed something.
type drop struct{ began, ended time.Time }

func newSoak(t *testing.T) *soak {
	s := &soak{T: t, content: map[string][]byte{}, runs: map[string]int{}, peak: map[string]float64{}, stands: map[string]string{}}
	hub := startHub(t, "distribution-3")
	shared, seed := randomLayer(t, 255, 700<<10), byte(0)
	some := func(n int, name string) (all []*versions) {
		for i := range n {
			v := newVersions(t, fmt.Sprint(name, i), seed, shared)
			hub.push(t, v.repository)
			maps.Copy(s.content, contents(t, v.repository))
			all, seed = append(all, v), seed+8
		}
		return all
	}
	s.kept, s.dropped, s.asked = some(5, "kept"), some(5, "dropped"), some(3, "asked")
	s.proxy = startProxy(t, hub.url())
	s.proxy.rate.Store(4 * mebi)
	for range 9 {
		p := newProject(t, s.proxy.url())
		p.env = []string{"GORACE=atexit_sleep_ms=0"} // a second for each command otherwise
		if len(s.projects) > 0 {
			p.store = s.projects[0].store
		}
		s.projects = append(s.projects, p)
	}
	p := s.projects[8]
	p.must(t, append([]string{"add"}, images(s.kept...)...)...)
	for _, v := range s.kept {
		s.stands[v.full()] = v.tags[len(v.tags)-1].manifest.Digest // the last release
	}
	s.through, s.mirror = address(), address()
	s.servers = []*process{p.through(t, s.through), p.server(t, s.mirror, "--access-log", "off")}
	return s
}

// repeat does something again and again until ctx ends.
func (s *soak) repeat(ctx context.Context, do func()) {
	s.group.Go(func() {
		for ctx.Err() == nil && !s.Failed() {
			do()
		}
	})
}

// run runs a command of a project to its end and returns what it printed. It must
// exit with one of the codes.
func (s *soak) run(p *project, codes []int, args ...string) (stdout, stderr string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	name, all := p.command(args...)
	cmd := exec.CommandContext(ctx, name, all...)
	var out, complaints bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.Env = p.dir, &out, &complaints, append(os.Environ(), p.env...)
	err := cmd.Run()
	if cmd.ProcessState == nil {
		s.Error(err)
		return "", ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs[args[0]]++
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		s.peak[args[0]] = max(s.peak[args[0]], float64(usage.Maxrss)*1024/1e6)
	}
	if code := cmd.ProcessState.ExitCode(); !slices.Contains(codes, code) || unwell(complaints.String()) {
		s.Errorf("%v\nexit code %d: %v\nstdout: %s\nstderr: %s", cmd, code, ctx.Err(), tail(out.String(), 2000), tail(complaints.String(), 4000))
	}
	return out.String(), complaints.String()
}

// unwell finds in what a program printed what it must never say.
func unwell(text string) bool {
	return regexp.MustCompile(`(?i)database is locked|database table is locked|disk I/O error|malformed|DATA RACE|panic|fatal error|deadlock`).MatchString(text)
}

// syncing syncs other images each time, and forgets the lock every fourth time.
func (s *soak) syncing(i int) func() {
	p, all := s.projects[i], slices.Concat(s.kept, s.dropped)
	return func() {
		var needs []*versions
		for _, at := range rand.Perm(len(all))[:1+rand.IntN(len(all))] {
			needs = append(needs, all[at])
		}
		p.needs(s, images(needs...)...)
		if rand.IntN(4) == 0 {
			_ = os.Remove(path.Join(p.dir, "mirror.lock")) // there may be none
		}
		s.run(p, []int{exitDone}, "sync", "Dockerfile")
		locked := p.lock(s)
		for _, v := range needs {
			if locked[v.full()] == "" {
				s.Errorf("%s is not locked after a sync", v.full())
			}
		}
	}
}

func (s *soak) pulling(mirror, client string, all []*versions) func() {
	return func() {
		v := all[rand.IntN(len(all))]
		p := newPuller(mirror, v.name, s.content)
		arch := []string{"amd64", "arm64"}[rand.IntN(2)]
		if err := p.pull("1", arch); err != nil {
			s.Errorf("client %s: %s for %s: %v", client, v.full(), arch, err)
		}
		s.pulls.Add(1)
		s.bytes.Add(p.received.Load())
	}
}

var freedFiles = regexp.MustCompile(`([0-9]+) files?`)

// dropping runs what may free content.
func (s *soak) dropping(codes []int, args ...string) {
	began := time.Now()
	_, said := s.run(s.projects[8], codes, args...)
	for _, match := range freedFiles.FindAllStringSubmatch(said, -1) {
		if match[1] != "0" {
			s.mu.Lock()
			s.drops, s.freed = append(s.drops, drop{began, time.Now()}), s.freed+1
			s.mu.Unlock()
		}
	}
}

func (s *soak) removing() {
	time.Sleep(rand.N(300 * time.Millisecond))
	all := slices.Concat(s.dropped, s.asked)
	v := all[rand.IntN(len(all))]
	image := v.image()
	if rand.IntN(3) == 0 { // which clients ask for that had the tag's digest before it was removed
		image = strings.TrimSuffix(image, ":1") + "@" + v.manifests[rand.IntN(len(v.manifests))].Digest
	}
	s.dropping([]int{exitDone, exitFailure}, "rm", image) // it may not be there
}

func (s *soak) collecting() {
	time.Sleep(rand.N(500 * time.Millisecond))
	args := []string{"gc"}
	if rand.IntN(2) == 0 {
		args = append(args, "--orphans")
	}
	s.dropping([]int{exitDone}, args...)
}

func (s *soak) verifying() {
	time.Sleep(rand.N(500 * time.Millisecond))
	s.run(s.projects[8], []int{exitDone}, "verify")
}

func (s *soak) listing() {
	time.Sleep(rand.N(300 * time.Millisecond))
	list, _ := s.run(s.projects[8], []int{exitDone}, "ls", "--digests")
	found := map[string]string{}
	for line := range strings.Lines(list) {
		var name, digest string
		fmt.Sscan(line, &name, &digest)
		found[name] = digest
	}
	for name, digest := range s.stands {
		if found[name] != digest {
			s.Errorf("%s was %s and is %q:\n%s", name, digest, found[name], list)
		}
	}
}

// watching counts what the servers have open.
func (s *soak) watching() {
	time.Sleep(100 * time.Millisecond)
	for _, server := range s.servers {
		open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", server.Process.Pid))
		if err != nil {
			s.Error(err)
			return
		}
		_, peak := memory(s, server)
		s.mu.Lock()
		s.files = max(s.files, len(open))
		s.peak["serve"] = max(s.peak["serve"], peak)
		s.mu.Unlock()
	}
}

// finish checks what is left, and counts.
func (s *soak) finish() {
	p := s.projects[8]
	for _, server := range s.servers {
		server.stop()
		if code := server.wait(s); code != exitDone || unwell(server.output()) {
			s.Errorf("%s ended with exit code %d:\n%s", server, code, tail(server.output(), 4000))
		}
	}
	s.listing()
	p.verify(s)
	kept := map[string]bool{}
	for _, v := range s.kept {
		for _, b := range v.blobs {
			kept[b.digest] = true
		}
	}
	byBlob := map[string][]request{}
	for _, r := range s.proxy.seen("GET", "/blobs/") {
		byBlob[path.Base(r.path)] = append(byBlob[path.Base(r.path)], r)
	}
	transfers, again := 0, 0
	for digest, requests := range byBlob {
		slices.SortFunc(requests, func(a, b request) int { return a.began.Compare(b.began) })
		transfers += len(requests)
		again += len(requests) - 1
		if kept[digest] && len(requests) > 1 {
			s.Errorf("%s was never dropped, and came %d times", digest, len(requests))
		}
		for i, r := range requests[1:] {
			before := requests[i]
			if whole := before.bytes == int64(len(s.content[digest])); whole && !s.droppedBetween(before.ended, r.began) {
				s.Errorf("%s came again (%d, %d bytes, Range %q), %v after it had come (%d, %d bytes), and nothing was dropped meanwhile",
					digest, r.status, r.bytes, r.ranges, r.began.Sub(before.ended), before.status, before.bytes)
			}
		}
	}
	if s.Failed() {
		return
	}
	all := s.proxy.seen("", "")
	s.Logf("%v: %v runs; %d images of %.1f GB pulled by clients; at the registry %d requests, %d transfers of %d blobs with %.1f MB, %d of them again after rm or gc had dropped something (%d times), none twice; no errors; peak memory in MB %v; a server had at most %d descriptors",
		*soakTime, s.runs, s.pulls.Load(), float64(s.bytes.Load())/1e9, len(all), transfers, len(byBlob), float64(sent(s.proxy.seen("GET", "/blobs/")))/1e6,
		again, s.freed, s.peak, s.files)
}

// droppedBetween reports whether rm or gc may have dropped something between two moments.
func (s *soak) droppedBetween(from, to time.Time) bool {
	if from.IsZero() || to.Before(from) { // the transfer before has not ended
		return false
	}
	return slices.ContainsFunc(s.drops, func(d drop) bool { return d.ended.After(from) && d.began.Before(to) })
}
