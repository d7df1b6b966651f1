package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	testType  = "application/vnd.docker.distribution.manifest.list.v2+json"
	testIndex = `{"schemaVersion":2, "not re-serialised" : []}`
	testBlob  = "0123456789abcdefghij"
)

// testContent has one index, pinned in two registries, and one blob.
func testContent() (content *memory, index, layer digest.Digest) {
	content = newMemory()
	index = content.addManifest(testType, testIndex)
	layer = content.addBlob([]byte(testBlob))
	content.pin("docker.io/library/debian", "bookworm", index)
	content.pin("ghcr.io/acme/tool", "v1", index)
	return content, index, layer
}

func TestManifest(t *testing.T) {
	content, index, _ := testContent()
	h := newHandler(t, content, Options{Aliases: testAliases})
	for _, target := range []string{
		"/v2/library/debian/manifests/bookworm",
		"/v2/debian/manifests/bookworm?ns=docker.io",
		"/v2/docker.io/library/debian/manifests/bookworm",
		"/v2/docker.io/library/debian/manifests/bookworm?ns=docker.io",
		"/docker.io/v2/debian/manifests/bookworm",
		"/v2/ghcr/acme/tool/manifests/v1",
		"/v2/acme/tool/manifests/v1?ns=ghcr.io",
		"/v2/any/where/manifests/" + index.String(),
	} {
		for _, method := range []string{"GET", "HEAD"} {
			// Accept names another type: what is stored is served all the same.
			res := do(t, h, method, target, "Accept", v1.MediaTypeImageManifest, "Accept-Encoding", "zstd,gzip")
			if res.StatusCode != 200 {
				t.Fatalf("%s %s: %s", method, target, res.Status)
			}
			want := http.Header{
				"Accept-Ranges":                   {"bytes"},
				"Content-Length":                  {strconv.Itoa(len(testIndex))},
				"Content-Type":                    {testType},
				"Docker-Content-Digest":           {index.String()},
				"Docker-Distribution-Api-Version": {"registry/2.0"},
				"Etag":                            {`"` + index.String() + `"`},
				"X-Content-Type-Options":          {"nosniff"},
				"X-Mirrorctl-Cache":               {"hit"},
			}
			if _, ns, ok := strings.Cut(target, "?ns="); ok {
				want["Oci-Namespace"] = []string{ns}
			}
			if !maps.EqualFunc(res.Header, want, func(a, b []string) bool { return strings.Join(a, ",") == strings.Join(b, ",") }) {
				t.Errorf("%s %s: headers %v, want %v", method, target, res.Header, want)
			}
			body := readAll(t, res.Body)
			if method == "GET" && body != testIndex || method == "HEAD" && body != "" {
				t.Errorf("%s %s: body %q", method, target, body)
			}
		}
	}
}

func TestConditions(t *testing.T) {
	content, index, layer := testContent()
	h := newHandler(t, content, Options{})
	manifest := "/v2/debian/manifests/bookworm"
	blob := "/v2/debian/blobs/" + layer.String()
	for _, test := range []struct {
		target, key, value string
		status             int
	}{
		{manifest, "If-None-Match", `"` + index.String() + `"`, 304},
		{manifest, "If-None-Match", `"x", W/"` + index.String() + `"`, 304},
		{manifest, "If-None-Match", `*`, 304},
		{manifest, "If-None-Match", `"x"`, 200},
		{manifest, "If-Match", `"x"`, 412},
		{manifest, "Range", "bytes=0-3", 206},
		{manifest, "Range", "bytes=9999-", 416},
		{blob, "If-None-Match", `"` + layer.String() + `"`, 304},
		{blob, "If-None-Match", layer.String(), 200},
		{blob, "If-Match", `"` + layer.String() + `"`, 200},
		{blob, "If-Match", `"x"`, 412},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			res := do(t, h, method, test.target, test.key, test.value)
			if res.StatusCode != test.status {
				t.Errorf("%s %s with %s: %s: %s, want %d", method, test.target, test.key, test.value, res.Status, test.status)
			}
			body := readAll(t, res.Body)
			if res.StatusCode == 304 && (body != "" || res.Header.Get("Etag") == "") {
				t.Errorf("304 with body %q and headers %v", body, res.Header)
			}
		}
	}
}

