package faults

import (
	"context"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// Counts is what a process has open.
type Counts struct{ Goroutines, Files int }

// Bounds lets clients make requests of a mirror with pull-through, some of which
// they abort, some for what never arrives, and compares what count says of the
// mirror before and after.
func (r *Rig) Bounds(t *testing.T, requests, aborted int, count func() Counts) {
	r.good, r.odd = newRepository(), newOddRepository()
	if r.Backend == nil {
		r.Backend = inMemory{r.good}
	}
	b := &run{Rig: r, dir: r.Dir + "/bounds"}
	r.makeBase(t, b.dir)
	b.proxy = b.newProxy()
	defer b.proxy.close()
	b.configure(nil, true)
	stalled := "stalled" // tags that the registry never answers for
	b.proxy.breaks(stall(-1), []string{"resolve"})
	b.serve(t.Context(), func(mirror string) {
		load := &load{run: b, mirror: mirror, stalled: stalled, statuses: map[int]int{}}
		load.make(t, 200, 50) // so that what stays open for good is open
		before := settled(t, count, Counts{})
		began := time.Now()
		load.make(t, requests, aborted)
		took := time.Since(began)
		after := settled(t, count, before)
		t.Logf("%d requests, %d aborted, in %.1f s: %v; before: %+v, after: %+v", requests, aborted, took.Seconds(), load.statuses, before, after)
		if after.Goroutines > before.Goroutines+slack || after.Files > before.Files+slack {
			t.Errorf("leaks: %+v before, %+v after %d requests and %d aborted ones", before, after, requests, aborted)
		}
	})
	for _, p := range b.problems {
		t.Errorf("%s: %s", p.kind, p.text)
	}
}

// slack is how many goroutines and files more are no leak: connections to the
// index come and go.
const slack = 10

// settled counts until there is no more than before, or it is clear that there
// will not be.
func settled(t *testing.T, count func() Counts, before Counts) Counts {
	t.Helper()
	least := count()
	for end := time.Now().Add(settling); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		now := count()
		least.Goroutines, least.Files = min(least.Goroutines, now.Goroutines), min(least.Files, now.Files)
		if before.Files > 0 && least.Goroutines <= before.Goroutines && least.Files <= before.Files {
			break
		}
	}
	return least
}

// load is clients of a mirror.
type load struct {
	*run
	mirror, stalled string

	mu       sync.Mutex
	statuses map[int]int
}

const loadClients = 8

// make makes requests, and aborts others, until all are made.
func (l *load) make(t *testing.T, requests, aborted int) {
	todo := make([]bool, requests+aborted) // true is to be aborted
	for i := range aborted {
		todo[i] = true
	}
	rand.New(rand.NewSource(1)).Shuffle(len(todo), func(i, j int) { todo[i], todo[j] = todo[j], todo[i] })
	transport := &http.Transport{MaxIdleConnsPerHost: loadClients, DisableCompression: true}
	defer transport.CloseIdleConnections()
	next := make(chan int)
	var clients sync.WaitGroup
	for range loadClients {
		clients.Go(func() {
			for i := range next {
				if todo[i] {
					l.abort(t.Context(), transport, i)
				} else if err := l.ask(t.Context(), transport, i); err != nil {
					t.Errorf("request %d: %v", i, err)
				}
			}
		})
	}
	for i := range todo {
		next <- i
	}
	close(next)
	clients.Wait()
}

// request is the i-th one: hits of all kinds, and misses.
func (l *load) request(ctx context.Context, i int) (*http.Request, int) {
	shared := l.content("shared").Digest.String()
	all := []struct {
		path, ranges string
		status       int
	}{
		{"manifests/base", "", 200},
		{"manifests/" + l.content("old").Digest.String(), "", 200},
		{"blobs/" + shared, "", 200},
		{"blobs/" + shared, "bytes=100-199", 206},
		{"blobs/" + shared, "bytes=9999-", 416},
		{"tags/list", "", 200},
		{"referrers/" + l.content("old").Digest.String(), "", 200},
		{"blobs/" + digestOf("absent"), "", 404},
		{"manifests/-", "", 404},
		{"what/is/this", "", 404},
	}
	one := all[i%len(all)]
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, l.mirror+"/v2/"+registryName+"/"+Repository+"/"+one.path, nil)
	if err != nil {
		panic(err) // the paths are all good
	}
	if one.ranges != "" {
		q.Header.Set("Range", one.ranges)
	}
	return q, one.status
}

func (l *load) ask(ctx context.Context, transport *http.Transport, i int) error {
	q, want := l.request(ctx, i)
	resp, err := (&http.Client{Transport: transport, Timeout: clientPatience}).Do(q)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	l.mu.Lock()
	l.statuses[resp.StatusCode]++
	l.mu.Unlock()
	if resp.StatusCode != want {
		return fmt.Errorf("%s: %s, want %d", q.URL.Path, resp.Status, want)
	}
	return nil
}

// abort leaves in the middle: of a request, of an answer, or while waiting for one
// that does not come.
func (l *load) abort(ctx context.Context, transport *http.Transport, i int) {
	switch i % 3 {
	case 0:
		conn, err := net.Dial("tcp", strings.TrimPrefix(l.mirror, "http://"))
		if err == nil {
			_, _ = io.WriteString(conn, "GET /v2/ HTTP/1.1\r\nHost: ")
			conn.Close()
		}
	case 1:
		q, _ := l.request(ctx, 2)
		resp, err := (&http.Client{Transport: transport}).Do(q)
		if err == nil {
			_, _ = io.ReadFull(resp.Body, make([]byte, 100))
			resp.Body.Close()
		}
	default:
		ctx, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		q, _ := l.request(ctx, 0)
		q.URL.Path = strings.Replace(q.URL.Path, "/base", fmt.Sprint("/", l.stalled, i%10), 1)
		if resp, err := (&http.Client{Transport: transport}).Do(q); err == nil {
			resp.Body.Close()
		}
	}
}
