package serve

import (
	"net/http"
	"sync"
	"time"
)

// Kind is what a request asks for.
type Kind int

const (
	KindOther Kind = iota // nothing that there is, or what cannot be understood
	KindPage
	KindPing
	KindBlob
	KindManifest
	KindTags
	KindReferrers
	KindCatalog
	Kinds // how many there are
)

func (k Kind) String() string {
	return [Kinds]string{"other", "page", "ping", "blob", "manifest", "tags", "referrers", "catalog"}[k]
}

// kinds are those of routes that have one.
var kinds = [...]Kind{
	kindWatch: KindOther, kindPage: KindPage, kindPing: KindPing, kindBlob: KindBlob, kindManifest: KindManifest,
	kindTags: KindTags, kindReferrers: KindReferrers, kindCatalog: KindCatalog,
}

// Observer sees the requests that a [Handler] answers. It is called concurrently.
type Observer interface {
	// Begin is called when it is known what is asked for.
	Begin(Kind)
	// End is called when the answer ends: cache is hit, miss or empty, and bytes
	// are those of the body.
	End(k Kind, status int, cache string, bytes int64, took time.Duration)
}

// observed are recorders that are used again, so that an observer costs no
// allocation.
var observed = sync.Pool{New: func() any { return new(recorder) }}

// observe answers a request and tells the observer.
func (h *Handler) observe(w http.ResponseWriter, k kind, answer func(http.ResponseWriter)) {
	out := observed.Get().(*recorder)
	*out = recorder{ResponseWriter: w}
	began := time.Now()
	h.observer.Begin(kinds[k])
	// Deferred, because an answer that must not be finished ends by a panic.
	defer func() {
		cache := ""
		if v := out.Header()["X-Mirrorctl-Cache"]; len(v) > 0 {
			cache = v[0]
		}
		status := out.status
		if status == 0 {
			status = http.StatusOK
		}
		h.observer.End(kinds[k], status, cache, out.bytes, time.Since(began))
		*out = recorder{}
		observed.Put(out)
	}()
	answer(out)
}
