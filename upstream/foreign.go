package upstream

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/regclient/regclient/config"

	"mirrorctl/store"
)

// maxForeign is how many repositories are asked for a foreign layer.
const maxForeign = 4

// foreign returns where a foreign layer may be, as its URLs say, and the image
// that is arriving with it, or nil. Whoever pushed the image chose the URLs, so
// they are not followed: what counts is the repository that one names, and only
// if it is of a registry that may be asked anyway.
func (p *PullThrough) foreign(ctx context.Context, d digest.Digest) ([]store.Repository, *arriving, error) {
	urls, err := p.store.ForeignURLs(ctx, d)
	var x *arriving
	p.mu.Lock()
	if k := p.known[d]; k != nil && k.child.Kind == store.KindForeign {
		urls = append(urls, k.child.URLs...)
		x = k.images[0]
	}
	p.mu.Unlock()
	var repos []store.Repository
	for _, u := range urls {
		repo, ok := blobRepository(u, d)
		if ok && p.registries[repo.Registry] != nil && !slices.Contains(repos, repo) && len(repos) < maxForeign {
			repos = append(repos, repo)
		}
	}
	return repos, x, err
}

// blobRepository reads a URL of a blob as registries have them:
// https://HOST/v2/NAME/blobs/DIGEST (distribution specification, end-2).
func blobRepository(address string, d digest.Digest) (store.Repository, bool) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.User != nil {
		return store.Repository{}, false
	}
	name, ok1 := strings.CutPrefix(u.Path, "/v2/")
	name, ok2 := strings.CutSuffix(name, "/blobs/"+d.String())
	host := strings.ToLower(u.Host)
	if host == config.DockerRegistryDNS {
		host = config.DockerRegistry
	}
	named, err := reference.ParseNamed(host + "/" + name)
	if !ok1 || !ok2 || err != nil || !reference.IsNameOnly(named) {
		return store.Repository{}, false
	}
	return store.Repository{Registry: reference.Domain(named), Path: reference.Path(named)}, true
}

// locateForeign finds a foreign layer that its image's registry does not have.
func (p *PullThrough) locateForeign(ctx context.Context, b wanted) (wanted, error) {
	repos, x, err := p.foreign(ctx, b.Digest)
	if err != nil {
		return b, err
	}
	for _, repo := range repos {
		there := b
		there.repo, there.image = repo, x
		if there.Size, err = p.size(ctx, repo, b.Digest); err == nil {
			return there, nil
		}
		if !isNone(err) {
			return there, err
		}
	}
	return b, errors.Join(ErrNotFound, err)
}
