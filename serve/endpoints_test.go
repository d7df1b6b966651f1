package serve

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// specCodes are those that the body of a 4XX answer may have: distribution-spec,
// "Error Codes".
var specCodes = []string{
	"BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN",
	"MANIFEST_INVALID", "MANIFEST_UNKNOWN", "NAME_INVALID", "NAME_UNKNOWN", "SIZE_INVALID",
	"UNAUTHORIZED", "DENIED", "UNSUPPORTED", "TOOMANYREQUESTS",
}

// TestEndpoints asks for every endpoint of the distribution specification, by
// its number there, in every form that a name has here. Those that write are
// refused whoever asks for what.
func TestEndpoints(t *testing.T) {
	content, index, layer := testContent()
	h := newHandler(t, content, Options{Aliases: testAliases, Hosts: testHosts})
	absent := digest.FromString("absent").String()
	forms := []struct{ what, host, before, path, query string }{
		{"default", "mirror.lan", "", "library/debian", ""},
		{"one word", "mirror.lan", "", "debian", ""},
		{"ns", "mirror.lan", "", "library/debian", "ns=docker.io"},
		{"prefix", "mirror.lan", "", "docker.io/library/debian", ""},
		{"prefix and ns", "mirror.lan", "", "docker.io/library/debian", "ns=docker.io"},
		{"alias", "mirror.lan", "", "dockerhub/library/debian", ""},
		{"prefix before /v2", "mirror.lan", "/docker.io", "library/debian", ""},
		{"host", "docker.mirror.lan:5000", "", "library/debian", ""},
	}
	for _, endpoint := range []struct {
		number, methods, path, query string
		status                       int
		code                         string
	}{
		{"end-2", "GET HEAD", "/blobs/" + layer.String(), "", 200, ""},
		{"end-2", "GET HEAD", "/blobs/" + absent, "", 404, codeBlobUnknown},
		{"end-2", "GET HEAD", "/blobs/sha256:1", "", 400, codeDigestInvalid},
		{"end-3", "GET HEAD", "/manifests/bookworm", "", 200, ""},
		{"end-3", "GET HEAD", "/manifests/" + index.String(), "", 200, ""},
		{"end-3", "GET HEAD", "/manifests/sid", "", 404, codeManifestUnknown},
		{"end-3", "GET HEAD", "/manifests/" + absent, "", 404, codeManifestUnknown},
		{"end-3", "GET HEAD", "/manifests/sha256:totallywrong", "", 400, codeDigestInvalid},
		{"end-4a", "POST", "/blobs/uploads/", "", 405, codeUnsupported},
		{"end-4b", "POST", "/blobs/uploads/", "digest=" + absent, 405, codeUnsupported},
		{"end-4c", "POST", "/blobs/uploads/", "digest-algorithm=sha512", 405, codeUnsupported},
		{"end-5", "PATCH", "/blobs/uploads/1", "", 405, codeUnsupported},
		{"end-6", "PUT", "/blobs/uploads/1", "digest=" + absent, 405, codeUnsupported},
		{"end-7a", "PUT", "/manifests/bookworm", "", 405, codeUnsupported},
		{"end-7b", "PUT", "/manifests/" + index.String(), "tag=1&tag=2", 405, codeUnsupported},
		{"end-8a", "GET HEAD", "/tags/list", "", 200, ""},
		{"end-8b", "GET HEAD", "/tags/list", "n=1&last=a", 200, ""},
		{"end-8b", "GET HEAD", "/tags/list", "n=-1", 400, codeUnsupported},
		{"end-9", "DELETE", "/manifests/bookworm", "", 405, codeUnsupported},
		{"end-9", "DELETE", "/manifests/" + index.String(), "", 405, codeUnsupported},
		{"end-10", "DELETE", "/blobs/" + layer.String(), "", 405, codeUnsupported},
		{"end-11", "POST", "/blobs/uploads/", "mount=" + layer.String() + "&from=a/b", 405, codeUnsupported},
		{"end-12a", "GET HEAD", "/referrers/" + index.String(), "", 200, ""},
		{"end-12a", "GET HEAD", "/referrers/" + absent, "", 200, ""},
		{"end-12a", "GET HEAD", "/referrers/latest", "", 400, codeDigestInvalid},
		{"end-12b", "GET HEAD", "/referrers/" + index.String(), "artifactType=a/b", 200, ""},
		{"end-13", "GET HEAD", "/blobs/uploads/1", "", 404, codeNameUnknown},
		{"end-14", "DELETE", "/blobs/uploads/1", "", 405, codeUnsupported},
	} {
		if endpoint.code != "" && !slices.Contains(specCodes, endpoint.code) {
			t.Errorf("%s: the specification has no %s", endpoint.number, endpoint.code)
		}
		for _, form := range forms {
			for method := range strings.FieldsSeq(endpoint.methods) {
				target := fmt.Sprintf("http://%s%s/v2/%s%s?%s", form.host, form.before, form.path, endpoint.path,
					strings.Trim(form.query+"&"+endpoint.query, "&"))
				res := do(t, h, method, target)
				body := readAll(t, res.Body)
				if res.StatusCode != endpoint.status {
					t.Errorf("%s: %s %s: %s, want %d", endpoint.number, method, target, res.Status, endpoint.status)
					continue
				}
				if endpoint.status >= 400 {
					checkError(t, method, res, body, endpoint.code)
				}
				if allow := res.Header.Get("Allow"); (endpoint.status == http.StatusMethodNotAllowed) != (allow == "GET, HEAD") {
					t.Errorf("%s: %s %s: Allow %q", endpoint.number, method, target, allow)
				}
			}
		}
	}
}

// TestErrorCodes looks at all errors that a client can be to blame for.
func TestErrorCodes(t *testing.T) {
	repo := request{reference: "x"}
	for _, err := range []error{
		errReadOnly, errNoEndpoint, errName, errEncodedSlash, errNamespace, errQuery, errPageSize, errDigest, errTag,
		errNoManifest(&repo), errNoBlob(&repo), errNoRepository(&repo),
	} {
		e := err.(*apiError)
		if e.status < 400 || e.status > 499 || !slices.Contains(specCodes, e.code) || e.message == "" {
			t.Errorf("%d %s %q", e.status, e.code, e.message)
		}
	}
}
