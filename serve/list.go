package serve

import (
	"errors"
	"net/http"
	"slices"

	specs "github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"mirrorctl/store"
)

// tags answers end-8.
func (h *Handler) tags(w http.ResponseWriter, r *http.Request, req *request) error {
	// One more than was asked for tells whether there is a next page.
	list, err := h.content.Tags(r.Context(), req.repo, req.page.last, req.page.n+1)
	if errors.Is(err, store.ErrNotFound) {
		return errNoRepository(req)
	}
	if err != nil {
		return err
	}
	list, more := cutPage(list, req.page.n)
	if more {
		w.Header().Set("Link", req.page.next(list[len(list)-1]))
	}
	w.Header()["X-Mirrorctl-Cache"] = headerHit
	writeJSON(w, r, http.StatusOK, "application/json", struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{req.name, list})
	return nil
}

// catalog answers /v2/_catalog. Without a registry in the request the names are
// fully qualified, docker.io/library/debian: each can be put after /v2/ as it
// is. With one they are those of that registry.
func (h *Handler) catalog(w http.ResponseWriter, r *http.Request, req *request) error {
	registry, last := req.repo.Registry, req.page.last
	if registry != "" && last != "" {
		last = store.Repository{Registry: registry, Path: last}.String()
	}
	repositories, err := h.content.Repositories(r.Context(), registry, last, req.page.n+1)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	repositories, more := cutPage(repositories, req.page.n)
	list := make([]string, len(repositories))
	for i, repo := range repositories {
		if list[i] = repo.Path; registry == "" {
			list[i] = repo.String()
		}
	}
	if more {
		w.Header().Set("Link", req.page.next(list[len(list)-1]))
	}
	writeJSON(w, r, http.StatusOK, "application/json", struct {
		Repositories []string `json:"repositories"`
	}{list})
	return nil
}

// cutPage returns the first n of a list, never nil, and whether there are more
// to ask for. Of no names there is no next page (distribution-spec, "Listing
// Tags": n=0 is an empty list without Link).
func cutPage[T any](list []T, n int) ([]T, bool) {
	if list == nil {
		list = []T{}
	}
	if len(list) <= n {
		return list, false
	}
	return list[:n], n > 0
}

// referrers answers end-12. A subject that is not here has no referrers here:
// the specification wants an empty index, not 404.
func (h *Handler) referrers(w http.ResponseWriter, r *http.Request, req *request) error {
	list, err := h.content.Referrers(r.Context(), req.repo, req.digest())
	cache := headerHit
	if h.missing != nil && len(list) == 0 && (err == nil || errors.Is(err, store.ErrNotFound)) {
		if ok, _ := h.may(r); !ok {
			// What is known here is the answer.
		} else if list, err = h.missing.Referrers(r.Context(), req.repo, req.digest()); len(list) > 0 {
			cache = headerMiss
		}
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if req.artifactType != "" {
		// A copy, because the list is the Content's.
		list = slices.DeleteFunc(slices.Clone(list), func(d v1.Descriptor) bool {
			return d.ArtifactType != req.artifactType
		})
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	if list == nil {
		list = []v1.Descriptor{}
	}
	w.Header()["X-Mirrorctl-Cache"] = cache
	writeJSON(w, r, http.StatusOK, v1.MediaTypeImageIndex, v1.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageIndex,
		Manifests: list,
	})
	return nil
}
