package page

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/distribution/reference"

	"mirrorctl/store"
)

// perPage is how many images a page lists.
const perPage = 50

// listPage is the content of list.html.
type listPage struct {
	Totals      store.Totals
	PullThrough []string
	States      []stateLink
	Arriving    []arriving
	Images      []listed
	Total       int // images that were asked for
	First, Last int // of them on this page, from 1
	Columns     []column
	Query       store.Query
	Previous    string // URLs; "" for none
	Next        string
	Removed     string // the image that was dropped a moment ago
}

type listed struct {
	store.Listed
	URL       string
	Platforms []string
}

// column is a heading by which the list can be put in order.
type column struct {
	Title  string
	Order  store.Order // "" for none
	Chosen bool
	URL    string
	Number bool
}

// stateLink leads to the images of which upstreams said the same.
type stateLink struct {
	Name, Meaning, URL string
	Count              int
	Chosen             bool
}

// States are what mirrorctl outdated records; see its help.
var states = []struct{ name, meaning string }{
	{"moved", "the tag means something else upstream now"},
	{"vanished", "the tag is gone upstream"},
	{"only copy left", "upstream has lost this content: keep it"},
}

func (h *Handler) list(w http.ResponseWriter, r *http.Request) error {
	values := r.URL.Query()
	page, _ := strconv.Atoi(values.Get("page"))
	page = min(max(page, 1), 1_000_000)
	query := store.Query{
		Search: values.Get("q"), State: values.Get("state"), Order: store.Order(values.Get("sort")),
		Offset: (page - 1) * perPage, Limit: perPage,
	}
	pins, total, err := h.Store.List(r.Context(), query)
	if err != nil {
		return err
	}
	content := listPage{
		PullThrough: h.PullThrough, Arriving: h.live.now(r.Context()), Query: query, Total: total,
		First: query.Offset + 1, Last: query.Offset + len(pins), Removed: h.removed(r),
	}
	if content.Totals, err = h.totals.get(r.Context(), h.Store); err != nil {
		return err
	}
	for _, pin := range pins {
		one := listed{Listed: pin, URL: imageURL(pin.Name()), Platforms: platformNames(pin.Platforms)}
		one.Usage = h.usage(pin.Usage)
		content.Images = append(content.Images, one)
	}
	link := func(change func(url.Values)) string {
		v := url.Values{}
		for _, key := range []string{"q", "state", "sort"} {
			if s := values.Get(key); s != "" {
				v.Set(key, s)
			}
		}
		change(v)
		if len(v) == 0 {
			return "/"
		}
		return "/?" + v.Encode()
	}
	turn := func(to int) string { return link(func(v url.Values) { v.Set("page", strconv.Itoa(to)) }) }
	if page > 1 {
		content.Previous = turn(page - 1)
	}
	if content.Last < total && len(pins) > 0 {
		content.Next = turn(page + 1)
	}
	for _, c := range []column{
		{Title: "Image", Order: store.ByName}, {Title: "Platforms"}, {Title: "Size", Order: store.BySize, Number: true},
		{Title: "Pinned", Order: store.ByPinned}, {Title: "Last asked for", Order: store.ByUsed},
		{Title: "Requests", Order: store.ByHits, Number: true},
	} {
		c.Chosen = c.Order != "" && (c.Order == query.Order || query.Order == "" && c.Order == store.ByName)
		c.URL = link(func(v url.Values) { v.Set("sort", string(c.Order)) })
		content.Columns = append(content.Columns, c)
	}
	counts, err := h.Store.States(r.Context())
	if err != nil {
		return err
	}
	for _, s := range states {
		if counts[s.name] == 0 && query.State != s.name {
			continue
		}
		one := stateLink{Name: s.name, Meaning: s.meaning, Count: counts[s.name], Chosen: query.State == s.name}
		one.URL = link(func(v url.Values) {
			if v.Del("state"); !one.Chosen {
				v.Set("state", s.name)
			}
		})
		content.States = append(content.States, one)
	}
	return h.render(w, r, http.StatusOK, "list.html", "Images", content)
}

// usage adds what is not recorded yet.
func (h *Handler) usage(u store.Usage) store.Usage {
	if h.Pending == nil {
		return u
	}
	pending := h.Pending(u.Repository, u.Reference)
	u.Hits += pending.Hits
	if pending.Last.After(u.Last) {
		u.Last = pending.Last
	}
	return u
}

// removed returns the image of which the address says that it was dropped, if it
// is not here indeed: anybody can write an address.
func (h *Handler) removed(r *http.Request) string {
	name, err := reference.ParseNormalizedNamed(r.URL.Query().Get("removed"))
	if err != nil {
		return ""
	}
	repo, ref := store.Locate(name)
	if _, err := h.Store.Pin(r.Context(), repo, ref); !errors.Is(err, store.ErrNotFound) {
		return ""
	}
	return name.String()
}

func imageURL(name string) string {
	return (&url.URL{Path: Prefix + "image/" + name}).EscapedPath()
}

// totals keeps what the store has for a moment: counting looks at every blob.
type totals struct {
	mu    sync.Mutex
	value store.Totals
	until time.Time
}

func (t *totals) get(ctx context.Context, st *store.Store) (store.Totals, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Now().Before(t.until) {
		return t.value, nil
	}
	start := time.Now()
	value, err := st.Totals(ctx)
	if err != nil {
		return value, err
	}
	// One part in a hundred of the time at most goes into counting.
	t.value, t.until = value, time.Now().Add(100*time.Since(start))
	return value, nil
}
