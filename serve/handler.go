package serve

import (
	"errors"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/textproto"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Options configure a [Handler]. The zero value is that of docker.io's mirror
// without aliases.
type Options struct {
	// DefaultRegistry is meant where a request names none. Empty is docker.io.
	DefaultRegistry string

	// Aliases are words without a dot that stand for a registry at the start
	// of a path: {"ghcr": "ghcr.io"} for clients that cannot write a host
	// there.
	Aliases map[string]string

	// Hosts are names of this mirror, without port, that stand for a registry
	// where a request comes to them: {"ghcr.mirror.lan": "ghcr.io"}.
	Hosts map[string]string

	// Missing is asked for what content does not have; its answers count as
	// misses. Nil is nobody.
	Missing Fetcher

	// MayFetch says whether Missing may be asked for a request that finds nothing
	// stored. If not, challenge is the WWW-Authenticate of a login that would
	// help, or empty. Nil lets everybody.
	MayFetch func(*http.Request) (ok bool, challenge string)

	// Page answers / and what is below /-/, where no registry is. Nil is a line
	// of text.
	Page http.Handler

	// Observer is told of every request. Nil is nobody.
	Observer Observer

	// Log gets the errors whose text clients do not see. Nil drops them.
	Log *slog.Logger
}

// Handler answers the read API of a registry from a [Content]. It is safe for
// concurrent use. Between requests it keeps what is watched of probes and, if the
// content is [Versioned], manifests that were asked for as long as the version
// stays the same.
type Handler struct {
	content Content
	cache   *cache // of manifests; nil if content has no version
	missing Fetcher
	may     func(*http.Request) (bool, string)
	names   names
	page    http.Handler
	usage   usage
	watches watches
	log     *slog.Logger

	observer Observer // may be nil
}

// New returns a handler for content. The error is one of the options: a
// registry, an alias or a host that cannot be one.
func New(content Content, opts Options) (*Handler, error) {
	names, err := newNames(opts)
	if err != nil {
		return nil, err
	}
	log := opts.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	h := &Handler{content: probing{content}, names: names, page: opts.Page, log: log, observer: opts.Observer}
	if h.page == nil {
		h.page = http.HandlerFunc(rootPage)
	}
	if v, ok := content.(Versioned); ok {
		h.cache = newCache(v)
	}
	if opts.Missing != nil {
		h.missing = withoutProbes{opts.Missing}
		if h.may = opts.MayFetch; h.may == nil {
			h.may = func(*http.Request) (bool, string) { return true, "" }
		}
	}
	return h, nil
}

// Header values that are the same in every answer. They are put into the map
// as they are, which saves an allocation each; nothing may change them.
var (
	headerVersion = []string{"registry/2.0"}
	headerClose   = []string{"close"}
	headerNosniff = []string{"nosniff"}
	headerRanges  = []string{"bytes"}
	headerHit     = []string{"hit"}
	headerMiss    = []string{"miss"}
)

// headerNamespaces are prepared like the values above for the registries that are
// asked for most.
var headerNamespaces = func() map[string][]string {
	prepared := map[string][]string{}
	for _, registry := range []string{
		dockerHub, "registry-1.docker.io", "ghcr.io", "quay.io", "gcr.io", "registry.k8s.io", "mcr.microsoft.com",
		"public.ecr.aws", "nvcr.io", "registry.gitlab.com",
	} {
		prepared[registry] = []string{registry}
	}
	return prepared
}()

func namespaceHeader(ns string) []string {
	if prepared := headerNamespaces[ns]; prepared != nil {
		return prepared
	}
	return []string{ns}
}

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header["Docker-Distribution-Api-Version"] = headerVersion
	header["X-Content-Type-Options"] = headerNosniff
	if r.ContentLength != 0 {
		// No request of this API has a body. net/http would read a part of it
		// away, before it answers if the connection is to be used again, and
		// for as long as the client likes.
		header["Connection"] = headerClose
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(time.Second))
	}
	if token, ok := h.watches.token(r.URL.Path); ok {
		out := &recorder{ResponseWriter: w}
		w = out
		defer func() { h.watches.note(token, r, out.status) }()
	}
	req, err := h.names.route(r.Method, r.Host, r.URL)
	if req.ns != "" {
		header["Oci-Namespace"] = namespaceHeader(req.ns) // distribution-spec, "Registry Proxying"
	}
	if h.observer == nil {
		h.respond(w, r, &req, err)
		return
	}
	h.observe(w, req.kind, func(w http.ResponseWriter) { h.respond(w, r, &req, err) })
}

// respond answers a request; wrong is what is wrong with its URL.
func (h *Handler) respond(w http.ResponseWriter, r *http.Request, req *request, wrong error) {
	err := wrong
	if err == nil {
		err = h.answer(w, r, req)
	}
	if err != nil {
		h.fail(w, r, err)
	}
}

// answer returns an error only if nothing has been written yet.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, req *request) error {
	switch req.kind {
	case kindManifest:
		return h.manifest(w, r, req)
	case kindBlob:
		return h.blob(w, r, req)
	case kindTags:
		return h.tags(w, r, req)
	case kindReferrers:
		return h.referrers(w, r, req)
	case kindCatalog:
		return h.catalog(w, r, req)
	case kindWatch:
		h.watched(w, r, req)
	case kindPing:
		writeBody(w, r, http.StatusOK, "application/json", []byte("{}"))
	case kindPage:
		h.page.ServeHTTP(w, r)
	default:
		notFound(w, r)
	}
	return nil
}

