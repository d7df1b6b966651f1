package serve

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"mirrorctl/store"
)

// pageLimit is how many names one answer of tags/list or _catalog has at most,
// whatever n says. The next page is in the Link header, which clients follow.
const pageLimit = 10_000

type kind uint8

const (
	// The zero kind is a path outside the API.
	kindOutside kind = iota

	// / and what is below /-/, for people who open the address in a browser.
	kindPage

	// end-1	GET	/v2/	200	404/401
	kindPing

	// end-2	GET, HEAD	/v2/<name>/blobs/<digest>	200	404
	kindBlob

	// end-3	GET, HEAD	/v2/<name>/manifests/<reference>	200	404
	kindManifest

	// end-8a	GET	/v2/<name>/tags/list	200	404
	// end-8b	GET	/v2/<name>/tags/list?n=<integer>&last=<tag>	200	404
	kindTags

	// end-12a	GET	/v2/<name>/referrers/<digest>	200	404/400
	// end-12b	GET	/v2/<name>/referrers/<digest>?artifactType=<type>	200	404/400
	kindReferrers

	// Docker's registry API; not in the OCI specification.
	// GET	/v2/_catalog	200
	// GET	/v2/_catalog?n=<integer>&last=<name>	200
	kindCatalog

	// This mirror's own, for doctor.
	// GET	/v2/_mirrorctl/doctor/<token>	200	404
	kindWatch
)

// request is what a URL asks for. Everything in it has been checked.
type request struct {
	kind kind

	// repo is set for blob, manifest, tags and referrers. For catalog only its
	// registry is, and that is empty if all registries are meant.
	repo store.Repository

	// name is repo as the client wrote it. Set for tags.
	name string

	// reference is a tag or a digest for manifest, a digest for blob and
	// referrers, the token of a probe for watch.
	reference string

	// artifactType is the wanted one for referrers, empty for all.
	artifactType string

	// page is what was asked for by tags and catalog.
	page page

	// ns is the registry as the query names it; empty if it does not.
	ns string
}

func (r *request) digest() digest.Digest { return digest.Digest(r.reference) }

// page is a part of a list.
type page struct {
	n    int    // at most so many names; 0 <= n <= pageLimit
	last string // names after this one
	link string // the URL of the next page up to and without its n and last
}

// route understands a method, a Host header and a URL. The error is an *apiError.
//
// Names are read from the right, so that a repository may have components
// called manifests, blobs, tags or v2: the last component is the reference,
// the one before it the kind, all else the name.
func (n *names) route(method, host string, u *url.URL) (request, error) {
	before, rest, ok := n.cutAPI(u.Path)
	if !ok {
		if u.Path == "/" || strings.HasPrefix(u.Path, "/-/") {
			return request{kind: kindPage}, nil
		}
		return request{}, nil
	}
	if method != http.MethodGet && method != http.MethodHead {
		return request{}, errReadOnly
	}
	if rest == "" {
		return request{kind: kindPing}, nil
	}
	if encodedSlash(u.RawPath) {
		return request{}, errEncodedSlash
	}
	scope := before
	if scope == "" {
		scope = n.virtual(host)
	}
	ns, ok := queryValue(u.RawQuery, "ns")
	if !ok {
		return request{}, errQuery
	}
	if ns != "" {
		if scope = n.registry(ns); scope == "" {
			return request{}, errNamespace
		}
	}

	rest, last, hasName := cutLast(rest)
	if last == "_catalog" {
		req, err := n.routeCatalog(u, scope, rest, hasName)
		req.ns = ns
		return req, err
	}
	name, verb, hasName := cutLast(rest)
	if !hasName {
		return request{}, errNoEndpoint
	}
	req := request{ns: ns}
	switch {
	case name == extension && verb == "doctor" && validToken(last):
		return request{kind: kindWatch, reference: last}, nil
	case verb == "manifests":
		req.kind = kindManifest
	case verb == "blobs":
		req.kind = kindBlob
	case verb == "tags" && last == "list":
		req.kind = kindTags
	case verb == "referrers":
		req.kind = kindReferrers
	default:
		return request{}, errNoEndpoint
	}
	if req.repo, ok = n.repository(scope, name); !ok {
		return request{}, errName
	}

	switch req.kind {
	case kindTags:
		req.name = name
		return req, req.page.read(u)
	case kindManifest:
		// What cannot be a tag is a tag that nobody has: the conformance tests
		// of the specification want 404 for it.
		if !strings.Contains(last, ":") {
			if !validTag(last) {
				return request{}, errTag
			}
			req.reference = last
			return req, nil
		}
	case kindReferrers:
		if req.artifactType, ok = queryValue(u.RawQuery, "artifactType"); !ok {
			return request{}, errQuery
		}
	}
	if !validDigest(last) {
		return request{}, errDigest
	}
	req.reference = last
	return req, nil
}

