package page

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"mirrorctl/store"
)

// arriving is an image that comes just now.
type arriving struct {
	Name    string
	Arrived store.Arrived
	Percent int
	Rate    int64 // bytes a second; 0 if it is not known or nothing moves
}

const (
	// liveEvery is how often what arrives is looked at while somebody watches.
	liveEvery = time.Second
	// maxWatchers limits how many connections are kept open for that.
	maxWatchers = 64
	// maxArriving limits how many are shown.
	maxArriving = 50
)

// live looks at what arrives for all who watch, and not at all for nobody.
type live struct {
	ctx   context.Context
	store *store.Store

	mu       sync.Mutex
	watchers map[chan []arriving]bool
	before   map[string]sample
}

type sample struct {
	at    time.Time
	bytes int64
}

func newLive(ctx context.Context, st *store.Store) *live {
	return &live{ctx: ctx, store: st, watchers: map[chan []arriving]bool{}, before: map[string]sample{}}
}

// now returns what arrives at this moment. An error is nothing: it is shown
// beside other things.
func (l *live) now(ctx context.Context) []arriving {
	all, err := l.store.Arrivals(ctx)
	if err != nil {
		return nil
	}
	var list []arriving
	for _, a := range all[:min(len(all), maxArriving)] {
		n, err := l.store.Arrived(ctx, a)
		if err != nil {
			continue
		}
		one := arriving{Name: a.Name(), Arrived: n}
		if n.TotalBytes > 0 {
			one.Percent = int(100 * n.Bytes / n.TotalBytes)
		}
		list = append(list, one)
	}
	return list
}

// rate fills in how fast images come since they were looked at before.
func (l *live) rate(list []arriving, at time.Time) {
	now := map[string]sample{}
	for i := range list {
		a := &list[i]
		if was, ok := l.before[a.Name]; ok && at.After(was.at) {
			a.Rate = max(0, int64(float64(a.Arrived.Bytes-was.bytes)/at.Sub(was.at).Seconds()))
		}
		now[a.Name] = sample{at, a.Arrived.Bytes}
	}
	l.before = now
}

// watch returns a channel of what arrives, or nil if too many watch already.
func (l *live) watch() chan []arriving {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.watchers) >= maxWatchers {
		return nil
	}
	ch := make(chan []arriving, 1)
	l.watchers[ch] = true
	if len(l.watchers) == 1 {
		go l.look()
	}
	return ch
}

func (l *live) leave(ch chan []arriving) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.watchers, ch)
}

// look runs as long as somebody watches.
func (l *live) look() {
	tick := time.NewTicker(liveEvery)
	defer tick.Stop()
	for {
		list := l.now(l.ctx)
		l.mu.Lock()
		if len(l.watchers) == 0 {
			l.mu.Unlock()
			return
		}
		l.rate(list, time.Now())
		for ch := range l.watchers {
			select {
			case ch <- list:
			default: // is slow, and gets the next
			}
		}
		l.mu.Unlock()
		select {
		case <-tick.C:
		case <-l.ctx.Done():
			return
		}
	}
}

// events sends what arrives as server-sent events (HTML standard, 9.2), each a
// piece of the list page. An image that is complete has the browser load the page
// anew.
func (h *Handler) events(w http.ResponseWriter, r *http.Request) {
	ch := h.live.watch()
	if ch == nil {
		w.Header().Set("Retry-After", "60")
		http.Error(w, "Too many watch already.", http.StatusServiceUnavailable)
		return
	}
	defer h.live.leave(ch)
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store")
	out := http.NewResponseController(w)
	fmt.Fprint(w, "retry: 5000\n\n")
	if out.Flush() != nil {
		return
	}
	var last string
	quiet := 0
	for {
		select {
		case <-r.Context().Done():
			return
		case <-h.live.ctx.Done():
			return
		case list := <-ch:
			var b bytes.Buffer
			if err := templates.ExecuteTemplate(&b, "arriving", list); err != nil {
				h.Log.ErrorContext(r.Context(), "page", "path", r.URL.Path, "error", err)
				return
			}
			text := b.String()
			if text == last && quiet < 15 {
				quiet++
				continue
			}
			last, quiet = text, 0
			fmt.Fprintf(w, "event: arriving\ndata: %s\n\n", strings.ReplaceAll(text, "\n", "\ndata: "))
			if out.Flush() != nil {
				return
			}
		}
	}
}
