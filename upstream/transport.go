package upstream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/opencontainers/go-digest"
)

const (
	// crawl is how many bytes in a client's timeout still count as nothing.
	crawl = 1 << 10
	// maxToken and maxMessage are how many bytes are read of a token server's
	// answer, and of an answer that is an error.
	maxToken   = 1 << 20
	maxMessage = 4 << 10
)

// exchange travels in the context of a call to regclient: what to ask for that
// regclient cannot, and what was answered that it does not tell.
type exchange struct {
	wanted    digest.Digest
	from      int64  // first byte wanted of a blob
	to        int64  // the byte after the last one wanted; 0 is its end
	referrers bool   // ask for what refers to the blob, not for the blob
	page      string // of the referrers: the query

	mu     sync.Mutex
	answer answer
}

// answer is the last one of an exchange.
type answer struct {
	host        string // who was asked
	status      int    // 0 if no answer came
	contentType string
	encoding    string
	message     string // of an error, as registries send them
	link        string
	location    string // of a redirect
	retryAfter  time.Duration
	start       int64 // first byte that comes
	total       int64 // bytes of the whole content, -1 if unknown
	broken      error // what ended the body before its time
}

func (ex *exchange) last() answer {
	ex.mu.Lock()
	defer ex.mu.Unlock()
	return ex.answer
}

func (ex *exchange) update(fn func(*answer)) {
	ex.mu.Lock()
	defer ex.mu.Unlock()
	fn(&ex.answer)
}

type exchangeKey struct{}

func withExchange(ctx context.Context, ex *exchange) context.Context {
	return context.WithValue(ctx, exchangeKey{}, ex)
}

// errRange is an answer to a request for a part with another part.
var errRange = errors.New("it does not send the part that was asked for")

// errNoAddress is a redirect to a file, for instance.
var errNoAddress = errors.New("no address of a server")

// transport is the http.RoundTripper below regclient for one endpoint.
type transport struct {
	base    connections
	host    string // the endpoint's own host
	secure  bool   // the endpoint is spoken to over TLS
	ns      string // for mirrors: the registry whose content is meant
	silence time.Duration

	ledger      ledger
	tokenFailed atomic.Pointer[tokenError] // the last token request, if it failed
}

// connections are what a transport sends its requests over: an [http.Transport].
type connections interface {
	http.RoundTripper
	CloseIdleConnections()
}

// CloseIdleConnections is found by http.Client.
func (t *transport) CloseIdleConnections() { t.base.CloseIdleConnections() }

// RoundTrip adds what the exchange asks for and watches the answer.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	if err := keepSecrets(req); err != nil {
		return nil, err
	}
	ex, _ := req.Context().Value(exchangeKey{}).(*exchange)
	if ex == nil {
		return t.token(req)
	}
	if req.URL.Host == "" || req.URL.Scheme != "http" && req.URL.Scheme != "https" {
		return nil, errNoAddress
	}
	if t.ns != "" && req.URL.Host == t.host {
		// Other mirrors understand it, as they do containerd's.
		q := req.URL.Query()
		q.Set("ns", t.ns)
		req.URL.RawQuery = q.Encode()
	}
	if ex.referrers && req.Response == nil {
		toReferrers(req, ex.page)
	}
	ranged := ex.from > 0 && req.Method == http.MethodGet
	if ranged {
		req.Header.Set("Range", ex.rangeHeader())
	}
	ex.update(func(a *answer) { *a = answer{host: req.URL.Host, total: -1} })
	ctx, cancel := context.WithCancel(req.Context())
	resp, err := t.base.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel()
		return nil, err
	}
	if req.URL.Host == t.host {
		t.ledger.note(resp.Header)
	}
	resp.Body = newWatched(resp.Body, ex, t.silence, cancel)
	a := answer{host: req.URL.Host}
	err = a.read(resp, ranged, ex)
	ex.update(func(last *answer) { *last = a })
	if err != nil {
		return nil, errors.Join(err, resp.Body.Close())
	}
	return resp, nil
}

// keepSecrets takes the login out of a request that was redirected to another
// host. Package http does that too, but takes another port and a subdomain for
// the same host.
func keepSecrets(req *http.Request) error {
	if req.Response == nil {
		return nil
	}
	first := req.Response.Request
	for first.Response != nil {
		first = first.Response.Request
	}
	if first.URL.Host == req.URL.Host && first.URL.Scheme == req.URL.Scheme {
		return nil
	}
	if req.Body != nil && req.Body != http.NoBody {
		return fmt.Errorf("%s redirects a login to %s", first.URL.Host, req.URL.Host)
	}
	if req.Header.Get("Authorization") == first.Header.Get("Authorization") {
		req.Header.Del("Authorization")
	}
	return nil
}

// toReferrers turns a request for a blob into one for what refers to it, which
// regclient would make in a way of its own: unlimited, and once a registry has
// failed to answer it takes it for one that has no referrers.
func toReferrers(req *http.Request, page string) {
	i := strings.LastIndex(req.URL.Path, "/blobs/")
	req.URL.Path = req.URL.Path[:i] + "/referrers/" + req.URL.Path[i+len("/blobs/"):]
	req.Header.Set("Accept", "application/vnd.oci.image.index.v1+json")
	if page != "" {
		req.URL.RawQuery = strings.Trim(req.URL.RawQuery+"&"+page, "&")
	}
}

