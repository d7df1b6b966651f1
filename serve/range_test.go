package serve

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

// FuzzRange compares answers for a blob and a manifest, whatever Range and
// conditions are asked for, with those of http.ServeContent, and the parts with
// the bytes that they say they are. Two things differ on purpose: a unit other
// than bytes asks for no part, and no bytes are no part (RFC 9110, sections 14.2
// and 14.1.2).
func FuzzRange(f *testing.F) {
	content, index, layer := testContent()
	h := newHandler(f, content, Options{})
	empty := content.addBlob(nil)
	targets := []struct{ path, digest, mediaType, body string }{
		{"/v2/a/blobs/" + layer.String(), layer.String(), "application/octet-stream", testBlob},
		{"/v2/a/blobs/" + empty.String(), empty.String(), "application/octet-stream", ""},
		{"/v2/a/manifests/" + index.String(), index.String(), testType, testIndex},
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
				want.Header().Set("Content-Type", target.mediaType)
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
	body := readAll(t, got.Body)
	if method == http.MethodHead && body != "" {
		t.Fatalf("%s with a body", got.Status)
	}
	switch {
	case got.StatusCode >= 400:
		checkError(t, method, got, body, codeSizeInvalid)
		if where := got.Header.Get("Content-Range"); where != "" && where != fmt.Sprintf("bytes */%d", len(content)) {
			t.Fatalf("%s of %q", got.Status, where)
		}
	case got.StatusCode == http.StatusPartialContent && method == http.MethodGet:
		for _, part := range partsOf(t, got, body) {
			var first, last, size int
			_, err := fmt.Sscanf(part.where, "bytes %d-%d/%d", &first, &last, &size)
			if err != nil || size != len(content) || first < 0 || last < first || last >= size || content[first:last+1] != part.body {
				t.Fatalf("%s is said to be %q", part.where, part.body)
			}
		}
	}

	if want.StatusCode == http.StatusPartialContent && method == http.MethodGet {
		all := partsOf(t, want, readAll(t, want.Body))
		filled := slices.DeleteFunc(slices.Clone(all), func(p rangePart) bool { return p.body == "" })
		if len(filled) < len(all) {
			switch {
			case len(filled) > 0 && fmt.Sprint(partsOf(t, got, body)) != fmt.Sprint(filled):
				t.Fatalf("%s with %q, want %q", got.Status, body, filled)
			case len(filled) == 0 && content != "" && got.StatusCode != http.StatusRequestedRangeNotSatisfiable,
				len(filled) == 0 && content == "" && got.StatusCode != http.StatusOK:
				t.Fatalf("%s for no bytes of %q", got.Status, content)
			}
			return
		}
		if fmt.Sprint(partsOf(t, got, body)) != fmt.Sprint(all) {
			t.Fatalf("%s with %q, want %q", got.Status, body, all)
		}
	}
	if method == http.MethodHead && want.StatusCode == http.StatusPartialContent {
		return // GET tells which parts have bytes
	}
	if got.StatusCode != want.StatusCode || got.Header.Get("Content-Range") != want.Header.Get("Content-Range") && got.StatusCode != http.StatusPartialContent {
		t.Fatalf("%s: %s, Content-Range %q, want %s, %q", method, got.Status, got.Header.Get("Content-Range"), want.Status, want.Header.Get("Content-Range"))
	}
	if length := got.Header.Get("Content-Length"); got.StatusCode < 400 && length != want.Header.Get("Content-Length") {
		t.Fatalf("%s: %s with Content-Length %q, want %q", method, got.Status, length, want.Header.Get("Content-Length"))
	}
	if got.StatusCode == http.StatusOK && method == http.MethodGet && body != content {
		t.Fatalf("%q, want %q", body, content)
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