func (n *names) routeCatalog(u *url.URL, scope, prefix string, hasPrefix bool) (request, error) {
	if hasPrefix {
		registry := n.registry(prefix)
		if registry == "" || scope != "" && scope != registry {
			return request{}, errNoEndpoint
		}
		scope = registry
	}
	req := request{kind: kindCatalog, repo: store.Repository{Registry: scope}}
	return req, req.page.read(u)
}

// cutAPI takes /v2/, or a registry and /v2/, off a path. Before is that
// registry or empty.
func (n *names) cutAPI(path string) (before, rest string, ok bool) {
	if rest, ok := cutV2(path); ok {
		return "", rest, true
	}
	if path == "" || path[0] != '/' {
		return "", "", false
	}
	i := strings.IndexByte(path[1:], '/')
	if i < 0 {
		return "", "", false
	}
	if rest, ok = cutV2(path[1+i:]); !ok {
		return "", "", false
	}
	before = n.registry(path[1 : 1+i])
	return before, rest, before != ""
}

func cutV2(path string) (rest string, ok bool) {
	rest, ok = strings.CutPrefix(path, "/v2")
	if !ok || rest != "" && rest[0] != '/' {
		return "", false
	}
	return strings.TrimPrefix(rest, "/"), true
}

// cutLast splits off the last component. Without a slash, s is it.
func cutLast(s string) (before, last string, found bool) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return "", s, false
	}
	return s[:i], s[i+1:], true
}

// encodedSlash reports a slash that was written %2F. Such a path means one
// thing to a proxy or an access rule in front, which compares it undecoded,
// and another here; no client sends it.
func encodedSlash(rawPath string) bool {
	for {
		i := strings.IndexByte(rawPath, '%')
		if i < 0 || i+2 >= len(rawPath) {
			return false
		}
		if rawPath[i+1] == '2' && rawPath[i+2]|0x20 == 'f' {
			return true
		}
		rawPath = rawPath[i+1:]
	}
}

// queryValue returns the first value of a key in a query, "" if there is none,
// and false if it is not properly escaped. Unlike [url.URL.Query] it builds no
// map, and it does not drop what it cannot read: an ns that is dropped would
// mean another registry.
func queryValue(query, key string) (string, bool) {
	value, err := url.QueryUnescape(rawQueryValue(query, key))
	return value, err == nil
}

func rawQueryValue(query, key string) string {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		if k, v, _ := strings.Cut(pair, "="); k == key {
			return v
		}
	}
	return ""
}

// read takes n and last from a URL. The error is an *apiError.
func (p *page) read(u *url.URL) error {
	p.n = pageLimit
	n, ok := queryValue(u.RawQuery, "n")
	if !ok {
		return errPageSize
	}
	if n != "" {
		// ParseUint, because a sign is not a number of names either.
		value, err := strconv.ParseUint(n, 10, 31)
		if err != nil {
			return errPageSize
		}
		p.n = min(int(value), pageLimit)
	}
	if p.last, ok = queryValue(u.RawQuery, "last"); !ok {
		return errQuery
	}
	p.link = u.EscapedPath() + "?"
	if ns := rawQueryValue(u.RawQuery, "ns"); ns != "" {
		p.link += "ns=" + ns + "&"
	}
	return nil
}

// next returns the Link header's value for the page after the one that ends
// with last (RFC 8288; distribution-spec, "Listing Tags").
func (p *page) next(last string) string {
	return "<" + p.link + "n=" + strconv.Itoa(p.n) + "&last=" + url.QueryEscape(last) + `>; rel="next"`
}