func notFound(w http.ResponseWriter, r *http.Request) {
	writeBody(w, r, http.StatusNotFound, "text/plain; charset=utf-8", []byte("not found: the registry is under /v2/\n"))
}

func rootPage(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/" {
		notFound(w, r)
		return
	}
	const text = "mirrorctl: a read-only mirror of container images. The registry is under /v2/.\n"
	status := http.StatusOK
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		status = http.StatusMethodNotAllowed
	}
	writeBody(w, r, status, "text/plain; charset=utf-8", []byte(text))
}

// setContentHeaders describes content that is addressed by its digest. The
// digest is the entity tag too: it changes exactly when the bytes do.
func setContentHeaders(header http.Header, mediaType, digest string, hit bool) {
	values := [...]string{mediaType, digest, `"` + digest + `"`}
	header["Content-Type"] = values[0:1:1]
	header["Docker-Content-Digest"] = values[1:2:2]
	header["Etag"] = values[2:3:3]
	header["X-Mirrorctl-Cache"] = hitOrMiss(hit)
}

func hitOrMiss(hit bool) []string {
	if hit {
		return headerHit
	}
	return headerMiss
}

// serveContent is [http.ServeContent], which knows ranges and conditions, with
// the registry's error body in place of its plain text.
func (h *Handler) serveContent(w http.ResponseWriter, r *http.Request, content io.ReadSeeker) {
	if ranges, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok {
		r.Header.Set("Range", "bytes="+withoutEmpty(ranges, content))
	} else {
		r.Header.Del("Range") // RFC 9110, 14.2: another unit is no request for a part
	}
	out := &contentWriter{ResponseWriter: w, request: r}
	http.ServeContent(out, r, "", time.Time{}, content)
	if out.err != nil && !clientLeft(r, out.err) {
		// The client sees a body that is shorter than its Content-Length.
		h.log.ErrorContext(r.Context(), "answer broke off", "path", r.URL.Path, "error", out.err)
	}
}

// withoutEmpty puts a range beyond any end in the place of those that are the last
// 0 bytes, or the last bytes of nothing: net/http would send them as parts and say
// "bytes 20-19/20", but they are not satisfiable (RFC 9110, 14.1.2).
func withoutEmpty(ranges string, content io.Seeker) string {
	list := strings.Split(ranges, ",")
	for i, one := range list {
		first, last, _ := strings.Cut(one, "-")
		if textproto.TrimString(first) != "" {
			continue
		}
		last = strings.TrimPrefix(textproto.TrimString(last), "+") // net/http takes it
		n, err := strconv.ParseUint(last, 10, 63)
		size, _ := content.Seek(0, io.SeekEnd)
		if err == nil && (n == 0 || size == 0) {
			list[i] = strconv.Itoa(math.MaxInt64) + "-"
		}
	}
	return strings.Join(list, ",")
}

// contentWriter replaces the body of an error by the registry's. It passes
// ReadFrom on for files, so that they still go out by sendfile.
type contentWriter struct {
	http.ResponseWriter
	request  *http.Request
	replaced bool  // the body has been written, what comes now is the other one
	err      error // of the copy
}

func (w *contentWriter) WriteHeader(status int) {
	switch status {
	case http.StatusRequestedRangeNotSatisfiable:
		w.replaced = true
		writeError(w.ResponseWriter, w.request, &apiError{status: status, code: codeSizeInvalid, message: "the range is not within the content"})
	case http.StatusPreconditionFailed:
		w.replaced = true
		writeError(w.ResponseWriter, w.request, &apiError{status: status, code: codeUnsupported, message: "the content is not the one that If-Match names"})
	case http.StatusInternalServerError:
		w.replaced = true
		w.err = errors.New("content cannot seek")
		writeError(w.ResponseWriter, w.request, &apiError{status: status, code: codeUnknown, message: "internal error: see the log of the mirror"})
	default:
		w.ResponseWriter.WriteHeader(status)
	}
}

func (w *contentWriter) Write(p []byte) (int, error) {
	if w.replaced {
		return len(p), nil
	}
	n, err := w.ResponseWriter.Write(p)
	if err != nil {
		w.err = err
	}
	return n, err
}

func (w *contentWriter) ReadFrom(src io.Reader) (n int64, err error) {
	if isFile(src) {
		n, err = io.Copy(w.ResponseWriter, src)
	} else {
		n, err = copyArriving(w.ResponseWriter, src)
	}
	if err != nil {
		w.err = err
	}
	return n, err
}

// isFile reports whether src is a file, or a part of one as ServeContent makes it.
func isFile(src io.Reader) bool {
	if part, ok := src.(*io.LimitedReader); ok {
		src = part.R
	}
	_, ok := src.(*os.File)
	return ok
}

// arrivingBuffers are small because there is one for each client that waits for
// content to arrive, and there may be a thousand of them. net/http would take
// two of 32 KiB.
var arrivingBuffers = sync.Pool{New: func() any { return new([16 << 10]byte) }}

// copyArriving sends content that comes in pieces, each at once.
func copyArriving(w http.ResponseWriter, src io.Reader) (total int64, err error) {
	buf := arrivingBuffers.Get().(*[16 << 10]byte)
	defer arrivingBuffers.Put(buf)
	flusher := http.NewResponseController(w)
	for {
		n, readErr := src.Read(buf[:])
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return total, err
			}
			total += int64(n)
			if err := flusher.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
				return total, err
			}
		}
		if errors.Is(readErr, io.EOF) {
			return total, nil
		}
		if readErr != nil {
			return total, readErr
		}
	}
}

func (w *contentWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