func TestRange(t *testing.T) {
	content, _, layer := testContent()
	dir := t.TempDir()
	file := filepath.Join(dir, "blob")
	if err := os.WriteFile(file, []byte(testBlob), 0o444); err != nil {
		t.Fatal(err)
	}
	content.open = func([]byte) (io.ReadSeekCloser, int64) {
		f, err := os.Open(file)
		if err != nil {
			t.Error(err)
		}
		return f, int64(len(testBlob))
	}
	log, err := AccessLog(newHandler(t, content, Options{}), LogText, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(log)
	defer server.Close()
	for _, test := range []struct {
		value  string
		status int
		body   string // or the code of the error
		header string // Content-Range
	}{
		{"", 200, testBlob, ""},
		{"bytes=0-", 206, testBlob, "bytes 0-19/20"},
		{"bytes=0-0", 206, "0", "bytes 0-0/20"},
		{"bytes=5-9", 206, "56789", "bytes 5-9/20"},
		{"bytes=15-", 206, "fghij", "bytes 15-19/20"},
		{"bytes=15-999", 206, "fghij", "bytes 15-19/20"},
		{"bytes=-3", 206, "hij", "bytes 17-19/20"},
		{"bytes=-999", 206, testBlob, "bytes 0-19/20"},
		{"bytes=19-19", 206, "j", "bytes 19-19/20"},
		{"bytes=20-", 416, codeSizeInvalid, "bytes */20"},
		{"bytes=999-", 416, codeSizeInvalid, "bytes */20"},
		{"bytes=9-5", 416, codeSizeInvalid, ""},
		{"bytes=x", 416, codeSizeInvalid, ""},
		{"bytes=-0", 416, codeSizeInvalid, "bytes */20"},
		{"bytes=-00", 416, codeSizeInvalid, "bytes */20"},
		{"bytes=-0,-0", 416, codeSizeInvalid, "bytes */20"},
		{"bytes=-0, 1-2", 206, "12", "bytes 1-2/20"},
		{"lines=1-2", 200, testBlob, ""},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			r, err := http.NewRequest(method, server.URL+"/v2/a/blobs/"+layer.String(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if test.value != "" {
				r.Header.Set("Range", test.value)
			}
			res, err := server.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body := readAll(t, res.Body)
			res.Body.Close()
			if res.StatusCode != test.status || res.Header.Get("Content-Range") != test.header {
				t.Errorf("%s %s: %s, Content-Range %q", method, test.value, res.Status, res.Header.Get("Content-Range"))
			}
			if test.status == 416 {
				checkError(t, method, res, body, test.body)
				continue
			}
			if got := res.Header.Get("Docker-Content-Digest"); got != layer.String() {
				t.Errorf("%s %s: digest %q", method, test.value, got)
			}
			if got := res.Header.Get("Content-Length"); got != strconv.Itoa(len(test.body)) {
				t.Errorf("%s %s: length %s, want %d", method, test.value, got, len(test.body))
			}
			if method == "GET" && body != test.body || method == "HEAD" && body != "" {
				t.Errorf("%s %s: body %q", method, test.value, body)
			}
		}
	}
}

func TestSeveralRanges(t *testing.T) {
	content, _, layer := testContent()
	res := do(t, newHandler(t, content, Options{}), "GET", "/v2/a/blobs/"+layer.String(), "Range", "bytes=0-1,5-6")
	body := readAll(t, res.Body)
	if res.StatusCode != 206 || !strings.HasPrefix(res.Header.Get("Content-Type"), "multipart/byteranges") || !strings.Contains(body, "56") {
		t.Errorf("%s %v %q", res.Status, res.Header, body)
	}
}

// checkError holds that an answer is the registry error body with a code, and
// that its length is right.
func checkError(t *testing.T, method string, res *http.Response, body, code string) {
	t.Helper()
	if got := res.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("%s %d: type %q", method, res.StatusCode, got)
	}
	for _, key := range []string{"Docker-Content-Digest", "Etag"} {
		if got := res.Header.Get(key); got != "" {
			t.Errorf("%s %d: %s %q of an error", method, res.StatusCode, key, got)
		}
	}
	if method == "HEAD" {
		if body != "" || res.Header.Get("Content-Length") == "0" {
			t.Errorf("HEAD %d: body %q, length %s", res.StatusCode, body, res.Header.Get("Content-Length"))
		}
		return
	}
	if res.Header.Get("Content-Length") != strconv.Itoa(len(body)) {
		t.Errorf("%d: length %s of %d", res.StatusCode, res.Header.Get("Content-Length"), len(body))
	}
	var got struct {
		Errors []struct{ Code, Message string }
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Errorf("%d %q: %v", res.StatusCode, body, err)
		return
	}
	if len(got.Errors) != 1 || got.Errors[0].Code != code || got.Errors[0].Message == "" {
		t.Errorf("%d: got %+v, want %s", res.StatusCode, got.Errors, code)
	}
}

type throttled struct{ wait time.Duration }

func (throttled) Error() string               { return "secret.internal: 429" }
func (e throttled) RetryAfter() time.Duration { return e.wait }

func TestErrors(t *testing.T) {
	content, _, layer := testContent()
	absent := digest.FromString("absent").String()
	blob := "/v2/a/blobs/" + layer.String()
	for _, test := range []struct {
		method, target string
		fail           error
		status         int
		code           string
		header         string // key: value that must be there
	}{
		{"GET", "/v2/debian/manifests/sid", nil, 404, codeManifestUnknown, "X-Mirrorctl-Cache: miss"},
		{"GET", "/v2/debian/manifests/" + absent, nil, 404, codeManifestUnknown, "X-Mirrorctl-Cache: miss"},
		{"GET", "/v2/debian/manifests/-", nil, 404, codeManifestUnknown, "X-Mirrorctl-Cache: miss"},
		{"GET", "/v2/debian/blobs/" + absent, nil, 404, codeBlobUnknown, "X-Mirrorctl-Cache: miss"},
		{"GET", "/v2/absent/tags/list", nil, 404, codeNameUnknown, "X-Mirrorctl-Cache: miss"},
		{"GET", "/v2/absent", nil, 404, codeNameUnknown, ""},
		{"GET", "/v2/De/manifests/1", nil, 400, codeNameInvalid, ""},
		{"GET", "/v2/a/blobs/sha256:1", nil, 400, codeDigestInvalid, ""},
		{"GET", "/v2/a/tags/list?n=-2", nil, 400, codeUnsupported, ""},
		{"PUT", "/v2/debian/manifests/sid", nil, 405, codeUnsupported, "Allow: GET, HEAD"},
		{"POST", "/v2/", nil, 405, codeUnsupported, "Allow: GET, HEAD"},
		{"GET", blob, errors.New("secret"), 500, codeUnknown, ""},
		{"GET", "/v2/debian/manifests/sid", errors.New("secret"), 500, codeUnknown, ""},
		{"GET", "/v2/debian/tags/list", errors.New("secret"), 500, codeUnknown, ""},
		{"GET", "/v2/_catalog", errors.New("secret"), 500, codeUnknown, ""},
		{"GET", "/v2/debian/referrers/" + absent, errors.New("secret"), 500, codeUnknown, ""},
		{"GET", blob, throttled{0}, 503, codeUnavailable, "Retry-After: 1"},
		{"GET", blob, fmt.Errorf("blob: %w", throttled{1500 * time.Millisecond}), 503, codeUnavailable, "Retry-After: 2"},
		{"GET", "/v2/debian/manifests/sid", throttled{time.Minute}, 503, codeUnavailable, "X-Mirrorctl-Cache: miss"},
		{"GET", blob, context.DeadlineExceeded, 503, codeUnavailable, "Retry-After: 1"},
		{"GET", blob, fmt.Errorf("blob: %w", context.Canceled), 503, codeUnavailable, "Retry-After: 1"},
	} {
		content.fail = test.fail
		var log bytes.Buffer
		h := newHandler(t, content, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
		methods := []string{test.method}
		if test.method == "GET" {
			methods = append(methods, "HEAD")
		}
		for _, method := range methods {
			res := do(t, h, method, test.target)
			body := readAll(t, res.Body)
			if res.StatusCode != test.status {
				t.Errorf("%s %s: %s, want %d", method, test.target, res.Status, test.status)
			}
			checkError(t, method, res, body, test.code)
			if key, value, _ := strings.Cut(test.header, ": "); res.Header.Get(key) != value {
				t.Errorf("%s %s: %s %q, want %q", method, test.target, key, res.Header.Get(key), value)
			}
			if res.Header.Get("Docker-Distribution-Api-Version") != "registry/2.0" {
				t.Errorf("%s %s: no API version", method, test.target)
			}
			if strings.Contains(body, "secret") {
				t.Errorf("%s %s: body %q shows the inside", method, test.target, body)
			}
		}
		if (test.fail != nil) != (log.Len() > 0) {
			t.Errorf("%s with %v: log %q", test.target, test.fail, &log)
		}
	}
}

// TestClientLeft holds that a client's leaving is not told as an error.
func TestClientLeft(t *testing.T) {
	content, _, layer := testContent()
	content.fail = context.Canceled
	var log bytes.Buffer
	h := newHandler(t, content, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequestWithContext(ctx, "GET", "/v2/a/blobs/"+layer.String(), nil)
	h.ServeHTTP(httptest.NewRecorder(), r)
	if log.Len() > 0 {
		t.Errorf("log %q", &log)
	}
}

type brokenReader struct {
	*bytes.Reader
	seek, read error
}

func (r brokenReader) Close() error { return nil }
func (r brokenReader) WriteTo(io.Writer) (int64, error) {
	panic("not used: the answer is bounded by its length")
}
func (r brokenReader) Read([]byte) (int, error) { return 0, r.read }
func (r brokenReader) Seek(offset int64, whence int) (int64, error) {
	if r.seek != nil && whence == io.SeekStart {
		return 0, r.seek
	}
	return r.Reader.Seek(offset, whence)
}

func TestBrokenBlob(t *testing.T) {
	for name, test := range map[string]struct {
		open    func(data []byte) (io.ReadSeekCloser, int64)
		status  int
		wantLog string
	}{
		"short": {func(data []byte) (io.ReadSeekCloser, int64) {
			return nopCloser{bytes.NewReader(data[1:])}, int64(len(data))
		}, 500, "has 19 bytes, should have 20"},
		"seek": {func(data []byte) (io.ReadSeekCloser, int64) {
			return brokenReader{bytes.NewReader(data), errors.New("cannot seek"), nil}, int64(len(data))
		}, 500, "cannot seek"},
		"read": {func(data []byte) (io.ReadSeekCloser, int64) {
			return brokenReader{bytes.NewReader(data), nil, errors.New("bad sector")}, int64(len(data))
		}, 200, "bad sector"},
	} {
		content, _, layer := testContent()
		content.open = test.open
		var log bytes.Buffer
		server := httptest.NewServer(newHandler(t, content, Options{Log: slog.New(slog.NewTextHandler(&log, nil))}))
		res, err := server.Client().Get(server.URL + "/v2/a/blobs/" + layer.String())
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		server.Close() // the handler has ended
		if res.StatusCode != test.status || !strings.Contains(log.String(), test.wantLog) {
			t.Errorf("%s: %s, log %q", name, res.Status, &log)
		}
		if test.status == 500 {
			checkError(t, "GET", res, string(body), codeUnknown)
		} else if err == nil {
			t.Errorf("%s: the client sees a complete answer %q", name, body)
		}
	}
}

func TestOutside(t *testing.T) {
	h := newHandler(t, newMemory(), Options{})
	for _, test := range []struct {
		method, target string
		status         int
		body           string
	}{
		{"GET", "/", 200, "read-only mirror of container images"},
		{"POST", "/", 405, "read-only"},
		{"GET", "/favicon.ico", 404, "/v2/"},
		{"PUT", "/x", 404, ""},
		{"GET", "/v2/", 200, "{}"},
		{"GET", "/v2", 200, "{}"}, // no redirect
	} {
		res := do(t, h, test.method, test.target)
		body := readAll(t, res.Body)
		if res.StatusCode != test.status || !strings.Contains(body, test.body) {
			t.Errorf("%s %s: %s %q", test.method, test.target, res.Status, body)
		}
		if res.Header.Get("X-Content-Type-Options") != "nosniff" || res.Header.Get("Docker-Distribution-Api-Version") != "registry/2.0" {
			t.Errorf("%s %s: headers %v", test.method, test.target, res.Header)
		}
	}
}
