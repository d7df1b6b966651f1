package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
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
	ErrInvalid      = errors.New("not a valid image")
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

	temporary  bool // it may pass in seconds
	timeout    bool // it took its time
	retryAfter time.Duration
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
// last answer, which regclient's errors do not always tell.
func classify(ctx context.Context, e *endpoint, ex *exchange, err error) error {
	var known *Error
	switch {
	case err == nil, errors.As(err, &known), isLocal(err):
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case e.folder != "":
		return inFolder(e, err)
	}
	a := ex.last()
	who := e.String()
	if a.host != "" && a.host != e.hostname {
		who += ", by way of " + a.host + ","
	}
	switch {
	case errors.Is(err, errNoAddress):
		return &Error{Cause: ErrUnavailable, Detail: e.String() + " redirects to something that is no address of a server", Hint: "check the registry's address", Err: err}
	case errors.Is(err, errs.ErrHTTPRedirectRefused):
		return &Error{Cause: ErrUnavailable, Detail: e.String() + " redirects from https to http, or to this machine", Hint: "check the registry's address", Err: err}
	case a.status == 0:
		return unreachable(e, a, err)
	case a.status == http.StatusUnauthorized && e.tokenFailed() != nil:
		return noToken(e, e.tokenFailed())
	case errors.Is(err, context.DeadlineExceeded): // not the caller's
		return &Error{Cause: ErrUnavailable, Detail: who + " takes too long to answer", Hint: "try again later", Err: err, timeout: true}
	case a.broken != nil:
		return brokeOff(who, a.broken)
	case a.status >= http.StatusBadRequest:
		return refused(e, who, a, err)
	case a.status >= http.StatusMultipleChoices:
		return &Error{Cause: ErrUnavailable, Detail: who + " redirects " + a.whereTo(), Hint: "check the registry's address", Err: err}
	case errors.Is(err, errs.ErrDigestMismatch), errors.Is(err, store.ErrMismatch):
		return mismatch(who, ex.wanted, a, err)
	case errors.Is(err, errs.ErrSizeLimitExceeded):
		return &Error{Cause: ErrTooLarge, Detail: fmt.Sprintf("a manifest from %s has more than %d MiB", who, store.MaxManifestSize>>20), Hint: "clients refuse it too: ask whoever pushed it", Err: err}
	case a.status != http.StatusOK:
		return &Error{Cause: ErrNotRegistry, Detail: who + " answered " + statusText(a.status), Hint: "check the registry's address", Err: err}
	}
	return noManifest(who, ex.wanted, a, err)
}

// refused says why a registry answered with an error.
func refused(e *endpoint, who string, a answer, err error) error {
	failed := &Error{Err: err, Detail: fmt.Sprintf("%s answered %d", who, a.status), retryAfter: a.retryAfter}
	if a.status == http.StatusBadRequest && e.tr != nil && !e.tr.secure {
		failed.Cause, failed.Detail = ErrUnsupported, who+" answered "+statusText(a.status)
		failed.Hint = fmt.Sprintf("check the registry's address; if it speaks TLS, say so: [registry.%q] url = \"https://%s\"", e.registry, e.hostname)
		return failed
	}
	switch a.status {
	case http.StatusUnauthorized:
		failed.Cause = ErrUnauthorized
		failed.Hint = "run docker login " + e.host + ", or give username and password in mirrorctl.toml; an image that does not exist can look like this too"
	case http.StatusForbidden:
		failed.Cause, failed.Hint = ErrForbidden, "check that this account may pull the image"
	case http.StatusNotFound:
		return &Error{Cause: ErrNotFound, Hint: "check the name", Err: err} // which says it all
	case http.StatusTooManyRequests:
		failed.Cause, failed.temporary = ErrRateLimited, true
		failed.Hint = "wait, or log in for a larger limit: docker login " + e.host
	case http.StatusRequestTimeout, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		failed.Cause, failed.temporary, failed.Hint = ErrUnavailable, true, "try again later"
	default: // it does not know the request
		failed.Cause, failed.Hint = ErrUnsupported, "check the registry's address"
	}
	switch {
	case a.message != "":
		failed.Detail += ": " + a.message
	case failed.Cause == ErrUnavailable || failed.Cause == ErrUnsupported:
		failed.Detail = who + " answered " + statusText(a.status)
	}
	if a.retryAfter > 0 {
		failed.Detail += fmt.Sprintf(", try again in %v", a.retryAfter)
	}
	return failed
}

