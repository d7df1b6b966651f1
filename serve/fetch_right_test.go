package serve

import (
	"net/http"
	"strings"
	"testing"
)

// TestMayFetch holds that who may not cause a download gets what is stored, and no
// more, and is told to log in where that would help.
func TestMayFetch(t *testing.T) {
	stored, elsewhere := newMemory(), newMemory()
	here := stored.addBlob([]byte("stored"))
	missing := elsewhere.addBlob([]byte("elsewhere"))
	for _, c := range []struct {
		ok        bool
		challenge string
		status    int
		says      string
	}{
		{true, "", http.StatusOK, "elsewhere"},
		{false, "", http.StatusNotFound, "is not in this mirror, and you may not let it be fetched"},
		{false, `Basic realm="x"`, http.StatusUnauthorized, "is not in this mirror: log in to let it be fetched"},
	} {
		asked := 0
		h := newHandler(t, stored, Options{Missing: elsewhere, MayFetch: func(*http.Request) (bool, string) {
			asked++
			return c.ok, c.challenge
		}})
		if res := do(t, h, "GET", "/v2/a/blobs/"+here.String()); res.StatusCode != http.StatusOK || asked != 0 {
			t.Errorf("what is stored: %d, asked %d times", res.StatusCode, asked)
		}
		for _, path := range []string{"/v2/a/blobs/" + missing.String(), "/v2/a/manifests/" + missing.String(), "/v2/a/manifests/tag"} {
			res := do(t, h, "GET", path)
			body := readAll(t, res.Body)
			if strings.Contains(path, "manifests") && c.ok {
				continue // there are none
			}
			if res.StatusCode != c.status || !strings.Contains(body, c.says) || res.Header.Get("WWW-Authenticate") != c.challenge {
				t.Errorf("%s: %d %s %s", path, res.StatusCode, res.Header, body)
			}
		}
		if asked != 3 {
			t.Errorf("asked %d times", asked)
		}
		if res := do(t, h, "GET", "/v2/a/referrers/"+missing.String()); res.StatusCode != http.StatusOK {
			t.Errorf("referrers: %d", res.StatusCode)
		}
	}
}
