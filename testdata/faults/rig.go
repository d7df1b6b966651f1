package faults

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"
)

// Program is mirrorctl from its command line to its exit code.
type Program func(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int

// Case is one fault and what comes of it.
type Case struct {
	Class, Name string
	Image       string   // its tag; "" is new
	On          []string // what the fault is for, by the names of content, and resolve, lookup, referrers, token; none is all
	Fault       Fault
	Have        int64                 // bytes of the layer that an earlier run has left
	Registry    func(p *Proxy) string // its table in the configuration; nil is the proxy's address
	Impatient   bool                  // with a timeout of a few seconds

	Code   int    // of sync
	Says   string // what sync says of the image, without its name and its place; "" is nothing, because it is pinned
	Warns  string // what the log may say besides; "" is nothing
	Left   string // in the store after it, beyond what was there: names, layer:N for N bytes of it; "*" is some of the image
	Client string // what a client of pull-through gets for index, amd64 and layer, or for the image's tag alone: a status, broken; one or the other with |; "" is not tried
}

// Rig runs the table.
type Rig struct {
	Program  Program
	Backend  http.RoundTripper // the registry with the content that Push has given; nil is one in memory
	Dir      string            // for stores
	Parallel int               // cases at a time
	Only     *regexp.Regexp    // names of cases; nil is all
	Every    int               // only one of so many cases; 0 is all

	good, odd *repository
}

// kinds of what goes wrong.
const (
	lost    = "lost"    // content that was there or could be had
	corrupt = "corrupt" // wrong bytes taken for right ones
	message = "message" // not what should be said, or not the exit code
	other   = "other"
)

// problem is what a case has shown that should not be.
type problem struct{ kind, text string }

// run is a case in progress.
type run struct {
	*Rig
	Case
	dir      string
	proxy    *Proxy
	said     string // by the faulty sync
	next     string // what the next sync transferred
	got      string // by the client
	problems []problem
	took     time.Duration
}

func (r *run) wrong(kind, format string, args ...any) {
	r.problems = append(r.problems, problem{kind, fmt.Sprintf(format, args...)})
}

// Run runs the table's cases, each with the registry behind a proxy of its own,
// and prints the sum.
func (r *Rig) Run(t *testing.T) {
	r.good, r.odd = newRepository(), newOddRepository()
	if r.Backend == nil {
		r.Backend = inMemory{r.good}
	}
	base := filepath.Join(r.Dir, "base")
	r.makeBase(t, base)
	type ended struct {
		*run
		done chan struct{}
	}
	var all []ended
	slots := make(chan struct{}, r.Parallel)
	for i, c := range Table() {
		if i%max(r.Every, 1) != 0 || r.Only != nil && !r.Only.MatchString(c.Class+": "+c.Name) {
			continue
		}
		e := ended{&run{Rig: r, Case: c, dir: filepath.Join(r.Dir, fmt.Sprint(i))}, make(chan struct{})}
		all = append(all, e)
		go func() {
			defer close(e.done)
			slots <- struct{}{}
			defer func() { <-slots }()
			began := time.Now()
			e.sync(t.Context(), base)
			if e.Client != "" {
				e.through(t.Context(), base)
			}
			e.took = time.Since(began)
		}()
	}
	sum := map[string]map[string]int{}
	var classes []string
	for _, e := range all {
		<-e.done
		if sum[e.Class] == nil {
			sum[e.Class] = map[string]int{}
			classes = append(classes, e.Class)
		}
		sum[e.Class]["cases"]++
		kinds := map[string]bool{}
		t.Run(e.Class+": "+e.Name, func(t *testing.T) {
			t.Logf("%q; next: %s; client: %s; %.1f s", e.said, e.next, e.got, e.took.Seconds())
			for _, p := range e.problems {
				kinds[p.kind] = true
				t.Errorf("%s: %s", p.kind, p.text)
			}
		})
		for kind := range kinds {
			sum[e.Class][kind]++
		}
	}
	t.Logf("\n%s", table(classes, sum))
}

// table is the summary: how many cases of a class have shown which problems.
func table(classes []string, sum map[string]map[string]int) string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "class\tcases\tlost\tcorrupt\twrong message\tother")
	total := map[string]int{}
	row := func(name string, n map[string]int) {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\n", name, n["cases"], n[lost], n[corrupt], n[message], n[other])
	}
	for _, class := range classes {
		row(class, sum[class])
		for kind, n := range sum[class] {
			total[kind] += n
		}
	}
	row("all", total)
	_ = w.Flush() // to memory
	return text.String()
}

// Push calls put for all content that a registry is to have, in an order that it
// takes: kind is blobs or manifests, reference a digest or a tag. It is for a Rig
// with a Backend.
func Push(put func(kind, reference, mediaType string, data []byte)) {
	r := newRepository()
	for _, c := range r.all {
		kind := "blobs"
		if c.mediaType != "" {
			kind = "manifests"
		}
		put(kind, c.Digest.String(), c.mediaType, c.bytes)
	}
	for tag, c := range r.tags {
		put("manifests", tag, c.mediaType, c.bytes)
	}
}

// inMemory is a registry without a network.
type inMemory struct{ http.Handler }

func (m inMemory) RoundTrip(q *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	m.ServeHTTP(rec, q)
	return rec.Result(), nil
}

// output is what a program writes; another goroutine may look at it.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// call runs mirrorctl on the store of the run.
func (r *run) call(ctx context.Context, args ...string) (code int, stdout, stderr string) {
	var out, errs output
	args = append([]string{"mirrorctl", "--store", filepath.Join(r.dir, "store"), "--config", filepath.Join(r.dir, "mirrorctl.toml")}, args...)
	code = r.Program(ctx, args, strings.NewReader(""), &out, &errs)
	return code, out.String(), strings.ReplaceAll(errs.String(), r.dir+"/", "")
}

// syncImage runs sync for a Dockerfile with one image.
func (r *run) syncImage(ctx context.Context, tag string) (code int, stderr string) {
	r.write("Dockerfile", "FROM "+name(tag)+"\n")
	code, _, stderr = r.call(ctx, "sync", "--lockfile", filepath.Join(r.dir, "mirror.lock"), filepath.Join(r.dir, "Dockerfile"))
	return code, stderr
}

const registryName = "registry.test"

// name is how an image is called.
func name(tag string) string { return registryName + "/" + Repository + ":" + tag }

func (r *run) write(file, text string) {
	if err := os.WriteFile(filepath.Join(r.dir, file), []byte(text), 0o644); err != nil {
		r.wrong(other, "%v", err)
	}
}

// configure says where the registry is.
func (r *run) configure(address func(*Proxy) string, impatient bool) {
	text := fmt.Sprintf("url = %q\n", "http://"+r.proxy.address())
	if address != nil {
		text = address(r.proxy)
	}
	before := ""
	if impatient {
		before = "timeout = \"6s\"\n"
	}
	r.write("mirrorctl.toml", before+"[registry.\""+registryName+"\"]\n"+text)
}

// makeBase makes the store that each case begins with.
func (r *Rig) makeBase(t *testing.T, dir string) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b := &run{Rig: r, dir: dir}
	b.proxy = b.newProxy()
	defer b.proxy.close()
	b.configure(nil, false)
	if code, text := b.syncImage(t.Context(), "base"); code != 0 || len(b.problems) > 0 {
		t.Fatalf("base: exit %d: %s %v", code, text, b.problems)
	}
}
