package page

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"mirrorctl/serve"
	"mirrorctl/store"
)

// Prefix is where the pages are, besides /. No registry and no repository begins
// with a hyphen, so none is hidden by it.
const Prefix = "/-/"

// Options configure a [Handler].
type Options struct {
	Store *store.Store

	// Pending is how often a reference was asked for beyond what the store has
	// recorded. Nil is never.
	Pending func(store.Repository, string) store.Usage

	// Admin returns who makes a request if they may drop pins; otherwise it
	// answers the request. Nil is nobody: then there is no way to change
	// anything.
	Admin func(http.ResponseWriter, *http.Request) (user string, ok bool)

	// PullThrough are the registries whose images are fetched when they are
	// asked for.
	PullThrough []string

	// Aliases are the mirror's dotless names for registries.
	Aliases map[string]string

	// Log gets the errors whose text browsers do not see. Nil drops them.
	Log *slog.Logger
}

// Handler answers / and what is below [Prefix]. It is safe for concurrent use.
type Handler struct {
	Options
	mux    *http.ServeMux
	live   *live
	totals totals
	key    [32]byte // of the tokens that a form has to send back
}

//go:embed templates/*.html
var templateFiles embed.FS

//go:embed assets
var assetFiles embed.FS

// assetVersion changes when an asset does, so that browsers may keep them.
var assetVersion = func() string {
	h := sha256.New()
	err := fs.WalkDir(assetFiles, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := assetFiles.ReadFile(path)
		h.Write(content)
		return err
	})
	if err != nil {
		panic(err) // embedded
	}
	return hex.EncodeToString(h.Sum(nil)[:6])
}()

// New returns a handler. What it sends as it happens ends with ctx, so that a
// server that stops need not wait for open browsers.
func New(ctx context.Context, opts Options) *Handler {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	h := &Handler{Options: opts, mux: http.NewServeMux(), live: newLive(ctx, opts.Store)}
	_, _ = rand.Read(h.key[:]) // never fails
	assets, err := fs.Sub(assetFiles, "assets")
	if err != nil {
		panic(err) // embedded
	}
	files := http.StripPrefix(Prefix+"assets", http.FileServerFS(assets))
	h.mux.HandleFunc("GET "+Prefix+"assets/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		files.ServeHTTP(w, r)
	})
	h.handle("GET /{$}", h.list)
	h.handle("GET "+Prefix+"image/{name...}", h.image)
	h.handle("GET "+Prefix+"clients", h.clients)
	h.handle("GET "+Prefix+"clients/{name}", h.clients)
	h.mux.HandleFunc("GET "+Prefix+"events", h.events)
	if opts.Admin != nil {
		h.handle("GET "+Prefix+"remove/{name...}", h.askRemove)
		h.handle("POST "+Prefix+"remove/{name...}", h.remove)
	}
	h.handle("/", func(http.ResponseWriter, *http.Request) error {
		return &pageError{http.StatusNotFound, "There is no such page", "The registry is under /v2/."}
	})
	return h
}

// pageError is an error that is shown as a page.
type pageError struct {
	status      int
	title, text string
}

func (e *pageError) Error() string { return e.title + ": " + e.text }

// handle shows the errors of fn. fn has written nothing when it returns one.
func (h *Handler) handle(pattern string, fn func(http.ResponseWriter, *http.Request) error) {
	h.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		err := fn(w, r)
		if err == nil || r.Context().Err() != nil {
			return
		}
		var shown *pageError
		if !errors.As(err, &shown) {
			h.Log.ErrorContext(r.Context(), "page", "path", r.URL.Path, "error", err)
			shown = &pageError{http.StatusInternalServerError, "The mirror could not answer", "What went wrong is in its log."}
		}
		err = h.render(w, r, shown.status, "error.html", shown.title, struct{ Text string }{shown.text})
		if err != nil {
			h.Log.ErrorContext(r.Context(), "page", "path", r.URL.Path, "error", err)
		}
	})
}

// policy lets a page load what it is made of from this server, and nothing else
// from anywhere.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// ServeHTTP answers one request. Requests that would change something are
// refused unless they come from a page of this server (see
// [http.CrossOriginProtection]).
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Security-Policy", policy)
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Del("Docker-Distribution-Api-Version")
	if err := http.NewCrossOriginProtection().Check(r); err != nil {
		http.Error(w, "This comes from a page of somebody else.", http.StatusForbidden)
		return
	}
	h.mux.ServeHTTP(w, r)
}

var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"size": humanSize, "ago": ago, "when": when, "short": short, "count": count, "date": date,
}).ParseFS(templateFiles, "templates/*.html"))

// frame is what every page has.
type frame struct {
	Title   string
	Address string // of the mirror, as the browser sees it
	Search  string
	Version string // of the assets
	Admin   bool   // pins can be dropped here
	Now     time.Time
	Content any
}

// render writes a page. It is put together first, so that an error is not in the
// middle of one.
func (h *Handler) render(w http.ResponseWriter, r *http.Request, status int, name, title string, content any) error {
	var b bytes.Buffer
	address, _ := h.address(r)
	search := ""
	if r.URL.Path == "/" {
		search = r.URL.Query().Get("q")
	}
	err := templates.ExecuteTemplate(&b, name, frame{
		Title: title, Address: address, Search: search, Version: assetVersion, Admin: h.Admin != nil, Now: time.Now(), Content: content,
	})
	if err != nil {
		return err
	}
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Length", fmt.Sprint(b.Len()))
	header.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = b.WriteTo(w) // an error means that the browser has left
	}
	return nil
}

// address is that of this mirror as the browser has it, and whether that is
// https. It can stand before an image's name and in a client's configuration.
func (h *Handler) address(r *http.Request) (address string, tls bool) {
	address, tls = strings.ToLower(r.Host), r.TLS != nil || strings.EqualFold(r.URL.Scheme, "https")
	if !strings.ContainsAny(address, ".:") {
		// A name alone would be no registry in the name of an image.
		address += map[bool]string{false: ":80", true: ":443"}[tls]
	}
	if _, err := serve.RegistryName(address); err != nil {
		address = "mirror.example:5000"
	}
	return address, tls
}

// token proves that a form came from this server, for this user and image.
func (h *Handler) token(user, image string) string {
	mac := hmac.New(sha256.New, h.key[:])
	fmt.Fprintf(mac, "%q %q", user, image)
	return hex.EncodeToString(mac.Sum(nil))
}
