package upstream

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// bigSize is that of a blob which is worth several connections.
const bigSize = 40 << 20

// bigBlob is the same in all tests: random bytes take their time.
var bigBlob = sync.OnceValue(func() []byte { return random(bigSize) })

// trickled sends an answer at a rate, in bytes a second.
type trickled struct {
	http.ResponseWriter
	ctx  context.Context
	rate int
}

func (s *trickled) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (s *trickled) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		piece := p[:min(len(p), 64<<10)]
		p = p[len(piece):]
		n, err := s.ResponseWriter.Write(piece)
		written += n
		if err != nil {
			return written, err
		}
		select {
		case <-time.After(time.Duration(len(piece)) * time.Second / time.Duration(s.rate)):
		case <-s.ctx.Done():
			return written, s.ctx.Err()
		}
	}
	return written, nil
}

// bigRate is so slow that several connections help.
const bigRate = 8 << 20

// isPart tells the requests for parts from those for the rest.
func isPart(r *http.Request) bool {
	return r.Header.Get("Range") != "" && !strings.HasSuffix(r.Header.Get("Range"), "-")
}

// slowBlob adds an image with a large layer that is sent slowly, unless hook does
// otherwise.
func (f *fake) slowBlob(hook func(i int, w http.ResponseWriter, r *http.Request, serve http.HandlerFunc)) v1.Descriptor {
	layer := f.blob(bigBlob())
	f.image([]v1.Descriptor{layer}, "1")
	f.onBlob(layer, func(i int, w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		hook(i, &trickled{w, r.Context(), bigRate}, r, serve)
	})
	return layer
}

func plainly(_ int, w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) { serve(w, r) }

// parts returns the ranges of the requests for parts, and how many others there
// were.
func (f *fake) parts(d v1.Descriptor) (parts []string, others int) {
	for _, s := range f.ranges(d) {
		if s == "" || strings.HasSuffix(s, "-") {
			others++
		} else {
			parts = append(parts, s)
		}
	}
	return parts, others
}

// checkIdle reports what a client holds after all transfers.
func checkIdle(t *testing.T, c *Client) {
	t.Helper()
	if !c.ahead.TryAcquire(maxAhead) {
		t.Error("memory for parts is still taken")
	}
	e, err := c.registry("example.test")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range e.endpoints {
		if e.lines.busy != 0 {
			t.Errorf("%d connections are still counted", e.lines.busy)
		}
	}
}

func TestParts(t *testing.T) {
	f, st := newFake(t), newStore(t)
	layer := f.slowBlob(plainly)
	c := newClient(t, st, f)
	began := time.Now()
	mustFetch(t, c, "1")
	parts, others := f.parts(layer)
	if len(parts) < firstStep || others != 1 {
		t.Errorf("%d parts, %d other requests", len(parts), others)
	}
	next := int64(0) // each byte is asked for once, after what the first request brought
	var spans [][2]int64
	for _, s := range parts {
		var span [2]int64
		if _, err := fmt.Sscanf(s, "bytes=%d-%d", &span[0], &span[1]); err != nil {
			t.Fatal(err)
		}
		spans = append(spans, span)
	}
	slices.SortFunc(spans, func(a, b [2]int64) int { return int(a[0] - b[0]) })
	for _, span := range spans {
		if next > 0 && span[0] != next {
			t.Errorf("a part begins at %d, not %d", span[0], next)
		}
		next = span[1] + 1
	}
	if next != bigSize {
		t.Errorf("the last part ends at %d", next)
	}
	t.Logf("%d parts in %v", len(parts), time.Since(began))
	checkStored(t, st, f)
	checkIdle(t, c)
}

func TestPartsOff(t *testing.T) {
	f, st := newFake(t), newStore(t)
	layer := f.slowBlob(plainly)
	c := newClient(t, st, f)
	c.opts.Connections = 1
	mustFetch(t, c, "1")
	if parts, others := f.parts(layer); len(parts) > 0 || others != 1 {
		t.Errorf("%d parts, %d other requests", len(parts), others)
	}
	checkIdle(t, c)
}

// The number of connections that are open at a time stays within the limit.
func TestPartsLimit(t *testing.T) {
	f, st := newFake(t), newStore(t)
	var now, most atomic.Int64
	f.slowBlob(func(_ int, w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		serve(w, r)
	})
	c := newClient(t, st, f)
	c.opts.Connections = 3
	mustFetch(t, c, "1")
	// A connection counts here until the server has noticed that it was closed.
	if n := most.Load(); n < 2 || n > 4 {
		t.Errorf("%d requests at a time", n)
	}
	checkStored(t, st, f)
	checkIdle(t, c)
}

