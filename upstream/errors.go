package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"

	"github.com/regclient/regclient/types/errs"

	"mirrorctl/store"
)

// The ways in which an upstream fails. Error wraps one of them.
var (
	ErrNotFound     = errors.New("not found upstream")
	ErrUnauthorized = errors.New("unauthorized")
	ErrForbidden    = errors.New("access denied")
	ErrRateLimited  = errors.New("the upstream's rate limit is used up")
	ErrUnreachable  = errors.New("cannot be reached")
	ErrUnavailable  = errors.New("the upstream fails")
	ErrNotRegistry  = errors.New("not a registry's answer")
	ErrUnsupported  = errors.New("not supported")
	ErrTooLarge     = errors.New("too large")
	ErrIntegrity    = errors.New("content does not match its digest")
)

// Error is a failure of an upstream: what failed, where, and what to do.
type Error struct {
	Cause  error  // one of the Err values
	Detail string // what was seen, "" if the cause says it all
	Hint   string // what to do next, "" if there is nothing
	Err    error  // the original error
}

func (e *Error) Error() string {
	if e.Detail == "" {
		return e.Cause.Error()
	}
	return e.Cause.Error() + ": " + e.Detail
}

// Unwrap makes errors.Is and errors.As see both the cause and the original.
func (e *Error) Unwrap() []error { return []error{e.Cause, e.Err} }

// classify turns what regclient returned into an Error. The exchange knows the
// status of the last answer, which regclient's errors do not always tell.
func classify(ctx context.Context, e *endpoint, ex *exchange, err error) error {
	var known *Error
	switch {
	case err == nil, errors.As(err, &known):
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	}
	ex.mu.Lock()
	status, contentType := ex.status, ex.contentType
	ex.mu.Unlock()
	fail := func(cause error, hint, detail string, args ...any) error {
		return &Error{Cause: cause, Detail: fmt.Sprintf(detail, args...), Hint: hint, Err: err}
	}
	switch {
	case errors.Is(err, errs.ErrDigestMismatch), errors.Is(err, store.ErrMismatch):
		return fail(ErrIntegrity, "try again; if it stays, the registry or something between is broken", "%s sent something else", e)
	case errors.Is(err, errs.ErrSizeLimitExceeded):
		return fail(ErrTooLarge, "", "a manifest from %s has more than %d MiB", e, store.MaxManifestSize>>20)
	case errors.Is(err, errs.ErrHTTPRedirectRefused):
		return fail(ErrUnavailable, "", "%s redirects to where it must not", e)
	}
	switch {
	case status == 0 && e.folder == "":
		return unreachable(e, err)
	case status == http.StatusUnauthorized:
		return fail(ErrUnauthorized, "run docker login "+e.registry+", or give username and password in mirrorctl.toml; an image that does not exist can look like this too", "%s answered 401", e)
	case status == http.StatusForbidden:
		return fail(ErrForbidden, "check that this account may pull the image", "%s answered 403", e)
	case status == http.StatusTooManyRequests:
		return fail(ErrRateLimited, "wait, or log in for a larger limit: docker login "+e.registry, "%s answered 429", e)
	case status == http.StatusNotFound, errors.Is(err, errs.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return fail(ErrNotFound, "check the name", "")
	case status >= 400:
		return fail(ErrUnavailable, "try again later", "%s answered %d %s", e, status, http.StatusText(status))
	case errors.Is(err, errs.ErrUnsupportedMediaType) && contentType != "":
		return fail(ErrNotRegistry, "check the registry's address", "%s answered with %q", e, contentType)
	}
	return fail(ErrUnavailable, "", "%s: %v", e, err)
}

// unreachable explains why a host gave no answer at all.
func unreachable(e *endpoint, err error) error {
	failed := &Error{Cause: ErrUnreachable, Err: err, Hint: "check the network and the registry's address"}
	var (
		inURL     *url.Error
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		record    tls.RecordHeaderError
	)
	detail := err
	if errors.As(err, &inURL) {
		detail = inURL.Err
	}
	switch {
	case errors.As(err, &authority):
		failed.Hint = fmt.Sprintf("give the authority's certificate: [registry.%q] ca = \"ca.pem\"", e.registry)
	case errors.As(err, &host):
		failed.Hint = "the certificate is another host's: check the registry's address"
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		failed.Hint = fmt.Sprintf("if it speaks plain HTTP, say so: [registry.%q] url = \"http://%s\"", e.registry, e.host)
	}
	failed.Detail = fmt.Sprintf("%s: %v", e, detail)
	return failed
}
