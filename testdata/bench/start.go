package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// A program is a command whose whole run is measured.
type program struct {
	name string
	dir  string
	args []string
}

// The sizes of what starts measures.
const (
	lockedImages = 200
	foundFiles   = 1000
)

// starts measures what it costs to start a program, and what of mirrorctl is to be
// little more than that.
func starts(ctx context.Context, b *bench) error {
	hello := filepath.Join(b.dir, "hello")
	source, err := write(b.dir, "hello.go", "package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Println(\"hello\") }\n")
	if err != nil {
		return err
	}
	if _, err := command(ctx, b.dir, "go", "build", "-o", hello, source); err != nil {
		return err
	}
	idle, requests, stop, err := b.stored(ctx)
	if err != nil {
		return err
	}
	defer stop()
	one, many := filepath.Join(b.dir, "one"), filepath.Join(b.dir, "many")
	if err := errors.Join(dockerfiles(one, 1), dockerfiles(many, foundFiles)); err != nil {
		return err
	}
	all := []program{{"hello, world in Go", b.dir, []string{hello}}}
	for _, m := range []struct{ name, path string }{{"mirrorctl", b.mirrorctl}, {"before", b.before}} {
		if m.path == "" {
			continue
		}
		all = append(all,
			program{m.name + " --version", b.dir, []string{m.path, "--version"}},
			program{m.name + " find, one Dockerfile", one, []string{m.path, "find"}},
			program{fmt.Sprintf("%s find, %d Dockerfiles", m.name, foundFiles), many, []string{m.path, "find"}},
			program{fmt.Sprintf("%s sync, %d images locked and stored", m.name, lockedImages), idle, []string{m.path, "--store", filepath.Join(idle, "store"), "sync"}})
	}
	for _, args := range [][]string{{"regctl", "version"}, {"crane", "version"}, {"skopeo", "--version"}, {"docker", "--version"}} {
		if path, ok := installed(args[0]); ok {
			all = append(all, program{args[0] + " " + args[1], b.dir, append([]string{path}, args[1:]...)})
		}
	}
	t := newTable("Start", column{"ms", "%.1f", true}, column{"processor time, ms", "%.1f", true})
	before := requests.Load()
	err = turns(4*b.rounds, all, func(p program) error {
		cmd := exec.CommandContext(ctx, p.args[0], p.args[1:]...)
		cmd.Dir = p.dir
		began := time.Now()
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", p.name, err, out)
		}
		took := time.Since(began)
		t.add(p.name, float64(took)/1e6, float64(cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())/1e6)
		return nil
	})
	if err != nil {
		return err
	}
	if n := requests.Load() - before; n > 0 {
		return fmt.Errorf("a sync of what is stored made %d requests", n)
	}
	var names []string
	for _, p := range all {
		names = append(names, p.name)
	}
	t.print(b.out, names)
	return nil
}

// stored makes a project whose images are all locked and stored, and counts the
// requests to their registry.
func (b *bench) stored(ctx context.Context) (dir string, requests *atomic.Int64, stop func(), err error) {
	dir = filepath.Join(b.dir, "idle")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return "", nil, nil, err
	}
	handler, requests := sourceHandler(dir), new(atomic.Int64)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		handler.ServeHTTP(w, r)
	}))
	for i := range lockedImages {
		index, err := random.Index(200, 2, 2)
		if err != nil {
			return "", nil, nil, err
		}
		ref, err := name.NewTag(fmt.Sprintf("%s/library/image%d:latest", server.Listener.Addr(), i), name.Insecure)
		if err == nil {
			err = remote.WriteIndex(ref, index, remote.WithContext(ctx))
		}
		if err != nil {
			server.Close()
			return "", nil, nil, err
		}
	}
	_, err = write(dir, "mirrorctl.toml", "[registry.\"docker.io\"]\nurl = %q\n", server.URL)
	if err = errors.Join(err, dockerfiles(dir, lockedImages)); err == nil {
		_, err = command(ctx, dir, b.mirrorctl, "--store", filepath.Join(dir, "store"), "sync", "--quiet")
	}
	if err != nil {
		server.Close()
		return "", nil, nil, err
	}
	return dir, requests, server.Close, nil
}

// dockerfiles writes n of them, each with an image of its own.
func dockerfiles(dir string, n int) error {
	for i := range n {
		_, err := write(filepath.Join(dir, fmt.Sprint("part", i)), "Dockerfile",
			"ARG BASE=image%d\nFROM ${BASE} AS build\nRUN make\nFROM scratch\nCOPY --from=build /out /out\n", i)
		if err != nil {
			return err
		}
	}
	return nil
}