// Servers that do not send the parts that were asked for: the first request goes
// on as if nobody had asked.
func TestPartsRefused(t *testing.T) {
	respond := func(status int, contentRange string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if contentRange != "" {
				w.Header().Set("Content-Range", contentRange)
			}
			w.WriteHeader(status)
			_, _ = w.Write(make([]byte, 1000))
		}
	}
	for name, refuse := range map[string]http.HandlerFunc{
		"ignored":          func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(bigBlob()) },
		"416":              respond(http.StatusRequestedRangeNotSatisfiable, ""),
		"403":              respond(http.StatusForbidden, ""),
		"404":              respond(http.StatusNotFound, ""),
		"429":              respond(http.StatusTooManyRequests, ""),
		"another part":     respond(http.StatusPartialContent, "bytes 0-999/41943040"),
		"another size":     respond(http.StatusPartialContent, "bytes 0-999/4194304"),
		"no content-range": respond(http.StatusPartialContent, ""),
		"nonsense":         respond(http.StatusPartialContent, "bytes -1-x/y"),
		"too much": func(w http.ResponseWriter, r *http.Request) {
			var from int
			_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, bigSize-1, bigSize))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(bigBlob()[from:])
		},
		"redirect that loses it": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("lost") == "" {
				http.Redirect(w, r, r.URL.Path+"?lost=yes", http.StatusTemporaryRedirect)
				return
			}
			_, _ = w.Write(bigBlob())
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, st := newFake(t), newStore(t)
			layer := f.slowBlob(func(_ int, w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
				if isPart(r) {
					refuse(w, r)
					return
				}
				serve(w, r)
			})
			c := parallelClient(t, st, f)
			mustFetch(t, c, "1")
			if parts, others := f.parts(layer); len(parts) == 0 || others != 1 {
				t.Errorf("%d parts, %d other requests", len(parts), others)
			}
			checkStored(t, st, f)
			checkIdle(t, c)
		})
	}
}

// Parts that fail once are asked for again; those that keep failing make the blob
// go on where it is.
func TestPartsFail(t *testing.T) {
	for name, tt := range map[string]struct {
		fails  func(n int64) bool // the n-th request for a part, from 1
		others int
	}{
		"once":       {func(n int64) bool { return n == 2 }, 1},
		"from 9 on":  {func(n int64) bool { return n >= 9 }, 2},
		"all":        {func(n int64) bool { return true }, 1},
		"each third": {func(n int64) bool { return n%3 == 0 }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, st := newFake(t), newStore(t)
			var n atomic.Int64
			layer := f.slowBlob(func(_ int, w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
				if isPart(r) && tt.fails(n.Add(1)) {
					cut(w, r, serve, 100_000)
				}
				serve(w, r)
			})
			c := parallelClient(t, st, f)
			mustFetch(t, c, "1")
			if parts, others := f.parts(layer); len(parts) == 0 || others < tt.others {
				t.Errorf("%d parts, %d other requests", len(parts), others)
			}
			checkStored(t, st, f)
			checkIdle(t, c)
		})
	}
}

// A part of something else is found by the digest.
func TestPartsOfSomethingElse(t *testing.T) {
	f, st := newFake(t), newStore(t)
	var bad atomic.Bool
	bad.Store(true)
	layer := f.slowBlob(func(i int, w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if isPart(r) && bad.Load() {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(make([]byte, bigSize)))
			return
		}
		serve(w, r)
	})
	c := newClient(t, st, f)
	_, err := fetchTag(t, c, "1")
	wantError(t, err, ErrIntegrity, f.host(), "something else")
	if has, err := st.Has(t.Context(), layer.Digest); err != nil || has {
		t.Errorf("it is in the store: %v", err)
	}
	bad.Store(false)
	mustFetch(t, c, "1")
	checkStored(t, st, f)
	checkIdle(t, c)
}

// A login or a signed address that ends while parts are asked for is renewed.
func TestPartsElsewhere(t *testing.T) {
	f, st := newFake(t), newStore(t)
	elsewhere := newFake(t)
	elsewhere.blobs = f.blobs
	layer := f.slowBlob(func(i int, w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		http.Redirect(w, r, fmt.Sprintf("%s%s?signed=%d", elsewhere.URL, r.URL.Path, i), http.StatusTemporaryRedirect)
	})
	var ended atomic.Bool
	elsewhere.onBlob(layer, func(i int, w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if r.Header.Get("Authorization") != "" {
			t.Error("a login reached another host")
		}
		if i >= 6 && r.URL.Query().Get("signed") == "0" {
			ended.Store(true)
			w.WriteHeader(http.StatusForbidden)
			return
		}
		serve(&trickled{w, r.Context(), bigRate}, r)
	})
	c := newClientOf(t, st, Registry{URL: f.URL, Username: "me", Password: "secret"})
	mustFetch(t, c, "1")
	if !ended.Load() {
		t.Error("the address was good to the end")
	}
	checkStored(t, st, f)
	checkIdle(t, c)
}
