package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// The codes of the registry API: distribution-spec, "Error Codes". A 4XX answer
// has one of these; the last two are Docker's, for 5XX.
const (
	codeBlobUnknown     = "BLOB_UNKNOWN"
	codeDigestInvalid   = "DIGEST_INVALID"
	codeManifestUnknown = "MANIFEST_UNKNOWN"
	codeNameInvalid     = "NAME_INVALID"
	codeNameUnknown     = "NAME_UNKNOWN"
	codeSizeInvalid     = "SIZE_INVALID"
	codeUnsupported     = "UNSUPPORTED"
	codeUnauthorized    = "UNAUTHORIZED"
	codeUnavailable     = "UNAVAILABLE"
	codeUnknown         = "UNKNOWN"
)

// apiError is an answer that is not the one asked for. The client reads all of
// it, so it holds nothing of the inside.
type apiError struct {
	status  int
	code    string
	message string
	retry   time.Duration // for 503, else 0
	miss    bool          // nothing stored answers this

	challenge string // for 401, how to log in
}

func (e *apiError) Error() string { return e.message }

// What a URL can be wrong about. A message says what is right instead.
var (
	errReadOnly     = &apiError{status: http.StatusMethodNotAllowed, code: codeUnsupported, message: "this mirror is read-only: push to the registry itself"}
	errNoEndpoint   = &apiError{status: http.StatusNotFound, code: codeNameUnknown, message: "no such endpoint: /v2/<name>/ is followed by manifests/<reference>, blobs/<digest>, tags/list or referrers/<digest>"}
	errName         = &apiError{status: http.StatusBadRequest, code: codeNameInvalid, message: "not a repository name: lower-case letters, digits and single separators, " + strconv.Itoa(maxNameLength) + " characters at most"}
	errEncodedSlash = &apiError{status: http.StatusBadRequest, code: codeNameInvalid, message: "not a repository name: a slash must not be written as %2F"}
	errNamespace    = &apiError{status: http.StatusBadRequest, code: codeNameInvalid, message: "ns is not a registry's host name, such as ghcr.io or localhost:5000"}
	errQuery        = &apiError{status: http.StatusBadRequest, code: codeNameInvalid, message: "the query is not properly escaped"}
	errPageSize     = &apiError{status: http.StatusBadRequest, code: codeUnsupported, message: "n is not a number of names"}
	errDigest       = &apiError{status: http.StatusBadRequest, code: codeDigestInvalid, message: "not a digest: sha256: and 64, or sha512: and 128 lower-case hexadecimal digits"}
	errTag          = &apiError{status: http.StatusNotFound, code: codeManifestUnknown, message: "no such tag: letters, digits, ., _ and -, 128 characters at most", miss: true}
)

// What a request can miss. The message names the image as this mirror
// understood it, because a wrong prefix in a client's configuration shows there.

func errNoManifest(req *request) *apiError {
	separator := ":"
	if len(req.reference) > 64 && validDigest(req.reference) {
		separator = "@"
	}
	return &apiError{
		status: http.StatusNotFound, code: codeManifestUnknown, miss: true,
		message: req.repo.String() + separator + req.reference + " is not in this mirror",
	}
}

func errNoBlob(req *request) *apiError {
	return &apiError{
		status: http.StatusNotFound, code: codeBlobUnknown, miss: true,
		message: req.reference + " is not in this mirror",
	}
}

func errNoRepository(req *request) error {
	return &apiError{
		status: http.StatusNotFound, code: codeNameUnknown, miss: true,
		message: "nothing of " + req.repo.String() + " is in this mirror",
	}
}

// mayNotFetch is the answer to who may not let a missing thing be fetched: to log
// in if that would help, otherwise that it is not here, so that the client goes on
// to its next host.
func mayNotFetch(missing *apiError, challenge string) error {
	if challenge != "" {
		return &apiError{status: http.StatusUnauthorized, code: codeUnauthorized, challenge: challenge, miss: true,
			message: missing.message + ": log in to let it be fetched"}
	}
	refused := *missing
	refused.message += ", and you may not let it be fetched"
	return &refused
}

// fail answers a request with an error. It is the one place that maps errors
// to HTTP.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	var answer *apiError
	var unavailable Unavailable
	switch {
	case errors.As(err, &answer):
	case errors.As(err, &unavailable):
		h.log.WarnContext(r.Context(), "content unavailable", "path", r.URL.Path, "error", err)
		answer = &apiError{
			status: http.StatusServiceUnavailable, code: codeUnavailable, miss: true,
			message: "the upstream is not available now: try again later",
			retry:   unavailable.RetryAfter(),
		}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		// Mostly a client that has left and reads none of this; otherwise the
		// server is about to stop or the Content took too long.
		if r.Context().Err() == nil {
			h.log.WarnContext(r.Context(), "content gave up", "path", r.URL.Path, "error", err)
		}
		answer = &apiError{
			status: http.StatusServiceUnavailable, code: codeUnavailable,
			message: "not finished in time: try again later",
			retry:   time.Second,
		}
	default:
		h.log.ErrorContext(r.Context(), "internal error", "path", r.URL.Path, "error", err)
		answer = &apiError{status: http.StatusInternalServerError, code: codeUnknown, message: "internal error: see the log of the mirror"}
	}
	writeError(w, r, answer)
}

// WriteError answers a request with an error as the registry API has them, for
// handlers around a [Handler]. The client reads the message.
func WriteError(w http.ResponseWriter, r *http.Request, status int, code, message string) {
	writeError(w, r, &apiError{status: status, code: code, message: message})
}

// writeError writes the registry error body. Nothing else does.
func writeError(w http.ResponseWriter, r *http.Request, e *apiError) {
	header := w.Header()
	// What was already said of the content is not true of this body.
	for _, key := range []string{"Accept-Ranges", "Docker-Content-Digest", "Etag"} {
		header.Del(key)
	}
	switch e.status {
	case http.StatusMethodNotAllowed:
		header.Set("Allow", "GET, HEAD")
	case http.StatusServiceUnavailable:
		seconds := max(1, int64((e.retry+time.Second-1)/time.Second))
		header.Set("Retry-After", strconv.FormatInt(seconds, 10))
	case http.StatusUnauthorized:
		if e.challenge != "" {
			header.Set("WWW-Authenticate", e.challenge)
		}
	}
	if e.miss {
		header["X-Mirrorctl-Cache"] = headerMiss
	}
	type item struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	writeJSON(w, r, e.status, "application/json", struct {
		Errors []item `json:"errors"`
	}{[]item{{e.code, e.message}}})
}

// writeJSON writes a value made of this package's or the specification's types.
func writeJSON(w http.ResponseWriter, r *http.Request, status int, mediaType string, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		// Strings and numbers always have a JSON form.
		panic(fmt.Sprintf("serve: encode %T: %v", value, err))
	}
	writeBody(w, r, status, mediaType, body)
}

func writeBody(w http.ResponseWriter, r *http.Request, status int, mediaType string, body []byte) {
	header := w.Header()
	header.Set("Content-Type", mediaType)
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		// An error means that the client has left; nobody is there to tell.
		_, _ = w.Write(body)
	}
}
