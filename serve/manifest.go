package serve

import (
	"bytes"
	"errors"
	"net/http"
	"strings"

	"mirrorctl/store"
)

// manifest answers end-3. The media type is the stored one whatever Accept
// says: the digest was promised for these bytes, and a client that cannot read
// them has to say so itself.
func (h *Handler) manifest(w http.ResponseWriter, r *http.Request, req *request) error {
	a, hit, err := h.lookup(r, req)
	if err != nil {
		if errors.Is(err, store.ErrNotFound) {
			return errNoManifest(req)
		}
		return err
	}
	if a.used != nil {
		a.used.note()
	} else {
		h.usage.of(req.repo, req.reference).note()
	}
	header := w.Header()
	header["Content-Type"] = a.mediaType
	header["Docker-Content-Digest"] = a.digest
	header["Etag"] = a.etag
	header["X-Mirrorctl-Cache"] = hitOrMiss(hit)
	if isConditional(r.Header) {
		h.serveContent(w, r, bytes.NewReader(a.manifest.Bytes))
		return nil
	}
	// Nearly all requests come here; this is ServeContent without its parsing.
	header["Accept-Ranges"] = headerRanges
	header["Content-Length"] = a.byteLength
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		// An error means that the client has left.
		_, _ = w.Write(a.manifest.Bytes)
	}
	return nil
}

// lookup finds a manifest in the cache, in the content, or elsewhere.
func (h *Handler) lookup(r *http.Request, req *request) (a *answer, hit bool, err error) {
	ctx := r.Context()
	var now *answers
	key := answerKey{req.repo, req.reference}
	if h.cache != nil {
		now = h.cache.current(ctx)
		if a := now.get(key); a != nil {
			return a, true, nil
		}
	}
	m, err := h.content.Manifest(ctx, req.repo, req.reference)
	h.noteDamaged(r, err)
	if h.missing != nil && errors.Is(err, store.ErrNotFound) {
		if ok, challenge := h.may(r); !ok {
			return nil, false, mayNotFetch(errNoManifest(req), challenge)
		}
		m, err = h.missing.Manifest(ctx, req.repo, req.reference)
		return newAnswer(m), false, err
	}
	if err != nil {
		return nil, false, err
	}
	a = newAnswer(m)
	if _, probe := probeIn(req.repo); now != nil && !probe {
		// A copy of the name: the request's is a part of its URL.
		key.repo.Registry, key.repo.Path, key.reference = strings.Clone(key.repo.Registry), strings.Clone(key.repo.Path), strings.Clone(key.reference)
		a.used = h.usage.of(key.repo, key.reference)
		now.add(key, a)
	}
	return a, true, nil
}

// isConditional reports whether the answer may be another than all of the
// content. The keys are in canonical form, as net/http stores them.
func isConditional(header http.Header) bool {
	for _, key := range [...]string{"Range", "If-None-Match", "If-Match"} {
		if _, ok := header[key]; ok {
			return true
		}
	}
	return false
}