// read takes over what an answer says, and makes it one that regclient takes.
func (a *answer) read(resp *http.Response, ranged bool, ex *exchange) error {
	a.status = resp.StatusCode
	a.contentType, a.encoding = resp.Header.Get("Content-Type"), resp.Header.Get("Content-Encoding")
	a.link, a.location = resp.Header.Get("Link"), resp.Header.Get("Location")
	a.total = resp.ContentLength
	// The waiting is done here, by rules of this package.
	a.retryAfter = parseRetryAfter(resp.Header.Get("Retry-After"))
	resp.Header.Del("Retry-After")
	if digest.Digest(resp.Header.Get("Docker-Content-Digest")).Validate() != nil {
		resp.Header.Del("Docker-Content-Digest") // regclient would believe it
	}
	switch {
	case resp.StatusCode >= http.StatusBadRequest:
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxMessage))
		if err == nil {
			a.message = errorMessage(body)
		}
		resp.Body = struct {
			io.Reader
			io.Closer
		}{bytes.NewReader(body), resp.Body}
		if ranged && resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
			return errRange
		}
	case ranged && resp.StatusCode == http.StatusPartialContent:
		var last int64
		var ok bool
		a.start, last, a.total, ok = parseContentRange(resp.Header.Get("Content-Range"))
		if !ok || a.start > ex.from {
			return errRange
		}
		if resp.ContentLength >= 0 && resp.ContentLength != last-a.start+1 {
			return errRange // it does not know itself what it sends
		}
		if ex.to > 0 && (a.start != ex.from || last >= ex.to) {
			return errRange
		}
		// regclient takes only a whole blob; the caller knows better.
		resp.StatusCode, resp.Status = http.StatusOK, "200 OK"
	case ex.to > 0 && resp.StatusCode == http.StatusOK:
		return errRange
	}
	return nil
}

// rangeHeader is the value of Range for what is wanted (RFC 9110, 14.2).
func (ex *exchange) rangeHeader() string {
	if ex.to > 0 {
		return fmt.Sprintf("bytes=%d-%d", ex.from, ex.to-1)
	}
	return fmt.Sprintf("bytes=%d-", ex.from)
}

// parseContentRange reads the Content-Range of a part (RFC 9110, 14.4): its first
// and last byte and how many the whole has, -1 if that is unknown.
func parseContentRange(s string) (first, last, total int64, ok bool) {
	s, ok = strings.CutPrefix(s, "bytes ")
	span, whole, slash := strings.Cut(s, "/")
	from, to, dash := strings.Cut(span, "-")
	if !ok || !slash || !dash {
		return 0, 0, 0, false
	}
	total = -1
	if first, ok = parseDigits(from); !ok {
		return 0, 0, 0, false
	}
	if last, ok = parseDigits(to); !ok || last < first {
		return 0, 0, 0, false
	}
	if whole != "*" {
		if total, ok = parseDigits(whole); !ok || total <= last {
			return 0, 0, 0, false
		}
	}
	return first, last, total, true
}

// parseDigits reads a number without a sign.
func parseDigits(s string) (int64, bool) {
	n, err := strconv.ParseUint(s, 10, 63)
	return int64(n), err == nil
}

// parseRetryAfter reads seconds or a date; it returns 0 for neither.
func parseRetryAfter(s string) time.Duration {
	if n, err := strconv.Atoi(s); err == nil {
		return time.Duration(min(max(n, 0), 1<<20)) * time.Second
	}
	if at, err := http.ParseTime(s); err == nil {
		return max(time.Until(at).Round(time.Second), 0)
	}
	return 0
}

// errorMessage finds the text in an error as registries send them, short enough
// for a line. It returns "" for anything else.
func errorMessage(body []byte) string {
	var doc struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal(body, &doc) != nil || len(doc.Errors) == 0 {
		return ""
	}
	s := doc.Errors[0].Message
	if s == "" {
		s = doc.Errors[0].Code
	}
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	if runes := []rune(s); len(runes) > 120 {
		s = string(runes[:119]) + "…"
	}
	return strings.TrimSpace(s)
}

// tokenError is a failure to get a token, which is not the registry's own.
type tokenError struct {
	host   string
	status int // 0 if no answer came
	err    error
}

func (e *tokenError) Error() string { return e.err.Error() }
func (e *tokenError) Unwrap() error { return e.err }

var (
	// errTokenInClear is a registry over TLS whose token server leads to one without.
	errTokenInClear = errors.New("without TLS")
	// errNoToken is an answer of a token server that is something else.
	errNoToken = errors.New("no token")
)

// token makes a request for a token. regclient makes those without the context
// of the call, reads what comes without a limit, and does not tell a login that
// is refused from an answer that it does not understand.
func (t *transport) token(req *http.Request) (*http.Response, error) {
	if t.secure && req.URL.Scheme != "https" {
		// regclient refuses a realm without TLS, but not a redirect to one. The
		// request may have the login, and the answer has the token.
		failed := &tokenError{host: req.URL.Host, err: errTokenInClear}
		t.tokenFailed.Store(failed)
		return nil, failed
	}
	ctx, cancel := context.WithTimeout(req.Context(), t.silence)
	defer cancel()
	resp, err := t.base.RoundTrip(req.WithContext(ctx))
	failed := &tokenError{host: req.URL.Host, err: err}
	if err == nil {
		failed.status, failed.err = readToken(resp)
	}
	if failed.err != nil {
		t.tokenFailed.Store(failed)
		return nil, failed
	}
	t.tokenFailed.Store(nil)
	return resp, nil
}

// readToken reads the answer of a token server, which then has its body in
// memory. It returns the status of one that may pass.
func readToken(resp *http.Response) (status int, err error) {
	defer resp.Body.Close()
	if resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests {
		return resp.StatusCode, fmt.Errorf("answered %d", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxToken))
	switch {
	case err != nil:
		return 0, err
	case resp.StatusCode == http.StatusOK && !json.Valid(body):
		return 0, errNoToken
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return 0, nil
}
