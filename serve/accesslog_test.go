package serve

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
)

func newAccessLog(t testing.TB, next http.Handler, format LogFormat, w io.Writer) http.Handler {
	t.Helper()
	h, err := AccessLog(next, format, w)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestAccessLogText(t *testing.T) {
	content, index, layer := testContent()
	for _, test := range []struct {
		method, target string
		header         []string
		want           string // after the time, before the duration; and the end
	}{
		{"GET", "/v2/debian/manifests/bookworm?ns=docker.io", nil, "192.0.2.1 GET /v2/debian/manifests/bookworm?ns=docker.io 200 45 hit"},
		{"HEAD", "/v2/debian/manifests/bookworm", nil, "192.0.2.1 HEAD /v2/debian/manifests/bookworm 200 0 hit"},
		{"GET", "/v2/debian/manifests/" + index.String(), []string{"If-None-Match", `"` + index.String() + `"`}, "192.0.2.1 GET /v2/debian/manifests/" + index.String() + " 304 0 hit"},
		{"GET", "/v2/a/blobs/" + layer.String(), []string{"Range", "bytes=0-4"}, "192.0.2.1 GET /v2/a/blobs/" + layer.String() + " 206 5 hit"},
		{"GET", "/v2/a/blobs/" + digest.FromString("absent").String() + "?ns=ghcr.io&secret=1", nil, "192.0.2.1 GET /v2/a/blobs/" + digest.FromString("absent").String() + "?ns=ghcr.io 404 142 miss"},
		{"GET", "/v2/", nil, "192.0.2.1 GET /v2/ 200 2 -"},
		{"PUT", "/v2/a/manifests/1", nil, "192.0.2.1 PUT /v2/a/manifests/1 405 101 -"},
	} {
		var out bytes.Buffer
		h := newAccessLog(t, newHandler(t, content, Options{}), LogText, &out)
		res := do(t, h, test.method, test.target, test.header...)
		if test.method == "HEAD" {
			io.Copy(io.Discard, res.Body)
		}
		line := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (.*) \d+\.\d{3}ms (hit|miss|-)\n$`).FindStringSubmatch(out.String())
		if line == nil || line[1]+" "+line[2] != test.want {
			t.Errorf("got %q, want %s", &out, test.want)
		}
	}
}

func TestAccessLogJSON(t *testing.T) {
	content, _, _ := testContent()
	var out bytes.Buffer
	h := newAccessLog(t, newHandler(t, content, Options{}), LogJSON, &out)
	do(t, h, "GET", "/v2/debian/manifests/bookworm?ns=docker.io")
	do(t, h, "GET", "/v2/")
	decoder := json.NewDecoder(&out)
	var hit, ping map[string]any
	if err := decoder.Decode(&hit); err != nil {
		t.Fatal(err)
	}
	if err := decoder.Decode(&ping); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{
		"client": "192.0.2.1", "method": "GET", "path": "/v2/debian/manifests/bookworm?ns=docker.io",
		"status": 200.0, "bytes": 45.0, "cache": "hit",
	} {
		if hit[key] != want {
			t.Errorf("%s: got %v, want %v", key, hit[key], want)
		}
	}
	if _, ok := hit["duration_ms"].(float64); !ok {
		t.Errorf("duration %v", hit["duration_ms"])
	}
	if _, ok := ping["cache"]; ok {
		t.Errorf("cache %v of a ping", ping["cache"])
	}
}

// TestAccessLogInjection holds that no client writes a line of its own.
func TestAccessLogInjection(t *testing.T) {
	for _, path := range []string{
		"/v2/a\nb", "/v2/a\r\n2026-01-01T00:00:00Z 1.2.3.4 GET / 200", "/v2/\x1b[2Jx", "/v2/\x00",
		"/v2/\u2028x", "/v2/\xff\xfe", "/v2/a b \"c\"", "", strings.Repeat("/long", 10_000),
	} {
		for _, format := range []LogFormat{LogText, LogJSON} {
			var out bytes.Buffer
			h := newAccessLog(t, http.NotFoundHandler(), format, &out)
			r := httptest.NewRequest("GET", "/", nil)
			r.URL = &url.URL{Path: path, RawPath: path, RawQuery: "ns=" + path}
			r.Method = "GET" + path
			r.RemoteAddr = path
			h.ServeHTTP(httptest.NewRecorder(), r)
			line, ok := strings.CutSuffix(out.String(), "\n")
			if !ok || len(line) > 5*maxLogField {
				t.Errorf("%.20q: line of %d bytes", path, len(line))
			}
			for _, c := range []byte(line) {
				if c < ' ' || c > '~' {
					t.Errorf("%.20q: %q in the line", path, c)
					break
				}
			}
			if fields := len(strings.Fields(line)); format == LogText && fields != 8 {
				t.Errorf("%.20q: %d fields in %.300q", path, fields, line)
			}
			if format == LogJSON && !json.Valid([]byte(line)) {
				t.Errorf("%.20q: %.300q", path, line)
			}
		}
	}
}

func TestAccessLogFormats(t *testing.T) {
	h := newHandler(t, newMemory(), Options{})
	if off := newAccessLog(t, h, LogOff, nil); off != http.Handler(h) {
		t.Errorf("off wraps the handler")
	}
	if _, err := AccessLog(h, "xml", io.Discard); err == nil || !strings.Contains(err.Error(), `"xml"`) {
		t.Errorf("unknown format: %v", err)
	}
}

func TestAccessLogPanic(t *testing.T) {
	for status, want := range map[int]string{0: " 500 0 ", 200: " 200 0 "} {
		var out bytes.Buffer
		h := newAccessLog(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if status != 0 {
				w.WriteHeader(status)
			}
			panic(http.ErrAbortHandler)
		}), LogText, &out)
		func() {
			defer func() {
				if recover() != http.ErrAbortHandler {
					t.Error("the panic did not go on")
				}
			}()
			do(t, h, "GET", "/v2/")
		}()
		if !strings.Contains(out.String(), want) {
			t.Errorf("status %d: %q", status, &out)
		}
	}
}

func TestAccessLogConcurrent(t *testing.T) {
	content, _, _ := testContent()
	var out bytes.Buffer
	h := newAccessLog(t, newHandler(t, content, Options{}), LogText, &out)
	var wait sync.WaitGroup
	for range 50 {
		wait.Go(func() { do(t, h, "GET", "/v2/debian/manifests/bookworm") })
	}
	wait.Wait()
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != 50 {
		t.Fatalf("%d lines", len(lines))
	}
	for _, line := range lines {
		if !strings.HasSuffix(line, "ms hit") || len(strings.Fields(line)) != 8 {
			t.Errorf("line %q", line)
		}
	}
}

// fileWriter is a ResponseWriter that remembers what its ReadFrom was given.
type fileWriter struct {
	*httptest.ResponseRecorder
	source io.Reader
}

func (w *fileWriter) ReadFrom(src io.Reader) (int64, error) {
	w.source = src
	return io.Copy(w.ResponseRecorder, src)
}

// TestSendfile holds that the writer of net/http gets the file itself, through
// the access log and the handler: what it needs to call sendfile.
func TestSendfile(t *testing.T) {
	content, _, layer := testContent()
	name := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(name, []byte(testBlob), 0o444); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	content.open = func([]byte) (io.ReadSeekCloser, int64) { return file, int64(len(testBlob)) }
	h := newAccessLog(t, newHandler(t, content, Options{}), LogText, io.Discard)

	w := &fileWriter{ResponseRecorder: httptest.NewRecorder()}
	h.ServeHTTP(w, httptest.NewRequest("GET", "/v2/a/blobs/"+layer.String(), nil))
	limited, ok := w.source.(*io.LimitedReader)
	if !ok || limited.R != io.Reader(file) {
		t.Fatalf("ReadFrom got %T %+v", w.source, w.source)
	}
	if got := w.Body.String(); got != testBlob {
		t.Errorf("body %q", got)
	}
	if err := file.Close(); err == nil {
		t.Error("the handler left the blob open")
	}
}

func TestRecorderFlush(t *testing.T) {
	var out bytes.Buffer
	h := newAccessLog(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.(http.Flusher).Flush()
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		if w.(interface{ Unwrap() http.ResponseWriter }).Unwrap() == nil {
			t.Error("nothing to unwrap")
		}
	}), LogText, &out)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if !w.Flushed || !strings.Contains(out.String(), " 200 0 ") {
		t.Errorf("flushed %v, line %q", w.Flushed, &out)
	}
}