// statusText is a status with its name, if it has one.
func statusText(status int) string {
	return strings.TrimSpace(fmt.Sprintf("%d %s", status, http.StatusText(status)))
}

// whereTo says what is wrong with a redirect that was not followed.
func (a answer) whereTo() string {
	if a.location == "" {
		return "without saying where to"
	}
	if _, err := url.Parse(a.location); err != nil {
		return "to something that is no address"
	}
	return "without end"
}

// invalid is a manifest that came as its digest says, and is none that clients
// could use.
func invalid(d digest.Digest, err error) error {
	return &Error{Cause: ErrInvalid, Detail: fmt.Sprintf("%s: %v", d, err), Err: err, Hint: pushedSo}
}

// pushedSo is the hint where a registry does what it should.
const pushedSo = "clients may refuse it too: ask whoever pushed it"

// brokeOff is an answer that ended before its time.
func brokeOff(who string, err error) *Error {
	failed := &Error{Cause: ErrUnavailable, Detail: who + " broke off: " + plainNetError(err), Hint: "try again later", Err: err, temporary: true}
	var slow interface{ Timeout() bool }
	failed.timeout = errors.As(err, &slow) && slow.Timeout()
	return failed
}

// mismatch is content that came as a whole and is something else than d.
func mismatch(who string, d digest.Digest, a answer, err error) error {
	what := d.String()
	if d == "" {
		what = "the digest in its headers"
	}
	return &Error{
		Cause: ErrIntegrity, Detail: fmt.Sprintf("%s sent something else for %s%s", who, what, encoded(a)), Err: err,
		Hint: "try again; if it stays, the registry or something between is broken",
	}
}

// noManifest is an answer that was taken for a manifest, and is none.
func noManifest(who string, wanted digest.Digest, a answer, err error) error {
	failed := &Error{Cause: ErrNotRegistry, Hint: "check the registry's address", Err: err}
	var syntax *json.SyntaxError
	var shape *json.UnmarshalTypeError
	var signed *store.SignedError
	switch {
	case errors.As(err, &signed):
		failed.Detail = fmt.Sprintf("%s sent a signed manifest that cannot be read: %s", who, signed.Problem)
	case errors.Is(err, errs.ErrUnsupportedMediaType) && a.contentType == "":
		failed.Detail = who + " answered without a media type"
	case errors.Is(err, errs.ErrUnsupportedMediaType):
		failed.Detail = fmt.Sprintf("%s answered with %q", who, a.contentType)
	case errors.As(err, &syntax):
		failed.Detail = who + " sent a manifest that is no JSON"
	case errors.As(err, &shape) && shape.Field != "":
		failed.Detail = fmt.Sprintf("%s sent a manifest in which %s is %.40s", who, shape.Field, shape.Value)
	case errors.As(err, &shape):
		failed.Detail = fmt.Sprintf("%s sent a manifest that is no object but %s", who, shape.Value)
	default:
		failed.Detail = fmt.Sprintf("%s sent a manifest that is no %s", who, a.contentType)
	}
	if wanted != "" {
		failed.Detail += " for " + wanted.String()
	}
	failed.Detail += encoded(a)
	return failed
}

// encoded mentions an encoding that nobody asked for: the likely reason why
// content makes no sense.
func encoded(a answer) string {
	if a.encoding == "" || a.encoding == "identity" {
		return ""
	}
	return fmt.Sprintf(", with Content-Encoding %q, which nobody asked for", a.encoding)
}

