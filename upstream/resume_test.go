package upstream

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// cut sends n bytes of what would be sent and then drops the connection.
func cut(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc, n int) {
	rec := httptest.NewRecorder()
	serve(rec, r)
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(rec.Code)
	_, _ = w.Write(rec.Body.Bytes()[:n])
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// onBlob makes the i-th request (from 0) for a blob go to hook.
func (f *fake) onBlob(d v1.Descriptor, hook func(i int, w http.ResponseWriter, r *http.Request, serve http.HandlerFunc)) {
	var n atomic.Int64
	f.misbehave(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if is(r.URL.Path, d) {
			hook(int(n.Add(1))-1, w, r, serve)
			return
		}
		serve(w, r)
	})
}

// ranges returns the Range headers of the requests for a blob.
func (f *fake) ranges(d v1.Descriptor) []string {
	var all []string
	for _, r := range f.heard() {
		if is(r.URL.Path, d) {
			all = append(all, r.Header.Get("Range"))
		}
	}
	return all
}

func TestResume(t *testing.T) {
	const size = 100_000
	for _, at := range []int{0, 1, 50_000, size - 1} {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			f, st := newFake(t), newStore(t)
			_, layer := f.simple(size, "1")
			f.onBlob(layer, func(i int, w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
				if i == 0 {
					cut(w, r, serve, at)
				}
				serve(w, r)
			})
			mustFetch(t, newClient(t, st, f), "1")
			want := []string{"", fmt.Sprintf("bytes=%d-", at)}
			if at == 0 {
				want[1] = ""
			}
			if got := f.ranges(layer); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("ranges %q, want %q", got, want)
			}
			checkStored(t, st, f)
		})
	}
}

// What one process has is where the next one goes on.
func TestResumeLater(t *testing.T) {
	f, st := newFake(t), newStore(t)
	_, layer := f.simple(100_000, "1")
	f.onBlob(layer, func(i int, w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if i == 0 {
			cut(w, r, serve, 40_000)
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	_, err := fetchTag(t, newClient(t, st, f), "1")
	wantError(t, err, ErrUnavailable, f.host(), "503")
	f.misbehave(nil)
	f.heard()
	mustFetch(t, newClient(t, st, f), "1")
	if got := f.ranges(layer); len(got) != 1 || got[0] != "bytes=40000-" {
		t.Errorf("ranges %q", got)
	}
	checkStored(t, st, f)
}

// Servers that answer a request for the rest with something else.
func TestOddRanges(t *testing.T) {
	whole := func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		r.Header.Del("Range")
		serve(w, r)
	}
	for name, rest := range map[string]func(http.ResponseWriter, *http.Request, http.HandlerFunc){
		"ignored": whole,
		"earlier": func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
			r.Header.Set("Range", "bytes=10000-")
			serve(w, r)
		},
		"in parts": func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
			var from int
			_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
			r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, min(from+20_000, 99_999)))
			serve(w, r)
		},
		"later": func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
			if r.Header.Get("Range") != "" {
				r.Header.Set("Range", "bytes=50000-")
			}
			serve(w, r)
		},
		"416": func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
			if r.Header.Get("Range") != "" {
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				return
			}
			serve(w, r)
		},
		"no content-range": func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
			if r.Header.Get("Range") != "" {
				w.WriteHeader(http.StatusPartialContent)
				return
			}
			serve(w, r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, st := newFake(t), newStore(t)
			_, layer := f.simple(100_000, "1")
			f.onBlob(layer, func(i int, w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
				if i == 0 {
					cut(w, r, serve, 40_000)
				}
				rest(w, r, serve)
			})
			mustFetch(t, newClient(t, st, f), "1")
			checkStored(t, st, f)
		})
	}
}

