// Bench compares mirrorctl with the registries and the tools that are installed
// on this machine, on the same images and in the same run:
//
//	make bench
//	go run ./testdata/bench -only manifest,blob -rounds 9
//
// Every figure is a median of rounds in which the order of the programs changes,
// so that nobody always comes after the same one. Processor time is that of all
// processes of a server, user and system, and depends less on what else the
// machine does than the time on the clock; compare both within a table only.
//
// Needed are wrk and nginx (apt-get install wrk nginx-light). Used if they are
// in PATH: docker-registry (distribution 2.8), registry (distribution 3), olareg,
// zot, regctl, crane, skopeo.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are what the command line says.
type options struct {
	mirrorctl string
	before    string
	rounds    int
	seconds   int
	blob      int64 // bytes
	pins      int
	only      []string
}

// A part is one subject of comparison; it writes tables.
type part struct {
	name string
	run  func(context.Context, *bench) error
}

var parts = []part{
	{"manifest", manifests},
	{"blob", blobs},
	{"start", starts},
	{"scale", scale},
}

// bench is one run.
type bench struct {
	options
	dir string // for everything, removed at the end
	out io.Writer
}

func main() {
	if len(os.Args) == 4 && os.Args[1] == bareCommand {
		fail(serveBare(os.Args[2], os.Args[3]))
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var o options
	var only string
	flag.StringVar(&o.mirrorctl, "mirrorctl", "", "the `PROGRAM` to measure; otherwise it is built")
	flag.StringVar(&o.before, "before", "", "another mirrorctl `PROGRAM` to compare it with")
	flag.IntVar(&o.rounds, "rounds", 5, "how often everything is measured")
	flag.IntVar(&o.seconds, "seconds", 2, "for how long requests are sent in a round")
	flag.Int64Var(&o.blob, "blob", 1<<30, "the size of the large blob in bytes")
	flag.IntVar(&o.pins, "pins", 100_000, "the size of the large store in pins")
	flag.StringVar(&only, "only", "", "the parts to run, of manifest, blob, start and scale")
	flag.Parse()
	if only != "" {
		o.only = strings.Split(only, ",")
	}
	fail(run(ctx, o))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	b := &bench{options: o, out: os.Stdout}
	for _, name := range b.only {
		if !slices.ContainsFunc(parts, func(p part) bool { return p.name == name }) {
			return fmt.Errorf("no part %q", name)
		}
	}
	if b.dir, err = os.MkdirTemp("", "mirrorctl-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if b.mirrorctl == "" {
		b.mirrorctl = filepath.Join(b.dir, "mirrorctl")
		if out, err := exec.CommandContext(ctx, "go", "build", "-o", b.mirrorctl, "mirrorctl").CombinedOutput(); err != nil {
			return fmt.Errorf("build mirrorctl: %w: %s", err, out)
		}
	}
	fmt.Fprintln(b.out, machine())
	for _, p := range parts {
		if len(b.only) > 0 && !slices.Contains(b.only, p.name) {
			continue
		}
		if err := p.run(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

// machine describes where and when this runs, and how busy the machine is.
func machine() string {
	model := "unknown processor"
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return fmt.Sprintf("%s, %d cores of %s, Linux %s, %s, load %s", time.Now().UTC().Format("2006-01-02 15:04"),
		runtime.NumCPU(), model, strings.TrimSpace(string(kernel)), runtime.Version(), load())
}

// load is the machine's load average of the last minute.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}
