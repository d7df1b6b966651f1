package upstream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/regclient/regclient/scheme"
	"github.com/regclient/regclient/types/descriptor"
	"golang.org/x/sync/errgroup"

	"mirrorctl/store"
)

// companionSuffixes are what cosign puts behind sha256-<hex> in the tags of
// signatures, attestations and SBOMs.
var companionSuffixes = []string{".sig", ".att", ".sbom"}

// maxPages is how many pages a list of referrers may have.
const maxPages = 100

// brokenList is the hint where a registry lists more than can be.
const brokenList = "ask whoever runs the registry"

// referrers fetches what refers to a manifest: by the referrers API or else its
// fallback tag (distribution specification 1.1, "Listing Referrers"), and by
// cosign's tags. A registry that knows none of this has no referrers; one that
// fails to answer fails the image, because a signature left out now would never
// be looked for again.
func (f *fetch) referrers(ctx context.Context, group *errgroup.Group, subject digest.Digest, depth int) error {
	var found []v1.Descriptor
	listed, err := f.askOptional(ctx, func(e *endpoint) (err error) {
		found, err = f.listReferrers(ctx, e, subject)
		return err
	})
	if err != nil {
		return err
	}
	for _, d := range found {
		group.Go(func() error {
			return f.apart(ctx, "", "", node{Descriptor: v1.Descriptor{Digest: d.Digest}, depth: depth + 1, subject: subject, signable: true, signableBelow: true})
		})
	}
	if !listed {
		group.Go(func() error { return f.companion(ctx, subject, fallbackTag(subject), depth, true) })
	}
	base := subject.Algorithm().String() + "-" + subject.Encoded()
	if subject.Algorithm() == digest.SHA256 { // cosign knows no other
		for _, suffix := range companionSuffixes {
			group.Go(func() error { return f.companion(ctx, subject, base+suffix, depth, false) })
		}
	}
	return nil
}

// fallbackTag is that of the list of referrers where the API is not known.
func fallbackTag(subject digest.Digest) string {
	tag := subject.Algorithm().String() + "-" + subject.Encoded()
	return tag[:min(len(tag), 128)]
}

// listed asks what refers to a manifest without fetching that.
func (f *fetch) listed(ctx context.Context, subject digest.Digest) ([]v1.Descriptor, error) {
	var found []v1.Descriptor
	there, err := f.askOptional(ctx, func(e *endpoint) (err error) {
		found, err = f.listReferrers(ctx, e, subject)
		return err
	})
	if there || err != nil {
		return found, err
	}
	var m store.Manifest
	there, err = f.askOptional(ctx, func(e *endpoint) (err error) {
		m, err = f.client.tagged(ctx, e, f.repo, fallbackTag(subject))
		return err
	})
	if !there || err != nil {
		return nil, err
	}
	graph, err := store.ParseManifest(m.MediaType, m.Bytes)
	for _, child := range graph.Children {
		found = append(found, child.Descriptor)
	}
	return found, err
}

// companion fetches what a tag that goes with a manifest means, if there is one.
// The fallback tag of the referrers API lists referrers.
func (f *fetch) companion(ctx context.Context, subject digest.Digest, tag string, depth int, fallback bool) error {
	var desc v1.Descriptor
	there, err := f.askOptional(ctx, func(e *endpoint) (err error) {
		desc, err = f.client.head(ctx, e, f.repo, tag)
		return err
	})
	if err != nil || !there {
		return err
	}
	return f.apart(ctx, tag, subject, node{Descriptor: desc, depth: depth + 1, signableBelow: fallback})
}