// inFolder explains what is wrong with a folder of OCI layouts.
func inFolder(e *endpoint, err error) error {
	var path *fs.PathError
	switch {
	case errors.Is(err, errs.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return &Error{Cause: ErrNotFound, Hint: "check the name", Err: err}
	case errors.Is(err, errs.ErrDigestMismatch), errors.Is(err, store.ErrMismatch):
		return &Error{Cause: ErrIntegrity, Detail: e.String() + " has something else", Err: err}
	case errors.Is(err, errs.ErrSizeLimitExceeded):
		return &Error{Cause: ErrTooLarge, Detail: fmt.Sprintf("a manifest in %s has more than %d MiB", e, store.MaxManifestSize>>20), Err: err}
	case errors.As(err, &path):
		return &Error{Cause: ErrUnavailable, Detail: path.Error(), Err: err}
	}
	return &Error{Cause: ErrNotRegistry, Detail: fmt.Sprintf("%s: %v", e, err), Hint: "it must be a folder with an OCI image layout for each repository", Err: err}
}

func noToken(e *endpoint, failed *tokenError) error {
	if errors.Is(failed, errTokenInClear) {
		return &Error{
			Cause: ErrUnavailable, Detail: fmt.Sprintf("tokens for %s are to be asked of %s without TLS", e, failed.host),
			Hint: "nothing was sent: ask whoever runs the registry", Err: failed,
		}
	}
	giver := fmt.Sprintf("%s, which gives the tokens for %s,", failed.host, e)
	switch {
	case failed.status != 0:
		return &Error{Cause: ErrUnavailable, Detail: fmt.Sprintf("%s answered %d", giver, failed.status), Hint: "try again later", Err: failed, temporary: true}
	case errors.Is(failed, errNoToken):
		return &Error{Cause: ErrUnavailable, Detail: giver + " sent none", Hint: "check the network and the registry's address", Err: failed}
	}
	return unreachable(e, answer{host: failed.host}, failed.err)
}

// unreachable explains why a host gave no answer at all.
func unreachable(e *endpoint, a answer, err error) error {
	failed := &Error{Cause: ErrUnreachable, Err: err, Hint: "check the network and the registry's address", temporary: true}
	host := e.String()
	if a.host != "" && a.host != e.hostname {
		host = a.host + ", where " + host + " leads"
	}
	failed.Detail = host + ": " + plainNetError(err)
	var (
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
		lookup    *net.DNSError
		slow      net.Error
	)
	switch {
	case errors.As(err, &authority):
		failed.temporary = false
		failed.Hint = fmt.Sprintf("give the authority's certificate: [registry.%q] ca = \"ca.pem\"", e.registry)
	case errors.As(err, &name):
		failed.temporary = false
		failed.Hint = "the certificate is another host's: check the registry's address"
	case errors.As(err, &invalid):
		failed.temporary = false
		failed.Hint = "check the registry's certificate and this machine's clock"
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		failed.temporary = false
		failed.Detail = host + " does not speak TLS"
		failed.Hint = fmt.Sprintf("if it speaks plain HTTP, say so: [registry.%q] url = \"http://%s\"", e.registry, e.hostname)
	case errors.Is(err, errPrivate):
		// Not unreachable: one redirect must not make the registry count as down.
		failed.Cause, failed.temporary = ErrUnavailable, false
		failed.Hint = fmt.Sprintf("if that is meant, give its address: [registry.%q] url = \"https://%s\"", e.registry, e.hostname)
	case errors.As(err, &lookup):
		failed.temporary = !lookup.IsNotFound
		failed.Detail = host + ": no address is known for this name"
		if !lookup.IsNotFound {
			failed.Detail = host + ": looking up its address failed: " + lookup.Err
		}
	case errors.As(err, &slow) && slow.Timeout():
		failed.temporary = false
		failed.Detail = host + " does not answer"
	}
	return failed
}
