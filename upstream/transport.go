package upstream

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// silence is how long an upstream may send nothing in the middle of a body.
const silence = 60 * time.Second

// exchange travels in the context of a call to regclient: what to ask for that
// regclient cannot, and what was answered that it does not tell.
type exchange struct {
	from int64 // first byte wanted of a blob

	mu          sync.Mutex
	status      int    // of the last answer
	contentType string // of the last answer
	apiStatus   int    // of the last answer of the referrers API
	start       int64  // first byte that came
}

type exchangeKey struct{}

func withExchange(ctx context.Context, ex *exchange) context.Context {
	return context.WithValue(ctx, exchangeKey{}, ex)
}

// transport is the http.RoundTripper below regclient for one endpoint.
type transport struct {
	base *http.Transport
	host string // the endpoint's own host
	ns   string // for mirrors: the registry whose content is meant
}

// CloseIdleConnections is found by http.Client.
func (t *transport) CloseIdleConnections() { t.base.CloseIdleConnections() }

// RoundTrip adds the range and the ns parameter and watches the answer. It
// leaves token requests alone: regclient makes them without the call's context.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	ex, _ := req.Context().Value(exchangeKey{}).(*exchange)
	if ex == nil {
		return t.base.RoundTrip(req)
	}
	req = req.Clone(req.Context())
	if t.ns != "" && req.URL.Host == t.host {
		// Other mirrors understand it, as they do containerd's.
		q := req.URL.Query()
		q.Set("ns", t.ns)
		req.URL.RawQuery = q.Encode()
	}
	ranged := ex.from > 0 && req.Method == http.MethodGet
	if ranged {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", ex.from))
	}
	resp, err := t.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	ex.mu.Lock()
	defer ex.mu.Unlock()
	ex.status, ex.contentType = resp.StatusCode, resp.Header.Get("Content-Type")
	if strings.Contains(req.URL.Path, "/referrers/") {
		ex.apiStatus = resp.StatusCode
	}
	ex.start = 0
	if ranged && resp.StatusCode == http.StatusPartialContent {
		var first, last int64
		if _, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-%d/", &first, &last); err != nil || first > ex.from {
			resp.Body.Close()
			return nil, fmt.Errorf("asked for bytes from %d, got range %q", ex.from, resp.Header.Get("Content-Range"))
		}
		ex.start = first
		// regclient takes only a whole blob; the caller knows better.
		resp.StatusCode, resp.Status = http.StatusOK, "200 OK"
	}
	resp.Body = newWatched(resp.Body)
	return resp, nil
}

// watched is a body that is closed when a read waits too long, which ends the
// read.
type watched struct {
	body  io.ReadCloser
	timer *time.Timer
}

func newWatched(body io.ReadCloser) *watched {
	w := &watched{body: body, timer: time.AfterFunc(silence, func() { body.Close() })}
	w.timer.Stop()
	return w
}

func (w *watched) Read(p []byte) (int, error) {
	w.timer.Reset(silence)
	defer w.timer.Stop()
	return w.body.Read(p)
}

func (w *watched) Close() error { return w.body.Close() }