// Bytes left by another run may be the bad ones: start over, once.
func TestResumeOfBadBytes(t *testing.T) {
	f, st := newFake(t), newStore(t)
	_, layer := f.simple(100_000, "1")
	leave := func() {
		t.Helper()
		path := filepath.Join(st.Dir(), "ingest", "sha256-"+layer.Digest.Encoded())
		if err := os.WriteFile(path, random(30_000), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	leave()
	var p Progress
	c := newClient(t, st, f)
	name := named(t, "example.test/team/app:1")
	root, err := c.Resolve(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Fetch(t.Context(), name, root, false, &p); err != nil {
		t.Fatal(err)
	}
	if got := f.ranges(layer); fmt.Sprint(got) != "[bytes=30000- ]" {
		t.Errorf("ranges %q", got)
	}
	if p.Bytes.Load() != p.TotalBytes.Load() {
		t.Errorf("progress says %d of %d bytes", p.Bytes.Load(), p.TotalBytes.Load())
	}
	checkStored(t, st, f)
}

func send(w http.ResponseWriter, content []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(content)))
	_, _ = w.Write(content)
}

// Content that is not what was promised is never kept.
func TestWrongContent(t *testing.T) {
	for name, tt := range map[string]struct {
		send     func(w http.ResponseWriter, content []byte)
		requests int
		mentions string
	}{
		"wrong bytes": {func(w http.ResponseWriter, content []byte) { send(w, random(len(content))) }, 1, "something else"},
		"longer":      {func(w http.ResponseWriter, content []byte) { send(w, append(content[:len(content):len(content)], 'x')) }, 1, "50001"},
		"shorter":     {func(w http.ResponseWriter, content []byte) { send(w, content[1:]) }, 1, "49999"},
		"longer, of unknown length": {func(w http.ResponseWriter, content []byte) {
			_ = http.NewResponseController(w).Flush()
			_, _ = io.Copy(w, io.MultiReader(bytes.NewReader(content), strings.NewReader("and more")))
		}, 1, "more"},
		"shorter, of unknown length": {func(w http.ResponseWriter, content []byte) {
			_ = http.NewResponseController(w).Flush()
			_, _ = w.Write(content[:40_000])
		}, 1, "40000"}, // asked once: the next request is a 206 of the rest
		"gzip": {func(w http.ResponseWriter, content []byte) {
			w.Header().Set("Content-Encoding", "gzip")
			send(w, random(len(content)))
		}, 1, "Content-Encoding"},
		"nothing": {func(http.ResponseWriter, []byte) {}, 1, "has 0 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			f, st := newFake(t), newStore(t)
			_, layer := f.simple(50_000, "1")
			f.onBlob(layer, func(_ int, w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
				if strings.HasPrefix(r.Header.Get("Range"), "bytes=") { // what it has is all there is
					w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
					return
				}
				tt.send(w, f.blobs[layer.Digest])
			})
			began := time.Now()
			_, err := fetchTag(t, newClient(t, st, f), "1")
			if strings.HasPrefix(name, "shorter, of") {
				wantError(t, err, ErrUnavailable, f.host(), tt.mentions)
			} else {
				wantError(t, err, ErrIntegrity, f.host(), tt.mentions)
				if got := len(f.ranges(layer)); got != tt.requests {
					t.Errorf("asked %d times, want %d", got, tt.requests)
				}
			}
			if took := time.Since(began); took > time.Minute {
				t.Errorf("took %v", took)
			}
			if has, err := st.Has(t.Context(), layer.Digest); err != nil || has {
				t.Errorf("it is in the store: %v", err)
			}
			if pins, _ := st.Pins(t.Context()); len(pins) > 0 {
				t.Errorf("pinned: %v", pins)
			}
			f.misbehave(nil)
			mustFetch(t, newClient(t, st, f), "1")
			checkStored(t, st, f)
		})
	}
}

// A body that stalls, or comes so slowly that it would never end.
func TestSilence(t *testing.T) {
	for name, rest := range map[string]func(w http.ResponseWriter, r *http.Request){
		"stalled": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"trickle": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = w.Write([]byte{0})
				_ = http.NewResponseController(w).Flush()
				time.Sleep(10 * time.Millisecond)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, st := newFake(t), newStore(t)
			_, layer := f.simple(50_000, "1")
			f.onBlob(layer, func(_ int, w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
				w.Header().Set("Content-Length", "50000")
				_ = http.NewResponseController(w).Flush()
				rest(w, r)
			})
			c := newClient(t, st, f)
			c.silence = 200 * time.Millisecond
			began := time.Now()
			_, err := fetchTag(t, c, "1")
			wantError(t, err, ErrUnavailable, f.host(), "next to nothing came for 200ms")
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// Registries redirect to where their content is.
func TestRedirect(t *testing.T) {
	f, st := newFake(t), newStore(t)
	_, layer := f.simple(100_000, "1")
	elsewhere := newFake(t)
	elsewhere.blobs = f.blobs
	elsewhere.onBlob(layer, func(i int, w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if i == 0 {
			cut(w, r, serve, 60_000)
		}
		serve(w, r)
	})
	f.onBlob(layer, func(_ int, w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		http.Redirect(w, r, elsewhere.URL+"/v2/x/blobs/"+layer.Digest.String()+"?signed=yes", http.StatusTemporaryRedirect)
	})
	c := newClientOf(t, st, Registry{URL: f.URL, Username: "me", Password: "secret"})
	mustFetch(t, c, "1")
	got := elsewhere.heard()
	if len(got) != 2 || got[1].Header.Get("Range") != "bytes=60000-" {
		t.Errorf("requests at the other host: %v", got)
	}
	checkStored(t, st, f)
}
