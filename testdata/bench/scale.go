package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"
)

// scale measures what the size of a store costs: the same on one with a
// hundredth and a tenth of the pins.
func scale(ctx context.Context, b *bench) error {
	m, err := newImages(b.dir, 1<<20)
	if err != nil {
		return err
	}
	dir := filepath.Join(b.dir, "project")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	source, err := m.source(ctx, dir)
	if err != nil {
		return err
	}
	defer source.Close()
	if _, err := write(dir, "mirrorctl.toml", "[registry.\"docker.io\"]\nurl = %q\n", source.URL); err != nil {
		return err
	}
	r := &scaleRun{bench: b, dir: dir, figures: map[string][][]float64{}}
	for _, pins := range []int{b.pins / 100, b.pins / 10, b.pins} {
		s := scaledStore{dir: filepath.Join(b.dir, fmt.Sprint("store-", pins)), pins: pins, column: len(r.stores)}
		if err := b.bigStore(ctx, s.dir, pins); err != nil {
			return err
		}
		r.stores = append(r.stores, s)
	}
	if err := turns(b.rounds, r.stores, func(s scaledStore) error { return r.measure(ctx, s) }); err != nil {
		return err
	}
	return r.print()
}

type scaledStore struct {
	dir    string
	pins   int
	column int
}

// scaleRun has the figures, in milliseconds, of what was measured by store.
type scaleRun struct {
	*bench
	dir     string
	stores  []scaledStore
	rows    []string
	figures map[string][][]float64
}

func (r *scaleRun) add(what string, s scaledStore, took time.Duration) {
	if r.figures[what] == nil {
		r.rows = append(r.rows, what)
		r.figures[what] = make([][]float64, 3)
	}
	r.figures[what][s.column] = append(r.figures[what][s.column], float64(took)/1e6)
}

// run measures a command, on the clock and in processor time.
func (r *scaleRun) run(ctx context.Context, what string, s scaledStore, fails bool, args ...string) error {
	cmd := exec.CommandContext(ctx, r.mirrorctl, append([]string{"--store", s.dir}, args...)...)
	cmd.Dir = r.dir
	began := time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(began)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && fails {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("%v: %w: %.1000s", args, err, out)
	}
	r.add(what, s, took)
	r.add(what+": processor time", s, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
	return nil
}

func (r *scaleRun) measure(ctx context.Context, s scaledStore) error {
	repository, tag := bigName(s.pins / 2)
	image := repository + ":" + tag
	for _, c := range []struct {
		what  string
		fails bool
		args  []string
	}{
		{"inspect of an image", false, []string{"inspect", image}},
		{"add of an image", false, []string{"add", indexRepository}},
		{"rm of an image", false, []string{"rm", indexRepository}},
		{"gc after it", false, []string{"gc"}},
		{"rm of a mistyped image", true, []string{"rm", image + "0"}},
		{"ls", false, []string{"ls"}},
	} {
		if err := r.run(ctx, c.what, s, c.fails, c.args...); err != nil {
			return err
		}
	}
	return r.serve(ctx, s)
}

// serve measures a server: until its first answer, and then single requests
// for what it was not asked for before.
func (r *scaleRun) serve(ctx context.Context, s scaledStore) error {
	address, err := freeAddress()
	if err != nil {
		return err
	}
	began := time.Now()
	p, err := start(ctx, r.bench.dir, address, r.mirrorctl, "--store", s.dir, "serve", "--listen", address, "--access-log", "off")
	if err != nil {
		return err
	}
	defer p.stop()
	get := func(what string, times int, path func(i int) string) error {
		cpu, err := p.cpu()
		if err != nil {
			return err
		}
		began := time.Now()
		for i := range times {
			response, err := http.Get("http://" + address + "/v2/" + path(i))
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, response.Body)
			if err := errors.Join(err, response.Body.Close()); err != nil || response.StatusCode != http.StatusOK {
				return fmt.Errorf("%s: %s: %w", path(i), response.Status, err)
			}
		}
		took := time.Since(began)
		r.add(what, s, took/time.Duration(times))
		used, err := p.cpu()
		r.add(what+": processor time", s, (used-cpu)/time.Duration(times))
		return err
	}
	const different = 500
	manifest := func(i int) string { // none twice
		repository, tag := bigName(i * s.pins / different % s.pins)
		return repository + "/manifests/" + tag
	}
	if err := get("the first manifest", 1, manifest); err != nil {
		return err
	}
	r.add("start of serve and a manifest", s, time.Since(began))
	middle, _ := bigName(s.pins / 2)
	always := func(path string) func(int) string { return func(int) string { return path } }
	return errors.Join(
		get("manifest by tag", different, manifest),
		get("tags/list?n=100", 1, always(middle+"/tags/list?n=100")),
		get("_catalog?n=100", 1, always("_catalog?n=100")),
		get("_catalog?n=100, in the middle", 1, always("_catalog?n=100&last=docker.io/"+middle)),
	)
}

func (r *scaleRun) print() error {
	fmt.Fprintf(r.out, "\nMilliseconds by the size of the store (load %s)\n\n", load())
	out := tabwriter.NewWriter(r.out, 0, 0, 1, ' ', 0)
	defer out.Flush()
	fmt.Fprint(out, "| ")
	for _, s := range r.stores {
		fmt.Fprintf(out, "\t| %d pins", s.pins)
	}
	fmt.Fprint(out, "\t| ratio\t|\n| ---\t| ---\t| ---\t| ---\t| ---\t|\n| index.db, MB")
	var sizes []float64
	for _, s := range r.stores {
		info, err := os.Stat(filepath.Join(s.dir, "index.db"))
		if err != nil {
			return err
		}
		sizes = append(sizes, float64(info.Size())/1e6)
		fmt.Fprintf(out, "\t| %.1f", sizes[len(sizes)-1])
	}
	fmt.Fprintf(out, "\t| %.1f\t|\n", sizes[2]/sizes[0])
	for _, what := range r.rows {
		fmt.Fprintf(out, "| %s", what)
		for _, samples := range r.figures[what] {
			fmt.Fprintf(out, "\t| %.2f (%.2f, %.2f)", median(samples), slices.Min(samples), slices.Max(samples))
		}
		fmt.Fprintf(out, "\t| %.2f\t|\n", median(r.figures[what][2])/median(r.figures[what][0]))
	}
	return nil
}