// apart walks over something that belongs to the image but is no part of it: it
// is added as a whole, with the tag that leads to it, or left out if the registry
// does not have all of it.
func (f *fetch) apart(ctx context.Context, tag string, subject digest.Digest, n node) error {
	sub := newFetch(f.whole)
	var group errgroup.Group // whose failure ends nothing else
	group.Go(func() error { return sub.walk(ctx, &group, n) })
	if err := group.Wait(); err != nil {
		if !isNone(err) {
			return err
		}
		f.client.log.Warn("referrer left out", "repository", f.repo.String(), "digest", n.Digest.String(), "err", err)
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range sub.manifests {
		if !slices.ContainsFunc(f.manifests, func(have store.Manifest) bool { return have.Digest == m.Digest }) {
			f.manifests = append(f.manifests, m)
		}
	}
	f.companions = append(f.companions, sub.companions...)
	if tag != "" {
		f.companions = append(f.companions, store.Companion{Reference: tag, Digest: n.Digest, Subject: subject})
	}
	return nil
}

// isNone tells the errors that only mean that there is nothing: registries
// answer questions about referrers in many ways.
func isNone(err error) bool {
	return slices.ContainsFunc([]error{ErrNotFound, ErrUnauthorized, ErrForbidden, ErrUnsupported, ErrNotRegistry, ErrInvalid},
		func(none error) bool { return errors.Is(err, none) })
}

// askOptional asks for what need not be there, and reports whether it is. What a
// mirror lacks the registry may have; but where the registry cannot be reached,
// what a mirror has is all there is.
func (f *fetch) askOptional(ctx context.Context, fn func(*endpoint) error) (bool, error) {
	answered := false
	err := f.client.ask(ctx, f.repo, func(e *endpoint) error {
		err := fn(e)
		answered = answered || err == nil || isNone(err)
		return err
	})
	if errors.Is(err, ErrUnauthorized) || errors.Is(err, ErrForbidden) {
		// Registries answer so for what does not exist, too; only they know.
		f.refused.Do(func() {
			f.client.log.Warn("signatures and other referrers, if there are any, cannot be read and are left out", "repository", f.repo.String(), "err", err)
		})
	}
	switch {
	case err == nil:
		return true, nil
	case isNone(err), answered && errors.Is(err, ErrUnreachable):
		return false, nil
	}
	return false, err
}

// listReferrers asks one endpoint what refers to subject. An empty list of a
// mirror is an error, because the registry may know more. Each page counts
// towards what the image may have as it comes, so that no list takes more memory
// than that; entries whose digest is none, or was listed before, are dropped.
func (f *fetch) listReferrers(ctx context.Context, e *endpoint, subject digest.Digest) ([]v1.Descriptor, error) {
	if e.folder != "" {
		found, err := f.client.listInFolder(ctx, e, f.repo, subject)
		return found, errors.Join(err, f.count(len(found), 0))
	}
	var found []v1.Descriptor
	seen := map[digest.Digest]bool{}
	page := ""
	for range maxPages {
		list, err := request(ctx, f.client, e, func(ctx context.Context, ex *exchange) (referrersPage, error) {
			ex.referrers, ex.page = true, page
			blob, err := e.client().BlobGet(ctx, e.ref(f.repo, ""), descriptor.Descriptor{Digest: subject})
			if err != nil {
				return referrersPage{}, err
			}
			defer blob.Close()
			return readReferrers(blob.Response(), ex)
		})
		if err != nil {
			return nil, err
		}
		before := len(found)
		for _, d := range list.descs {
			if !seen[d.Digest] {
				seen[d.Digest] = true
				found = append(found, d)
			}
		}
		if err := f.count(len(found)-before, list.size); err != nil {
			return nil, err
		}
		if list.next == "" {
			if len(found) == 0 && e.mirror {
				return nil, &Error{Cause: ErrNotFound, Detail: e.String() + " knows no referrers", Err: ErrNotFound}
			}
			return found, nil
		}
		page = list.next
	}
	return nil, &Error{Cause: ErrTooLarge, Detail: fmt.Sprintf("%s lists referrers on more than %d pages", e, maxPages), Hint: brokenList, Err: ErrTooLarge}
}

type referrersPage struct {
	descs referrersList
	size  int64  // bytes
	next  string // the query of the next page
}

// referrersList is the entries of a list that have a digest. They are decoded one
// by one: a page of entries that say nothing would take a hundred times its size.
type referrersList []v1.Descriptor

func (l *referrersList) UnmarshalJSON(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	if start, err := dec.Token(); err != nil || start != json.Delim('[') {
		return err // null, or a type that is no list
	}
	*l = referrersList{}
	for dec.More() {
		var d v1.Descriptor
		if err := dec.Decode(&d); err != nil {
			return err
		}
		if d.Digest.Validate() == nil {
			*l = append(*l, d)
		}
	}
	return nil
}

// nextPage matches a link to the next page (RFC 5988).
var nextPage = regexp.MustCompile(`<([^>]*)>\s*;[^,]*\brel="?next"?`)

func readReferrers(resp *http.Response, ex *exchange) (referrersPage, error) {
	var page referrersPage
	content, err := io.ReadAll(io.LimitReader(resp.Body, store.MaxManifestSize+1))
	if err != nil {
		return page, err
	}
	if len(content) > store.MaxManifestSize {
		return page, &Error{Cause: ErrTooLarge, Detail: fmt.Sprintf("a list of referrers from %s has more than %d MiB", resp.Request.URL.Host, store.MaxManifestSize>>20), Hint: brokenList, Err: ErrTooLarge}
	}
	var index struct {
		Manifests referrersList `json:"manifests"`
	}
	if err := json.Unmarshal(content, &index); err != nil || index.Manifests == nil {
		return page, &Error{Cause: ErrNotRegistry, Detail: "no list of referrers", Err: errors.Join(ErrNotRegistry, err)}
	}
	page.descs, page.size = index.Manifests, int64(len(content))
	if link := nextPage.FindStringSubmatch(ex.last().link); link != nil {
		if u, err := url.Parse(link[1]); err == nil {
			page.next = u.RawQuery
		}
	}
	return page, nil
}

// listInFolder looks for referrers in an OCI layout. There is no API for them,
// so that all its manifests are read.
func (c *Client) listInFolder(ctx context.Context, e *endpoint, repo store.Repository, subject digest.Digest) ([]v1.Descriptor, error) {
	return request(ctx, c, e, func(ctx context.Context, _ *exchange) ([]v1.Descriptor, error) {
		list, err := e.client().ReferrerList(ctx, e.ref(repo, subject.String()), scheme.WithReferrerSlowSearch())
		if err != nil {
			return nil, err
		}
		var found []v1.Descriptor
		for _, d := range list.Descriptors {
			desc := toOCI(d)
			desc.ArtifactType, desc.Annotations = d.ArtifactType, d.Annotations
			found = append(found, desc)
		}
		return found, nil
	})
}
