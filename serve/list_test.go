package serve

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

type listAnswer struct {
	Name         string
	Tags         []string
	Repositories []string
}

// follow asks for pages until there is no Link, and returns all names and the
// number of requests.
func follow(t *testing.T, h http.Handler, target string) (names []string, requests int) {
	t.Helper()
	for target != "" {
		res := do(t, h, "GET", target)
		var answer listAnswer
		if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || res.StatusCode != 200 {
			t.Fatalf("%s: %s: %v", target, res.Status, err)
		}
		names = append(append(names, answer.Tags...), answer.Repositories...)
		if requests++; requests > 100 {
			t.Fatalf("%s: no end", target)
		}
		link := res.Header.Get("Link")
		if link == "" {
			return names, requests
		}
		next, ok := strings.CutSuffix(strings.TrimPrefix(link, "<"), `>; rel="next"`)
		if !ok {
			t.Fatalf("link %q", link)
		}
		base, err := url.Parse(target)
		if err != nil {
			t.Fatal(err)
		}
		u, err := base.Parse(next)
		if err != nil {
			t.Fatal(err)
		}
		target = u.String()
	}
	return names, requests
}

func TestTags(t *testing.T) {
	content, index, _ := testContent()
	content.pins = nil
	content.pins = newMemory().pins
	var want []string
	for i := range 25 {
		tag := fmt.Sprintf("v1.%d_x-y", i)
		want = append(want, tag)
		content.pin("ghcr.io/acme/tool", tag, index)
	}
	slices.Sort(want)
	h := newHandler(t, content, Options{Aliases: testAliases})
	for _, target := range []string{
		"/v2/acme/tool/tags/list?ns=ghcr.io",
		"/v2/ghcr.io/acme/tool/tags/list?x=1",
		"/v2/ghcr/acme/tool/tags/list?ns=ghcr.io",
		"/ghcr.io/v2/acme/tool/tags/list?x=1",
	} {
		for n, requests := range map[string]int{"": 1, "&n=1": 25, "&n=7": 4, "&n=25": 1, "&n=24": 2, "&n=2000000000": 1} {
			got, count := follow(t, h, target+n)
			if !slices.Equal(got, want) || count != requests {
				t.Errorf("%s%s: %d names in %d requests", target, n, len(got), count)
			}
		}
	}
	got, _ := follow(t, h, "/v2/ghcr.io/acme/tool/tags/list?last="+want[20])
	if !slices.Equal(got, want[21:]) {
		t.Errorf("after %s: %v", want[20], got)
	}
	res := do(t, h, "GET", "/v2/ghcr.io/acme/tool/tags/list?n=0")
	if body := readAll(t, res.Body); body != `{"name":"ghcr.io/acme/tool","tags":[]}` || res.Header.Get("Link") != "" {
		t.Errorf("n=0: %s %v", body, res.Header)
	}
	res = do(t, h, "HEAD", "/v2/ghcr.io/acme/tool/tags/list?n=3")
	if body := readAll(t, res.Body); body != "" || res.Header.Get("Content-Length") == "" || res.Header.Get("Link") == "" {
		t.Errorf("HEAD: %q %v", body, res.Header)
	}
}

func TestCatalog(t *testing.T) {
	content := newMemory()
	d := content.addManifest(testType, testIndex)
	for _, name := range []string{
		"docker.io/library/debian", "docker.io/library/busybox", "docker.io/acme/tool",
		"ghcr.io/acme/tool", "ghcr.io/acme/tool-b", "ghcr.io/zed", "localhost:5000/x",
	} {
		content.pin(name, "1", d)
	}
	h := newHandler(t, content, Options{})
	ghcr := []string{"acme/tool", "acme/tool-b", "zed"}
	all := []string{
		"docker.io/acme/tool", "docker.io/library/busybox", "docker.io/library/debian",
		"ghcr.io/acme/tool", "ghcr.io/acme/tool-b", "ghcr.io/zed", "localhost:5000/x",
	}
	for target, want := range map[string][]string{
		"/v2/_catalog?":                         all,
		"/v2/_catalog?n=1":                      all,
		"/v2/_catalog?n=3":                      all,
		"/v2/_catalog?last=ghcr.io/zed":         all[6:],
		"/v2/_catalog?ns=ghcr.io":               ghcr,
		"/v2/_catalog?ns=ghcr.io&n=1":           ghcr,
		"/v2/_catalog?n=2&ns=GHCR.io":           ghcr,
		"/ghcr.io/v2/_catalog?n=2":              ghcr,
		"/v2/ghcr.io/_catalog?n=1":              ghcr,
		"/v2/_catalog?ns=ghcr.io&last=acme/too": ghcr,
		"/v2/_catalog?ns=quay.io":               nil,
	} {
		if got, _ := follow(t, h, target); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", target, got, want)
		}
	}
	res := do(t, h, "GET", "/v2/_catalog?ns=quay.io")
	if body := readAll(t, res.Body); body != `{"repositories":[]}` {
		t.Errorf("empty: %s", body)
	}
}

func TestPageLimit(t *testing.T) {
	content := newMemory()
	d := content.addManifest(testType, testIndex)
	for i := range pageLimit + 1 {
		content.pin("docker.io/library/many", fmt.Sprintf("%06d", i), d)
	}
	got, requests := follow(t, newHandler(t, content, Options{}), "/v2/many/tags/list")
	if len(got) != pageLimit+1 || requests != 2 {
		t.Errorf("%d names in %d requests", len(got), requests)
	}
}

func TestReferrers(t *testing.T) {
	content, index, _ := testContent()
	content.referrers[index] = []v1.Descriptor{
		{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromString("1"), Size: 1, ArtifactType: "application/sbom", Annotations: map[string]string{"a": "b"}},
		{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromString("2"), Size: 2, ArtifactType: "application/sig+json"},
	}
	h := newHandler(t, content, Options{})
	target := "/v2/library/debian/referrers/" + index.String()
	for _, test := range []struct {
		target  string
		sizes   []int64
		applied string
	}{
		{target, []int64{1, 2}, ""},
		{target + "?artifactType=", []int64{1, 2}, ""},
		{target + "?artifactType=application/sbom", []int64{1}, "artifactType"},
		{target + "?artifactType=application%2Fsig%2Bjson", []int64{2}, "artifactType"},
		{target + "?artifactType=none", nil, "artifactType"},
		{"/v2/library/debian/referrers/" + digest.FromString("absent").String(), nil, ""},
	} {
		res := do(t, h, "GET", test.target)
		body := readAll(t, res.Body)
		var got v1.Index
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatal(err)
		}
		var sizes []int64
		for _, d := range got.Manifests {
			sizes = append(sizes, d.Size)
		}
		if res.StatusCode != 200 || got.SchemaVersion != 2 || got.MediaType != v1.MediaTypeImageIndex ||
			res.Header.Get("Content-Type") != v1.MediaTypeImageIndex || !strings.Contains(body, `"manifests":[`) {
			t.Errorf("%s: %s %v %s", test.target, res.Status, res.Header, body)
		}
		if !slices.Equal(sizes, test.sizes) || res.Header.Get("OCI-Filters-Applied") != test.applied {
			t.Errorf("%s: got %v, filters %q", test.target, sizes, res.Header.Get("OCI-Filters-Applied"))
		}
	}
	if len(content.referrers[index]) != 2 || content.referrers[index][0].Size != 1 {
		t.Error("the filter changed the content's list")
	}
}
