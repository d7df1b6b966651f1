package serve

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// FuzzRange compares answers for a blob and a manifest, whatever Range and
// conditions are asked for, with those of http.ServeContent, and the parts with
// the bytes that they say they are. Two things differ on purpose: a unit other
// than bytes asks for no part, and the last 0 bytes are no part (RFC 9110,
// sections 14.2 and 14.1.2).
func FuzzRange(f *testing.F) {
	content, index, layer := testContent()
	h := newHandler(f, content, Options{})
	targets := []struct{ path, digest, body string }{
		{"/v2/a/blobs/" + layer.String(), layer.String(), testBlob},
		{"/v2/a/manifests/" + index.String(), index.String(), testIndex},
	}
	f.Add("bytes=5-9", "", "")
	f.Fuzz(func(t *testing.T, ranges, ifRange, ifNoneMatch string) {
		for _, target := range targets {
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				r := httptest.NewRequest(method, target.path, nil)
				for key, value := range map[string]string{"Range": ranges, "If-Range": ifRange, "If-None-Match": ifNoneMatch} {
					if value != "" {
						r.Header.Set(key, strings.ReplaceAll(value, "DIGEST", target.digest))
					}
				}
				model := r.Clone(t.Context())
				if !strings.HasPrefix(ranges, "bytes=") {
					model.Header.Del("Range")
				}
				want := httptest.NewRecorder()
				want.Header().Set("Etag", `"`+target.digest+`"`)
				want.Header().Set("Content-Type", "application/octet-stream")
				http.ServeContent(want, model, "", time.Time{}, strings.NewReader(target.body))

				got := httptest.NewRecorder()
				h.ServeHTTP(got, r)
				checkRange(t, method, target.body, got.Result(), want.Result())
			}
		}
	})
}

func checkRange(t *testing.T, method, content string, got, want *http.Response) {
	t.Helper()
	status, contentRange := want.StatusCode, want.Header.Get("Content-Range")
	var first, last int
	if _, err := fmt.Sscanf(contentRange, "bytes %d-%d/", &first, &last); err == nil && last < first {
		status, contentRange = http.StatusRequestedRangeNotSatisfiable, fmt.Sprintf("bytes */%d", len(content))
	}
	if got.StatusCode != status || got.Header.Get("Content-Range") != contentRange {
		t.Fatalf("%s: %s, Content-Range %q, want %d, %q", method, got.Status, got.Header.Get("Content-Range"), status, contentRange)
	}
	body := readAll(t, got.Body)
	if status >= 400 {
		checkError(t, method, got, body, codeSizeInvalid)
		return
	}
	if length := got.Header.Get("Content-Length"); length != want.Header.Get("Content-Length") {
		t.Fatalf("%s: %s with Content-Length %q, want %q", method, got.Status, length, want.Header.Get("Content-Length"))
	}
	if method == http.MethodHead || status == http.StatusNotModified {
		if body != "" {
			t.Fatalf("%s: %s with body %q", method, got.Status, body)
		}
		return
	}
	parts := partsOf(t, got, body)
	wanted := partsOf(t, want, readAll(t, want.Body))
	if fmt.Sprint(parts) != fmt.Sprint(wanted) {
		t.Fatalf("%q, want %q", parts, wanted)
	}
	if status == http.StatusOK {
		return
	}
	for _, part := range parts {
		var first, last, size int
		_, err := fmt.Sscanf(part.where, "bytes %d-%d/%d", &first, &last, &size)
		if err != nil || size != len(content) || first < 0 || last >= size || content[first:last+1] != part.body {
			t.Fatalf("%s is said to be %q", part.where, part.body)
		}
	}
}

type rangePart struct{ where, body string }

// partsOf returns the parts of an answer, which is one unless it is multipart.
func partsOf(t *testing.T, res *http.Response, body string) []rangePart {
	t.Helper()
	mediaType, params, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if err != nil || mediaType != "multipart/byteranges" {
		return []rangePart{{res.Header.Get("Content-Range"), body}}
	}
	var parts []rangePart
	for r := multipart.NewReader(strings.NewReader(body), params["boundary"]); ; {
		part, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			return parts
		}
		if err != nil {
			t.Fatalf("%v: %q", err, body)
		}
		parts = append(parts, rangePart{part.Header.Get("Content-Range"), readAll(t, part)})
	}
}
