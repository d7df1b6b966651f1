//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// specClient asks a mirror for a repository by one form of its name.
type specClient struct {
	form, mirror, host, path, ns string

	content *specContent
}

// ask requests what follows the name of the repository. Each error is checked:
// "Error Codes" of the specification.
func (c *specClient) ask(t *testing.T, method, target string, header ...string) answer {
	t.Helper()
	u, err := url.Parse("http://" + c.mirror + c.path + target)
	check(t, err)
	if c.ns != "" {
		query := u.Query()
		query.Set("ns", c.ns)
		u.RawQuery = query.Encode()
	}
	return c.send(t, method, u, header...)
}

func (c *specClient) send(t *testing.T, method string, u *url.URL, header ...string) answer {
	t.Helper()
	request, err := http.NewRequest(method, u.String(), nil)
	check(t, err)
	request.Host = c.host
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	check(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	check(t, err)
	a := answer{response, body}
	if a.StatusCode >= 400 && method != http.MethodHead {
		checkSpecError(t, a)
	}
	return a
}

func checkSpecError(t *testing.T, a answer) {
	t.Helper()
	var body struct {
		Errors []struct{ Code, Message string }
	}
	if err := json.Unmarshal(a.body, &body); err != nil || len(body.Errors) == 0 || a.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("%s %s: %s with the body %q of %s", a.Request.Method, a.Request.URL, a.Status, a.body, a.Header.Get("Content-Type"))
	}
	for _, e := range body.Errors {
		if !slices.Contains(specCodes, e.Code) {
			t.Errorf("%s: code %q is none of the specification's", a.Request.URL, e.Code)
		}
	}
}

var specCodes = []string{
	"BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN",
	"MANIFEST_INVALID", "MANIFEST_UNKNOWN", "NAME_INVALID", "NAME_UNKNOWN", "SIZE_INVALID",
	"UNAUTHORIZED", "DENIED", "UNSUPPORTED", "TOOMANYREQUESTS",
}

// want demands a status of each method.
func (c *specClient) want(t *testing.T, status int, methods, target string) {
	t.Helper()
	for method := range strings.FieldsSeq(methods) {
		if a := c.ask(t, method, target); a.StatusCode != status {
			t.Errorf("%s %s: %s, want %d", method, target, a.Status, status)
		} else if method == http.MethodHead && len(a.body) > 0 {
			t.Errorf("HEAD %s: has a body", target)
		}
	}
}

// has demands that GET and HEAD give content as it is.
func (c *specClient) has(t *testing.T, target, mediaType, digest string, want []byte) {
	t.Helper()
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		a := c.ask(t, method, target)
		if a.StatusCode != http.StatusOK || a.Header.Get("Docker-Content-Digest") != digest ||
			a.Header.Get("Content-Length") != fmt.Sprint(len(want)) || a.Header.Get("Content-Type") != mediaType {
			t.Errorf("%s %s: %s, %v", method, target, a.Status, a.Header)
		}
		if method == http.MethodGet && !bytes.Equal(a.body, want) {
			t.Errorf("%s: other bytes", target)
		}
	}
}

type tagList struct {
	Name string   `json:"name"`
	Tags []string `json:"tags"`
}

func (c *specClient) tags(t *testing.T, query string) (tagList, answer) {
	t.Helper()
	a := c.ask(t, http.MethodGet, "/tags/list"+query)
	var list tagList
	decodeInto(t, a, &list)
	if list.Tags == nil {
		t.Fatalf("tags%s: %s", query, a.body)
	}
	return list, a
}

// decodeInto reads a successful answer.
func decodeInto(t *testing.T, a answer, value any) {
	t.Helper()
	if err := json.Unmarshal(a.body, value); err != nil || a.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v: %s", a.Request.URL, a.Status, err, a.body)
	}
}

// pushed are the tags of the content, in byte order.
func (c *specClient) pushed() (names []string) {
	for _, tag := range c.content.tags {
		names = append(names, tag.name)
	}
	slices.Sort(names)
	return names
}

// referrers returns a list and the header that says which filters it is from.
func (c *specClient) referrers(t *testing.T, target string) ([]descriptor, string) {
	t.Helper()
	a := c.ask(t, http.MethodGet, "/referrers/"+target)
	var list manifest
	decodeInto(t, a, &list)
	if a.Header.Get("Content-Type") != ociIndex || list.SchemaVersion != 2 || list.MediaType != ociIndex || list.Manifests == nil {
		t.Errorf("referrers of %s: no index: %v %s", target, a.Header, a.body)
	}
	return list.Manifests, a.Header.Get("OCI-Filters-Applied")
}

// sameDescriptors compares without regard to order, which nothing promises.
func sameDescriptors(t *testing.T, got, want []descriptor) {
	t.Helper()
	order := func(a, b descriptor) int { return strings.Compare(a.Digest, b.Digest) }
	got, want = slices.SortedFunc(slices.Values(got), order), slices.SortedFunc(slices.Values(want), order)
	if !slices.EqualFunc(got, want, func(a, b descriptor) bool { return reflect.DeepEqual(a, b) }) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}
