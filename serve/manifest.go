package serve

import (
	"bytes"
	"errors"
	"net/http"
	"strconv"

	"mirrorctl/store"
)

// manifest answers end-3. The media type is the stored one whatever Accept
// says: the digest was promised for these bytes, and a client that cannot read
// them has to say so itself.
func (h *Handler) manifest(w http.ResponseWriter, r *http.Request, req *request) error {
	m, err := h.content.Manifest(r.Context(), req.repo, req.reference)
	hit := true
	if h.missing != nil && errors.Is(err, store.ErrNotFound) {
		hit = false
		m, err = h.missing.Manifest(r.Context(), req.repo, req.reference)
	}
	if err != nil {
		if errors.Is(err, store.ErrNotFound) {
			return errNoManifest(req)
		}
		return err
	}
	header := w.Header()
	setContentHeaders(header, m.MediaType, string(m.Digest), hit)
	if isConditional(r.Header) {
		h.serveContent(w, r, bytes.NewReader(m.Bytes))
		return nil
	}
	// Nearly all requests come here; this is ServeContent without its parsing.
	header["Accept-Ranges"] = headerRanges
	header["Content-Length"] = []string{strconv.Itoa(len(m.Bytes))}
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		// An error means that the client has left.
		_, _ = w.Write(m.Bytes)
	}
	return nil
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
