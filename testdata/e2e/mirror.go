//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Exit codes of mirrorctl.
const (
	exitDone        = 0
	exitFailure     = 1
	exitSome        = 3
	exitInterrupted = 130
)

// project is a person's folder: a Dockerfile, the configuration beside it and
// the lock that sync writes there.
type project struct {
	dir   string
	store string
	env   []string
}

// newProject is a project with a store of its own, whose docker.io is at
// upstream. Its Dockerfile names the images, one stage each.
func newProject(tb testing.TB, upstream string, images ...string) *project {
	tb.Helper()
	p := &project{dir: tempDir(tb), store: filepath.Join(tempDir(tb), "store")}
	p.needs(tb, images...)
	p.configure(tb, fmt.Sprintf("[registry.\"docker.io\"]\nurl = %q\n", upstream))
	return p
}

// needs writes the Dockerfile.
func (p *project) needs(tb testing.TB, images ...string) {
	tb.Helper()
	var text strings.Builder
	for i, image := range images {
		fmt.Fprintf(&text, "FROM %s AS stage%d\n", image, i)
	}
	// The last stage takes from all others, because a build needs only what
	// its target reaches.
	text.WriteString("FROM scratch\n")
	for i := range images {
		fmt.Fprintf(&text, "COPY --from=stage%d /etc /%d\n", i, i)
	}
	writeFile(tb, filepath.Join(p.dir, "Dockerfile"), text.String())
}

func (p *project) configure(tb testing.TB, toml string) {
	tb.Helper()
	writeFile(tb, filepath.Join(p.dir, "mirrorctl.toml"), toml)
}

func (p *project) command(args ...string) (string, []string) {
	return os.Getenv(binaryVariable), append([]string{"--store", p.store}, args...)
}

// mirrorctl runs the program in the project's folder.
func (p *project) mirrorctl(tb testing.TB, args ...string) result {
	tb.Helper()
	name, args := p.command(args...)
	return call(tb, p.dir, p.env, name, args...)
}

// must runs it and demands success.
func (p *project) must(tb testing.TB, args ...string) string {
	tb.Helper()
	r := p.mirrorctl(tb, args...)
	if r.code != exitDone {
		tb.Fatal(r)
	}
	return r.stdout
}

// begin runs it in the background.
func (p *project) begin(tb testing.TB, args ...string) *process {
	tb.Helper()
	name, args := p.command(args...)
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = p.dir, append(os.Environ(), p.env...)
	return start(tb, cmd)
}

// serve starts the mirror and returns its address.
func (p *project) serve(tb testing.TB, flags ...string) string {
	tb.Helper()
	listen := address()
	p.server(tb, listen, flags...)
	return listen
}

// server starts the mirror at an address.
func (p *project) server(tb testing.TB, listen string, flags ...string) *process {
	tb.Helper()
	server := p.begin(tb, append([]string{"serve", "--listen", listen}, flags...)...)
	server.ready(tb, func() error {
		response, err := http.Get("http://" + listen + "/v2/")
		if err == nil {
			response.Body.Close()
		}
		return err
	})
	return server
}

// lock returns the entries of mirror.lock by image name, as they are written.
func (p *project) lock(tb testing.TB) map[string]string {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join(p.dir, "mirror.lock"))
	check(tb, err)
	entries := map[string]string{}
	for _, entry := range strings.Split(string(text), "[[image]]\n")[1:] {
		line, _, _ := strings.Cut(entry, "\n")
		entries[strings.Trim(strings.TrimPrefix(line, "name = "), `"`)] = strings.TrimSpace(entry)
	}
	return entries
}

// listed is what ls shows: the digests of pins and of arrivals by name.
type listed struct{ pins, arrivals map[string]string }

// list opens the store in a new process.
func (p *project) list(tb testing.TB) listed {
	tb.Helper()
	list := listed{map[string]string{}, map[string]string{}}
	for line := range strings.Lines(p.must(tb, "ls", "--json")) {
		var pin struct {
			Name, Digest string
			Arriving     *struct{}
		}
		check(tb, json.Unmarshal([]byte(line), &pin))
		if pin.Arriving != nil {
			list.arrivals[pin.Name] = pin.Digest
		} else {
			list.pins[pin.Name] = pin.Digest
		}
	}
	return list
}

// changed lists the images whose entries differ, as a reader of git diff sees them.
func changed(before, after map[string]string) (names []string) {
	for name, entry := range after {
		if before[name] != entry {
			names = append(names, name)
		}
	}
	for name := range before {
		if _, still := after[name]; !still {
			names = append(names, name)
		}
	}
	return names
}

// ingested is how many bytes of unfinished downloads the store keeps.
func (p *project) ingested(tb testing.TB) (sum int64) {
	tb.Helper()
	entries, err := os.ReadDir(filepath.Join(p.store, "ingest"))
	check(tb, err)
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil {
			sum += info.Size()
		}
	}
	return sum
}

// verify asks the store to check itself, byte by byte.
func (p *project) verify(tb testing.TB) {
	tb.Helper()
	p.must(tb, "verify")
}

// answers says how the mirror answers for a tag: the digest, or the status.
func answers(tb testing.TB, mirror, image string) string {
	tb.Helper()
	name, tag, _ := strings.Cut(image, ":")
	answer := get(tb, "http://"+mirror+"/v2/"+name+"/manifests/"+tag)
	if answer.StatusCode != http.StatusOK {
		return fmt.Sprint(answer.StatusCode)
	}
	return digestOf(answer.body)
}

// within waits until the condition holds and returns how long that took.
func within(tb testing.TB, limit time.Duration, what string, condition func() bool) time.Duration {
	tb.Helper()
	began := time.Now()
	for !condition() {
		if time.Since(began) > limit {
			tb.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(began)
}
