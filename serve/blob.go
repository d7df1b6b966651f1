package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"

	"mirrorctl/store"
)

// blob answers end-2, ranges included: clients resume with them.
func (h *Handler) blob(w http.ResponseWriter, r *http.Request, req *request) error {
	content, size, err := h.content.Blob(r.Context(), req.repo, req.digest())
	h.noteDamaged(r, err)
	hit := true
	if h.missing != nil && errors.Is(err, store.ErrNotFound) {
		if ok, challenge := h.may(r); !ok {
			return mayNotFetch(errNoBlob(req), challenge)
		}
		hit = false
		if r.Method == http.MethodHead {
			size, err = h.missing.BlobSize(r.Context(), req.repo, req.digest())
			content = unread(size)
		} else {
			content, size, err = h.missing.Blob(r.Context(), req.repo, req.digest())
		}
	}
	if err != nil {
		if errors.Is(err, store.ErrNotFound) {
			return errNoBlob(req)
		}
		return err
	}
	defer content.Close()
	// A file that lost its end must not become a complete answer: podman and
	// kaniko would give up for good, while an error sends clients elsewhere.
	// Going back to the start is ServeContent's.
	end, err := content.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("blob %s: %w", req.reference, err)
	}
	if end != size {
		return fmt.Errorf("blob %s: has %d bytes, should have %d: run mirrorctl verify --repair", req.reference, end, size)
	}
	setContentHeaders(w.Header(), "application/octet-stream", req.reference, hit)
	h.serveContent(w, r, content)
	return nil
}

// unread is content of which HEAD needs no more than the size.
func unread(size int64) io.ReadSeekCloser {
	return struct {
		*io.SectionReader
		io.Closer
	}{io.NewSectionReader(strings.NewReader(""), 0, size), io.NopCloser(nil)}
}

// noteDamaged says in the log why the client gets no content that the mirror should
// have, or gets it from elsewhere.
func (h *Handler) noteDamaged(r *http.Request, err error) {
	if errors.Is(err, store.ErrDamaged) {
		h.log.ErrorContext(r.Context(), "not served: run mirrorctl verify --repair", "path", r.URL.Path, "error", err)
	}
}

// clientLeft tells a connection that ended from content that could not be read.
func clientLeft(r *http.Request, err error) bool {
	return r.Context().Err() != nil ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.Is(err, context.Canceled)
}
