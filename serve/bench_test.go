package serve

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"github.com/opencontainers/go-digest"

	"mirrorctl/store"
)

// benchSize is that of a usual index, in bytes.
const benchSize = 1850

// oneManifest is a Content that costs nothing and never changes.
type oneManifest struct {
	*memory
	manifest store.Manifest
}

func (c *oneManifest) Version(context.Context) (int64, error) { return 1, nil }

func (c *oneManifest) Manifest(context.Context, store.Repository, string) (store.Manifest, error) {
	return c.manifest, nil
}

func benchManifest() *oneManifest {
	content := newMemory()
	d := content.addManifest(testType, string(bytes.Repeat([]byte("x"), benchSize)))
	return &oneManifest{content, content.manifests[d]}
}

// bare is what any handler has to do for the same answer.
func bare(m store.Manifest) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", m.MediaType)
		h.Set("Docker-Content-Digest", string(m.Digest))
		h.Set("Content-Length", strconv.Itoa(len(m.Bytes)))
		_, _ = w.Write(m.Bytes)
	})
}

type nullWriter struct{ header http.Header }

func (w *nullWriter) Header() http.Header         { return w.header }
func (w *nullWriter) Write(p []byte) (int, error) { return len(p), nil }
func (w *nullWriter) WriteHeader(int)             {}

func benchHandlers(b *testing.B) map[string]http.Handler {
	content := benchManifest()
	h := newHandler(b, content, Options{Aliases: testAliases})
	return map[string]http.Handler{
		"bare":     bare(content.manifest),
		"log=off":  h,
		"log=text": newAccessLog(b, h, LogText, io.Discard),
		"log=json": newAccessLog(b, h, LogJSON, io.Discard),
	}
}

var benchOrder = []string{"bare", "log=off", "log=text", "log=json"}

// BenchmarkManifest is a manifest by tag without the network.
func BenchmarkManifest(b *testing.B) {
	handlers := benchHandlers(b)
	for _, name := range benchOrder {
		b.Run(name, func(b *testing.B) {
			r := httptest.NewRequest("GET", "/v2/library/debian/manifests/bookworm?ns=docker.io", nil)
			w := &nullWriter{http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.header)
				handlers[name].ServeHTTP(w, r)
			}
		})
	}
}

// BenchmarkManifestHTTP is the same over 32 connections to net/http's server.
// The clients only write one request and count the bytes of the answer, so that
// the figure is the server's. The ratio to bare is what counts.
func BenchmarkManifestHTTP(b *testing.B) {
	handlers := benchHandlers(b)
	for _, name := range benchOrder {
		b.Run(name, func(b *testing.B) {
			server := httptest.NewServer(handlers[name])
			defer server.Close()
			const connections = 32
			b.SetParallelism(max(1, connections/runtime.GOMAXPROCS(0)))
			b.RunParallel(func(pb *testing.PB) {
				if err := askRepeatedly(server.Listener.Addr().String(), pb.Next); err != nil {
					b.Error(err)
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
		})
	}
}

// askRepeatedly sends the same request while next is true. All answers are as
// long as the first.
func askRepeatedly(address string, next func() bool) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	request := []byte("GET /v2/library/debian/manifests/bookworm?ns=docker.io HTTP/1.1\r\nHost: mirror\r\nAccept: */*\r\nUser-Agent: bench\r\n\r\n")
	buffer := make([]byte, 64<<10)
	if _, err := conn.Write(request); err != nil {
		return err
	}
	length := 0
	for head := -1; head < 0 || length < head+benchSize; {
		n, err := conn.Read(buffer[length:])
		if err != nil {
			return err
		}
		length += n
		if i := bytes.Index(buffer[:length], []byte("\r\n\r\n")); i >= 0 {
			head = i + 4
		}
	}
	for next() {
		if _, err := conn.Write(request); err != nil {
			return err
		}
		if _, err := io.ReadFull(conn, buffer[:length]); err != nil {
			return err
		}
	}
	return nil
}

func BenchmarkRoute(b *testing.B) {
	d := digest.FromString("x").String()
	n := testNames(b, "")
	for name, target := range map[string]string{
		"default":  "/v2/library/debian/manifests/bookworm",
		"one-word": "/v2/debian/manifests/bookworm",
		"ns":       "/v2/library/debian/manifests/bookworm?ns=docker.io",
		"prefix":   "/v2/ghcr.io/acme/tool/manifests/" + d,
		"alias":    "/v2/ghcr/acme/tool/blobs/" + d,
		"tags":     "/v2/library/debian/tags/list?n=10&last=bookworm",
		"bad":      "/v2/../debian/manifests/bookworm",
	} {
		b.Run(name, func(b *testing.B) {
			u, err := url.ParseRequestURI(target)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				_, _ = n.route("GET", "mirror.lan:5000", u)
			}
		})
	}
}

// BenchmarkBlob sends a file over a socket through everything.
func BenchmarkBlob(b *testing.B) {
	const size = 64 << 20
	name := filepath.Join(b.TempDir(), "blob")
	if err := os.WriteFile(name, make([]byte, size), 0o444); err != nil {
		b.Fatal(err)
	}
	content := newMemory()
	layer := digest.FromString("any")
	content.blobs[layer] = nil
	content.open = func([]byte) (io.ReadSeekCloser, int64) {
		f, err := os.Open(name)
		if err != nil {
			b.Error(err)
		}
		return f, size
	}
	server := httptest.NewServer(newAccessLog(b, newHandler(b, content, Options{}), LogText, io.Discard))
	defer server.Close()
	b.SetBytes(size)
	buffer := make([]byte, 1<<20)
	for b.Loop() {
		res, err := server.Client().Get(fmt.Sprintf("%s/v2/a/blobs/%s", server.URL, layer))
		if err != nil {
			b.Fatal(err)
		}
		if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, res.Body, buffer); err != nil || n != size {
			b.Fatal(n, err)
		}
		res.Body.Close()
	}
}
