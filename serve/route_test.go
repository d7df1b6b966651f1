package serve

import (
	"net/url"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

func TestRoute(t *testing.T) {
	sha256 := digest.SHA256.FromString("x").String()
	sha512 := digest.SHA512.FromString("x").String()
	kinds := map[kind]string{
		kindOutside: "outside", kindPage: "root", kindPing: "ping", kindBlob: "blob",
		kindManifest: "manifest", kindTags: "tags", kindReferrers: "referrers", kindCatalog: "catalog",
	}
	n := testNames(t, "")
	for _, test := range []struct {
		method, url string
		want        string // kind and reference, or the code of the error
	}{
		{"GET", "/", "root"},
		{"POST", "/", "root"},
		{"GET", "/v1/search", "outside"},
		{"GET", "/v2x/", "outside"},
		{"GET", "/V2/", "outside"},
		{"GET", "//v2/", "outside"},
		{"GET", "/a/b/v2/", "outside"},
		{"DELETE", "/etc/passwd", "outside"},

		{"GET", "/v2", "ping"},
		{"GET", "/v2/", "ping"},
		{"HEAD", "/v2/?ns=docker.io", "ping"},
		{"GET", "/ghcr.io/v2", "ping"},
		{"GET", "/ghcr/v2/", "ping"},
		{"GET", "/v2//", codeNameUnknown},

		{"GET", "/v2/a/b/manifests/latest", "manifest latest"},
		{"HEAD", "/v2/a/b/manifests/" + sha256, "manifest " + sha256},
		{"GET", "/v2/a/b/manifests/" + sha512, "manifest " + sha512},
		{"GET", "/v2/a/b/manifests/" + strings.Replace(sha256, ":", "%3A", 1), "manifest " + sha256},
		{"GET", "/v2/a/b/manifests/sha256-" + sha256[7:] + ".sig", "manifest sha256-" + sha256[7:] + ".sig"},
		{"GET", "/v2/library/manifests/manifests/manifests", "manifest manifests"},
		{"GET", "/v2/a/manifests/" + strings.Repeat("t", 128), "manifest " + strings.Repeat("t", 128)},
		{"GET", "/v2/a/manifests/" + strings.Repeat("t", 129), codeManifestUnknown},
		{"GET", "/v2/a/manifests/.INVALID_MANIFEST_NAME", codeManifestUnknown},
		{"GET", "/v2/a/manifests/", codeManifestUnknown},
		{"GET", "/v2/a/manifests/a%00b", codeManifestUnknown},
		{"GET", "/v2/a/manifests/sha256:abc", codeDigestInvalid},
		{"GET", "/v2/a/manifests/md5:d41d8cd98f00b204e9800998ecf8427e", codeDigestInvalid},
		{"GET", "/v2/a/manifests/latest:", codeDigestInvalid},
		{"GET", "/v2/manifests/latest", codeNameUnknown},
		{"GET", "/v2/a/manifests", codeNameUnknown},
		{"GET", "/v2/a/manifests/latest/", codeNameUnknown},

		{"GET", "/v2/a/blobs/" + sha256, "blob " + sha256},
		{"HEAD", "/v2/a/blobs/" + sha512, "blob " + sha512},
		{"GET", "/v2/a/blobs/blobs/" + sha256, "blob " + sha256},
		{"GET", "/v2/a/blobs/latest", codeDigestInvalid},
		{"GET", "/v2/a/blobs/" + strings.ToUpper(sha256), codeDigestInvalid},
		{"GET", "/v2/a/blobs/sha256:" + strings.Repeat("../", 21) + "a", codeNameUnknown},
		{"GET", "/v2/a/blobs/sha256:" + strings.Repeat("%2e%2e%2f", 21), codeNameInvalid},
		{"GET", "/v2/a/blobs/uploads/", codeNameUnknown},
		{"GET", "/v2/a/blobs/uploads/123", codeNameUnknown},

		{"GET", "/v2/a/tags/list", "tags"},
		{"GET", "/v2/tags/tags/list", "tags"},
		{"GET", "/v2/a/tags/list?n=0", "tags"},
		{"GET", "/v2/a/tags/list?n=", "tags"},
		{"GET", "/v2/a/tags/list?n=-1", codeUnsupported},
		{"GET", "/v2/a/tags/list?n=%2B1", codeUnsupported},
		{"GET", "/v2/a/tags/list?n=1.5", codeUnsupported},
		{"GET", "/v2/a/tags/list?n=x", codeUnsupported},
		{"GET", "/v2/a/tags/list?n=99999999999999999999", codeUnsupported},
		{"GET", "/v2/a/tags/list?n=%", codeUnsupported},
		{"GET", "/v2/a/tags/list?last=%", codeNameInvalid},
		{"GET", "/v2/tags/list", codeNameUnknown},
		{"GET", "/v2/a/tags/other", codeNameUnknown},

		{"GET", "/v2/a/referrers/" + sha256, "referrers " + sha256},
		{"GET", "/v2/a/referrers/latest", codeDigestInvalid},
		{"GET", "/v2/a/referrers/" + sha256 + "?artifactType=%", codeNameInvalid},

		{"GET", "/v2/_catalog", "catalog"},
		{"GET", "/v2/_catalog?ns=ghcr.io", "catalog"},
		{"GET", "/v2/ghcr.io/_catalog", "catalog"},
		{"GET", "/ghcr.io/v2/_catalog", "catalog"},
		{"GET", "/v2/ghcr.io/_catalog?ns=ghcr.io", "catalog"},
		{"GET", "/v2/ghcr.io/_catalog?ns=quay.io", codeNameUnknown},
		{"GET", "/v2/library/_catalog", codeNameUnknown},
		{"GET", "/v2/_catalog?n=x", codeUnsupported},
		{"GET", "/v2/_catalog/", codeNameUnknown},

		// Writes, before anything else is looked at.
		{"PUT", "/v2/a/manifests/latest", codeUnsupported},
		{"POST", "/v2/a/blobs/uploads/", codeUnsupported},
		{"PATCH", "/v2/a/blobs/uploads/123", codeUnsupported},
		{"DELETE", "/v2/a/blobs/" + sha256, codeUnsupported},
		{"POST", "/v2/", codeUnsupported},
		{"OPTIONS", "/v2/../x", codeUnsupported},
		{"get", "/v2/", codeUnsupported},
		{"PUT", "/ghcr.io/v2/a/manifests/1", codeUnsupported},
		{"PUT", "/unknown/v2/a/manifests/1", "outside"},
	} {
		u, err := url.ParseRequestURI(test.url)
		if err != nil {
			// What net/http does not let through.
			u = &url.URL{Path: test.url}
			if path, query, ok := strings.Cut(test.url, "?"); ok {
				u = &url.URL{Path: path, RawQuery: query}
			}
		}
		req, err := n.route(test.method, "mirror.lan:5000", u)
		got := strings.TrimSpace(kinds[req.kind] + " " + req.reference)
		if err != nil {
			got = err.(*apiError).code
		}
		if got != test.want {
			t.Errorf("%s %.120s: got %.120s, want %.120s", test.method, test.url, got, test.want)
		}
	}
}

func TestQueryValue(t *testing.T) {
	for _, test := range []struct {
		query, want string
		ok          bool
	}{
		{"", "", true},
		{"ns=a", "a", true},
		{"x=1&ns=a", "a", true},
		{"ns=a&ns=b", "a", true},
		{"xns=a&ns=b", "b", true},
		{"&&ns=a%20b+c&", "a b c", true},
		{"ns==", "=", true},
		{"ns=%4", "", false},
	} {
		if got, ok := queryValue(test.query, "ns"); got != test.want || ok != test.ok {
			t.Errorf("%q: got %q, %v", test.query, got, ok)
		}
	}
}

// FuzzRoute holds that no request panics, that what comes out is valid by the
// rules of distribution/reference and go-digest and could be no path out of a
// folder, that ns decides, and that the plainest way to write the same request
// means the same.
func FuzzRoute(f *testing.F) {
	sha256 := digest.SHA256.FromString("x").String()
	for _, seed := range []string{
		"/", "/v2/", "/v2/_catalog?n=5&last=a", "/v2/library/debian/manifests/bookworm?ns=docker.io",
		"/ghcr.io/v2/ghcr/a/b/blobs/" + sha256, "/v2/a/manifests/manifests/" + sha256,
		"/v2/localhost:5000/a/tags/list?n=3&last=x%20y", "/v2/a%2fb/manifests/1", "/v2/../..//manifests/..",
		"/v2/[::1]:5/x/referrers/" + sha256 + "?artifactType=a/b", "/v2/A/B/manifests/1?ns=%zz", "/v2/\x00/manifests/\xff",
	} {
		f.Add("GET", "mirror.lan:5000", seed)
		f.Add("HEAD", "GHCR.mirror.lan.:443", seed)
	}
	n := testNames(f, "")
	f.Fuzz(func(t *testing.T, method, host, target string) {
		// As net/http reads it, and what it would refuse all the same.
		u, err := url.ParseRequestURI(target)
		if err != nil {
			path, query, _ := strings.Cut(target, "?")
			u = &url.URL{Path: path, RawQuery: query}
		} else if u.Host != "" {
			host = u.Host // RFC 9112, section 3.2.2
		}
		req, err := n.route(method, host, u)
		if err != nil {
			if _, ok := err.(*apiError); !ok {
				t.Fatalf("%T is no answer", err)
			}
			return
		}
		if req.kind != kindOutside && req.kind != kindPage && method != "GET" && method != "HEAD" {
			t.Fatalf("%q is let through", method)
		}
		checkRequest(t, &req)
		ns, _ := queryValue(u.RawQuery, "ns")
		if ns != "" && req.repo.Registry != "" && req.repo.Registry != n.registry(ns) {
			t.Fatalf("ns=%s leads to %s", ns, req.repo.Registry)
		}
		for _, plain := range plainURLs(&req) {
			u, err := url.ParseRequestURI(plain)
			if err != nil {
				t.Fatal(err)
			}
			again, err := n.route("GET", "mirror.lan:5000", u)
			if err != nil || again.kind != req.kind || again.repo != req.repo || again.reference != req.reference {
				t.Fatalf("%q means %+v, and %s means %+v, %v", target, req, plain, again, err)
			}
		}
	})
}

// checkRequest fails for a request that a Content must not get.
func checkRequest(t *testing.T, req *request) {
	t.Helper()
	for part := range strings.SplitSeq(req.repo.Path+"/"+req.reference, "/") {
		if part == "." || part == ".." {
			t.Fatalf("dots in %+v", req)
		}
	}
	switch req.kind {
	case kindCatalog:
		if host := req.repo.Registry; host != "" {
			if again, ok := canonicalHost(host); !ok || again != host {
				t.Fatalf("registry %q", host)
			}
		}
	case kindBlob, kindManifest, kindTags, kindReferrers:
		// A name that is 64 hexadecimal digits is valid but is not what
		// ParseNamed takes; with a tag it is.
		named, err := reference.ParseNamed(req.repo.String() + ":tag")
		if err != nil {
			t.Fatalf("repository %q: %v", req.repo, err)
		}
		if reference.Domain(named) != req.repo.Registry || reference.Path(named) != req.repo.Path {
			t.Fatalf("repository %q is read as %q", req.repo, named)
		}
	}
	switch req.kind {
	case kindTags, kindCatalog:
		if req.page.n < 0 || req.page.n > pageLimit {
			t.Fatalf("page of %d", req.page.n)
		}
		if strings.ContainsAny(req.page.link, "<>\"\r\n ") {
			t.Fatalf("link %q", req.page.link)
		}
	case kindManifest:
		if !strings.Contains(req.reference, ":") {
			named, _ := reference.WithName("a")
			if _, err := reference.WithTag(named, req.reference); err != nil {
				t.Fatalf("tag %q: %v", req.reference, err)
			}
			return
		}
		fallthrough
	case kindBlob, kindReferrers:
		if err := req.digest().Validate(); err != nil {
			t.Fatalf("digest %q: %v", req.reference, err)
		}
	case kindWatch:
		if !validToken(req.reference) {
			t.Fatalf("token %q", req.reference)
		}
	}
}

// plainURLs are the ways to write a request that need no configuration.
func plainURLs(req *request) []string {
	rest := ""
	switch req.kind {
	case kindBlob:
		rest = "/blobs/" + req.reference
	case kindManifest:
		rest = "/manifests/" + req.reference
	case kindTags:
		rest = "/tags/list"
	case kindReferrers:
		rest = "/referrers/" + req.reference
	default:
		return nil
	}
	registry, path := req.repo.Registry, req.repo.Path
	return []string{
		"/v2/" + registry + "/" + path + rest,
		"/v2/" + registry + "/" + path + rest + "?ns=" + url.QueryEscape(registry),
		"/" + registry + "/v2/" + registry + "/" + path + rest,
	}
}
