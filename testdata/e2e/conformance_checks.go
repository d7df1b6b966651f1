//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// specChecks are what the specification says that a registry must do, as far as
// it reads. number is the endpoint's in its table.
var specChecks = []struct {
	number, must string
	check        func(t *testing.T, c *specClient)
}{
	{"end-1", "GET is 200", func(t *testing.T, c *specClient) {
		base, _, _ := strings.Cut(c.path, "/v2/")
		u, err := url.Parse("http://" + c.mirror + base + "/v2/")
		check(t, err)
		if a := c.send(t, http.MethodGet, u); a.StatusCode != http.StatusOK {
			t.Error(a.Status)
		}
	}},

	{"end-2", "a blob is 200, its bytes, digest and length", func(t *testing.T, c *specClient) {
		for _, b := range c.content.blobs {
			body, err := b.open()
			check(t, err)
			text, err := io.ReadAll(body)
			check(t, err)
			c.has(t, "/blobs/"+b.digest, "application/octet-stream", b.digest, text)
		}
	}},
	{"end-2", "a blob that is not there is 404", func(t *testing.T, c *specClient) {
		c.want(t, http.StatusNotFound, "GET HEAD", "/blobs/"+digestOf([]byte("no such blob")))
		c.want(t, http.StatusNotFound, "GET HEAD", "/blobs/"+digest512([]byte("no such blob")))
	}},
	{"end-2", "what is no digest is an error", func(t *testing.T, c *specClient) {
		c.want(t, http.StatusBadRequest, "GET HEAD", "/blobs/sha256:totallywrong")
		c.want(t, http.StatusBadRequest, "GET HEAD", "/blobs/latest")
	}},
	{"end-2", "Range is RFC 9110's", func(t *testing.T, c *specClient) {
		blob := c.content.blobs[slices.IndexFunc(c.content.blobs, func(b blob) bool { return b.size > 1000 })]
		body, err := blob.open()
		check(t, err)
		text, err := io.ReadAll(body)
		check(t, err)
		size := len(text)
		for _, part := range []struct {
			value       string
			first, last int
		}{
			{"bytes=0-0", 0, 0},
			{"bytes=100-199", 100, 199},
			{fmt.Sprintf("bytes=%d-", size-10), size - 10, size - 1},
			{"bytes=-10", size - 10, size - 1},
			{"bytes=500-99999999", 500, size - 1},
		} {
			a := c.ask(t, http.MethodGet, "/blobs/"+blob.digest, "Range", part.value)
			where := fmt.Sprintf("bytes %d-%d/%d", part.first, part.last, size)
			if a.StatusCode != http.StatusPartialContent || a.Header.Get("Content-Range") != where || !bytes.Equal(a.body, text[part.first:part.last+1]) {
				t.Errorf("%s: %s, %q, %d bytes", part.value, a.Status, a.Header.Get("Content-Range"), len(a.body))
			}
		}
		a := c.ask(t, http.MethodGet, "/blobs/"+blob.digest, "Range", fmt.Sprintf("bytes=%d-", size))
		if a.StatusCode != http.StatusRequestedRangeNotSatisfiable || a.Header.Get("Content-Range") != fmt.Sprintf("bytes */%d", size) {
			t.Errorf("beyond the end: %s, %v", a.Status, a.Header)
		}
	}},

	{"end-3", "a manifest by digest is 200, its bytes, type, digest and length", func(t *testing.T, c *specClient) {
		for _, m := range c.content.manifests {
			c.has(t, "/manifests/"+m.Digest, m.MediaType, m.Digest, m.bytes)
		}
	}},
	{"end-3", "a manifest by tag is the one that was pushed", func(t *testing.T, c *specClient) {
		for _, tag := range c.content.tags {
			m := tag.manifest
			c.has(t, "/manifests/"+tag.name, m.MediaType, m.Digest, m.bytes)
		}
	}},
	{"end-3", "a manifest is the pushed one whatever Accept says", func(t *testing.T, c *specClient) {
		tag := c.content.tags[0]
		for _, accept := range []string{"*/*", ociIndex, dockerManifest, "text/html"} {
			a := c.ask(t, http.MethodGet, "/manifests/"+tag.name, "Accept", accept)
			if a.StatusCode != http.StatusOK || !bytes.Equal(a.body, tag.manifest.bytes) {
				t.Errorf("Accept %s: %s", accept, a.Status)
			}
		}
	}},
	{"end-3", "a manifest that is not there is 404", func(t *testing.T, c *specClient) {
		for _, reference := range []string{
			"absent", "IMAGE", strings.Repeat("t", 128), ".INVALID_MANIFEST_NAME", strings.Repeat("t", 129),
			digestOf([]byte("absent")), digest512([]byte("absent")), c.content.blobs[0].digest, c.content.missing.Digest,
		} {
			c.want(t, http.StatusNotFound, "GET HEAD", "/manifests/"+reference)
		}
	}},
	{"end-3", "what is no digest is an error", func(t *testing.T, c *specClient) {
		c.want(t, http.StatusBadRequest, "GET HEAD", "/manifests/sha256:totallywrong")
		c.want(t, http.StatusBadRequest, "GET HEAD", "/manifests/sha256:baddigeststring")
	}},

	{"end-8a", "all tags in byte order, with the name", func(t *testing.T, c *specClient) {
		list, a := c.tags(t, "")
		_, name, _ := strings.Cut(c.path, "/v2/")
		if !slices.Equal(list.Tags, c.pushed()) || list.Name != name || a.Header.Get("Link") != "" {
			t.Errorf("%+v, Link %q, want %s and %q", list, a.Header.Get("Link"), name, c.pushed())
		}
	}},
	{"end-8a", "a repository that is not there is 404", func(t *testing.T, c *specClient) {
		other := *c
		other.path += "/absent"
		other.want(t, http.StatusNotFound, "GET HEAD", "/tags/list")
	}},
	{"end-8b", "n is how many", func(t *testing.T, c *specClient) {
		all := c.pushed()
		for n := 1; n <= len(all)+1; n++ {
			list, a := c.tags(t, fmt.Sprintf("?n=%d", n))
			want := all[:min(n, len(all))]
			if !slices.Equal(list.Tags, want) || (a.Header.Get("Link") != "") != (n < len(all)) {
				t.Errorf("n=%d: %q, Link %q, want %q", n, list.Tags, a.Header.Get("Link"), want)
			}
		}
	}},
	{"end-8b", "n of zero is an empty list without Link", func(t *testing.T, c *specClient) {
		if list, a := c.tags(t, "?n=0"); len(list.Tags) > 0 || a.Header.Get("Link") != "" {
			t.Errorf("%q, Link %q", list.Tags, a.Header.Get("Link"))
		}
	}},
	{"end-8b", "the list goes on after last, which needs no n and need not be a tag", func(t *testing.T, c *specClient) {
		all := c.pushed()
		for i, last := range all {
			if list, _ := c.tags(t, "?last="+last); !slices.Equal(list.Tags, all[i+1:]) {
				t.Errorf("last=%s: %q, want %q", last, list.Tags, all[i+1:])
			}
			if list, _ := c.tags(t, "?n=2&last="+last); !slices.Equal(list.Tags, all[i+1:min(i+3, len(all))]) {
				t.Errorf("n=2, last=%s: %q", last, list.Tags)
			}
			if list, _ := c.tags(t, "?last="+last+"-"); slices.Contains(list.Tags, last) {
				t.Errorf("last=%s-: %q", last, list.Tags)
			}
		}
	}},
	{"end-8b", "Link is RFC 8288's and leads through all tags", func(t *testing.T, c *specClient) {
		var seen []string
		list, a := c.tags(t, "?n=3")
		for len(seen) <= len(c.pushed()) {
			seen = append(seen, list.Tags...)
			link := a.Header.Get("Link")
			if link == "" {
				break
			}
			target, ok := strings.CutSuffix(link, `>; rel="next"`)
			target, ok2 := strings.CutPrefix(target, "<")
			next, err := a.Request.URL.Parse(target)
			if !ok || !ok2 || err != nil {
				t.Fatalf("Link %q, %v", link, err)
			}
			a = c.send(t, http.MethodGet, next)
			list = tagList{}
			decodeInto(t, a, &list)
		}
		if !slices.Equal(seen, c.pushed()) {
			t.Errorf("%q, want %q", seen, c.pushed())
		}
	}},

	{"end-12a", "all referrers with type, digest, size, artifact type and annotations", func(t *testing.T, c *specClient) {
		got, filters := c.referrers(t, c.content.subject.Digest)
		sameDescriptors(t, got, c.content.children)
		if filters != "" {
			t.Errorf("filters %q", filters)
		}
	}},
	{"end-12a", "a subject that is not there has its referrers", func(t *testing.T, c *specClient) {
		got, _ := c.referrers(t, c.content.missing.Digest)
		sameDescriptors(t, got, []descriptor{c.content.orphan})
	}},
	{"end-12a", "no referrers are an empty list and no 404", func(t *testing.T, c *specClient) {
		for _, digest := range []string{digestOf([]byte("absent")), digest512([]byte("absent")), c.content.tags[0].manifest.Digest} {
			if got, _ := c.referrers(t, digest); len(got) > 0 {
				t.Errorf("%s: %+v", digest, got)
			}
		}
	}},
	{"end-12a", "what is no digest is 400", func(t *testing.T, c *specClient) {
		c.want(t, http.StatusBadRequest, "GET HEAD", "/referrers/latest")
		c.want(t, http.StatusBadRequest, "GET HEAD", "/referrers/sha256:baddigeststring")
	}},
	{"end-12b", "a filter that is applied is said to be", func(t *testing.T, c *specClient) {
		for _, artifactType := range []string{exampleSBOM, exampleProof, "application/vnd.example.absent"} {
			var want []descriptor
			for _, d := range c.content.children {
				if d.ArtifactType == artifactType {
					want = append(want, d)
				}
			}
			got, filters := c.referrers(t, c.content.subject.Digest+"?artifactType="+url.QueryEscape(artifactType))
			sameDescriptors(t, got, want)
			if filters != "artifactType" {
				t.Errorf("filters %q", filters)
			}
		}
	}},

	{"end-4a to 7b, 9 to 11, 14", "what writes is refused, and nothing has changed", func(t *testing.T, c *specClient) {
		tag, blob := c.content.tags[0], c.content.blobs[0].digest
		for _, request := range [][2]string{
			{"POST", "/blobs/uploads/"},
			{"POST", "/blobs/uploads/?digest=" + blob},
			{"POST", "/blobs/uploads/?digest-algorithm=sha512"},
			{"POST", "/blobs/uploads/?mount=" + blob + "&from=library/other"},
			{"PATCH", "/blobs/uploads/1"},
			{"PUT", "/blobs/uploads/1?digest=" + blob},
			{"PUT", "/manifests/new"},
			{"PUT", "/manifests/" + tag.name},
			{"PUT", "/manifests/" + tag.manifest.Digest + "?tag=new"},
			{"DELETE", "/manifests/" + tag.name},
			{"DELETE", "/manifests/" + tag.manifest.Digest},
			{"DELETE", "/blobs/" + blob},
			{"DELETE", "/blobs/uploads/1"},
		} {
			c.want(t, http.StatusMethodNotAllowed, request[0], request[1])
		}
		c.has(t, "/manifests/"+tag.name, tag.manifest.MediaType, tag.manifest.Digest, tag.manifest.bytes)
		c.want(t, http.StatusOK, "GET", "/blobs/"+blob)
		if list, _ := c.tags(t, ""); !slices.Equal(list.Tags, c.pushed()) {
			t.Errorf("%q", list.Tags)
		}
	}},
	{"end-13", "an upload that is not there is 404", func(t *testing.T, c *specClient) {
		c.want(t, http.StatusNotFound, "GET", "/blobs/uploads/1")
	}},

	{"Registry Proxying", "ns comes back as OCI-Namespace", func(t *testing.T, c *specClient) {
		for _, target := range []string{"/manifests/" + c.content.tags[0].name, "/blobs/" + c.content.blobs[0].digest, "/tags/list", "/manifests/absent"} {
			if got := c.ask(t, http.MethodGet, target).Header.Get("OCI-Namespace"); got != c.ns {
				t.Errorf("%s: %q, want %q", target, got, c.ns)
			}
		}
	}},
}
