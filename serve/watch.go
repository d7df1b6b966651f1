package serve

import (
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// extension is where this mirror has what no specification has. Names beginning
// with an underscore are for that (distribution-spec, "API extensions").
const extension = "_mirrorctl"

// A Watched is what a mirror answers under [Probe.WatchPath].
type Watched struct {
	// Doctor is the version of this answer, 1. No other registry has it.
	Doctor int `json:"doctor"`
	// Requests have named the token of the probe, in whatever place, in the
	// order in which they ended.
	Requests []WatchedRequest `json:"requests"`
}

// WatchedRequest is a request that named a probe. Its strings are printable
// ASCII, as in the access log.
type WatchedRequest struct {
	Client string `json:"client"` // address without port
	Agent  string `json:"agent"`  // User-Agent
	Host   string `json:"host"`
	Method string `json:"method"`
	Path   string `json:"path"` // with ns
	Status int    `json:"status"`
}

// What is kept, for whoever watches. A mirror that is asked for more forgets the
// oldest: a doctor then knows less of the cause of a failure, but the probe
// itself needs none of this.
const (
	maxWatches = 64
	maxWatched = 64
)

// watches are the probes that somebody watches. The zero value watches none and
// costs a request next to nothing.
type watches struct {
	any atomic.Bool
	mu  sync.Mutex
	all []*watch // oldest first
}

type watch struct {
	token    string
	requests []WatchedRequest
}

// read returns what has been seen of a probe, and notes requests from here on.
func (w *watches) read(token string) Watched {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.IndexFunc(w.all, func(one *watch) bool { return one.token == token })
	if i < 0 {
		if len(w.all) == maxWatches {
			w.all = w.all[1:]
		}
		i = len(w.all)
		w.all = append(w.all, &watch{token: token})
		w.any.Store(true)
	}
	return Watched{Doctor: 1, Requests: append([]WatchedRequest{}, w.all[i].requests...)}
}

// token returns the token of a probe that a path names anywhere: a client with a
// wrong prefix asks for it below another name.
func (w *watches) token(path string) (string, bool) {
	if !w.any.Load() {
		return "", false
	}
	_, rest, ok := strings.Cut(path, probePrefix)
	token, _, _ := strings.Cut(rest, "/")
	return token, ok && validToken(token)
}

// note remembers a request if somebody watches its probe.
func (w *watches) note(token string, r *http.Request, status int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, one := range w.all {
		if one.token != token || len(one.requests) == maxWatched {
			continue
		}
		client, _, err := net.SplitHostPort(r.RemoteAddr)
		if err != nil {
			client = r.RemoteAddr
		}
		printable := func(s string) string { return string(appendPrintable(nil, s)) }
		one.requests = append(one.requests, WatchedRequest{
			Client: printable(client), Agent: printable(r.UserAgent()), Host: printable(r.Host),
			Method: printable(r.Method), Path: string(appendPath(nil, r)), Status: status,
		})
	}
}

// watched answers for a probe that is watched.
func (h *Handler) watched(w http.ResponseWriter, r *http.Request, req *request) {
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, r, http.StatusOK, "application/json", h.watches.read(req.reference))
}
