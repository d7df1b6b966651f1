package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/testscript"
)

// hub is an upstream that holds the sample images and can misbehave.
type hub struct {
	address  string
	login    string // user:password, "" for everybody
	registry http.Handler
	server   *http.Server

	mu       sync.Mutex
	faults   map[string]string // by repository, "" for all
	budget   *int              // requests for manifests that are left; nil is no limit
	requests []string
	stalled  chan struct{}
}

// hubs are the upstreams of one script by the variable that holds their address.
type hubs map[string]*hub

type hubsKey struct{}

const registryUsage = `usage: registry start NAME [referrers] [USER:PASSWORD]
  registry stop NAME
  registry requests NAME                print them and forget them
  registry fault NAME KIND [REPOSITORY] none, 401, 403, 429, 503, html, wrongdigest, wrongblob, bigmanifest or stall
  registry wait NAME                    until a blob stalls
  registry budget NAME N                grant N requests for manifests
  registry tag NAME REPOSITORY FROM TO
  registry rm NAME REPOSITORY REFERENCE`

func registryCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("%s", registryUsage)
	}
	all := ts.Value(hubsKey{}).(hubs)
	h := all[args[1]]
	if h == nil && args[0] == "start" {
		h = &hub{faults: map[string]string{}, stalled: make(chan struct{}, 100), address: "127.0.0.1:0"}
		all[args[1]] = h
		ts.Check(h.fill(slices.Contains(args[2:], "referrers")))
		for _, arg := range args[2:] {
			if strings.Contains(arg, ":") {
				h.login = arg
			}
		}
	}
	switch {
	case h == nil:
		ts.Fatalf("%s is not started", args[1])
	case args[0] == "start":
		ln, err := net.Listen("tcp", h.address)
		ts.Check(err)
		h.address = ln.Addr().String()
		ts.Setenv(args[1], h.address)
		h.server = &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0)}
		server := h.server
		ts.Defer(func() { server.Close() })
		go func() { _ = server.Serve(ln) }() // it ends with the script
	case args[0] == "stop":
		ts.Check(h.server.Close())
	case args[0] == "requests":
		h.mu.Lock()
		defer h.mu.Unlock()
		slices.Sort(h.requests) // they come in any order
		out := ts.Stdout()      // also without requests, so that there is something to look at
		for _, r := range h.requests {
			fmt.Fprintln(out, r)
		}
		h.requests = nil
	case args[0] == "fault" && len(args) > 2:
		h.mu.Lock()
		defer h.mu.Unlock()
		if args[2] == "none" {
			clear(h.faults)
			return
		}
		h.faults[strings.Join(args[3:], "")] = args[2]
	case args[0] == "budget" && len(args) == 3:
		n, err := strconv.Atoi(args[2])
		ts.Check(err)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.budget = &n
	case args[0] == "wait":
		select {
		case <-h.stalled:
		case <-time.After(20 * time.Second):
			ts.Fatalf("nothing stalled")
		}
	case args[0] == "tag" && len(args) == 5:
		was := h.call("GET", args[2]+"/manifests/"+args[3], "", nil)
		h.call("PUT", args[2]+"/manifests/"+args[4], was.Header().Get("Content-Type"), was.Body.Bytes())
	case args[0] == "rm" && len(args) == 4:
		h.call("DELETE", args[2]+"/manifests/"+args[3], "", nil)
	default:
		ts.Fatalf("%s", registryUsage)
	}
}

// call asks the registry itself, past faults and logins.
func (h *hub) call(method, path, contentType string, body []byte) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, "/v2/"+path, bytes.NewReader(body))
	req.Header.Set("Content-Type", contentType)
	rec := httptest.NewRecorder()
	h.registry.ServeHTTP(rec, req)
	return rec
}

// fill pushes the sample images.
func (h *hub) fill(referrers bool) error {
	h.registry = registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(referrers))
	layouts, err := filepath.Glob("testdata/sample/*/*/index.json")
	if err != nil || len(layouts) == 0 {
		return fmt.Errorf("no sample: %w", err)
	}
	for _, index := range layouts {
		folder := filepath.Dir(index)
		repository := filepath.ToSlash(strings.TrimPrefix(folder, filepath.Join("testdata", "sample")+string(filepath.Separator)))
		if err := h.push(folder, repository, index, true); err != nil {
			return err
		}
	}
	return nil
}

// push pushes what a manifest in a layout lists, and tags it if it is the layout's own index.
func (h *hub) push(folder, repository, file string, tags bool) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var m struct {
		Manifests, Layers []v1.Descriptor
		Config            *v1.Descriptor
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return err
	}
	if m.Config != nil {
		m.Layers = append(m.Layers, *m.Config)
	}
	blob := func(d v1.Descriptor) string {
		return filepath.Join(folder, "blobs", d.Digest.Algorithm().String(), d.Digest.Encoded())
	}
	for _, d := range m.Layers {
		data, err := os.ReadFile(blob(d))
		if err != nil {
			return err
		}
		h.call("POST", repository+"/blobs/uploads/?digest="+d.Digest.String(), "", data)
	}
	for _, d := range m.Manifests {
		if err := h.push(folder, repository, blob(d), false); err != nil {
			return err
		}
		data, err := os.ReadFile(blob(d))
		if err != nil {
			return err
		}
		reference := d.Digest.String()
		if tags {
			reference = d.Annotations[v1.AnnotationRefName]
		}
		if rec := h.call("PUT", repository+"/manifests/"+reference, d.MediaType, data); rec.Code != http.StatusCreated {
			return fmt.Errorf("push %s %s: %d %s", repository, reference, rec.Code, rec.Body)
		}
	}
	return nil
}

func (h *hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	h.requests = append(h.requests, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+r.Header.Get("Range")))
	fault := h.faults[""]
	for repository, f := range h.faults {
		if repository != "" && strings.HasPrefix(r.URL.Path, "/v2/"+repository+"/") {
			fault = f
		}
	}
	if h.budget != nil && strings.Contains(r.URL.Path, "/manifests/") {
		if r.Method == http.MethodGet {
			if *h.budget--; *h.budget < 0 {
				*h.budget, fault = 0, "429"
			}
		}
		w.Header().Set("RateLimit-Limit", "100;w=21600")
		w.Header().Set("RateLimit-Remaining", strconv.Itoa(*h.budget)+";w=21600")
	}
	h.mu.Unlock()
	user, password, _ := r.BasicAuth()
	if h.login != "" && user+":"+password != h.login {
		fault = "401"
	}
	content, blob := r.Method == http.MethodGet, strings.Contains(r.URL.Path, "/blobs/")
	if status, err := strconv.Atoi(fault); err == nil {
		w.Header().Set("WWW-Authenticate", `Basic realm="hub"`)
		http.Error(w, `{"errors":[{"code":"DENIED","message":"no"}]}`, status)
		return
	}
	if strings.Contains(r.URL.Path, "/blobs/sha512:") { // which this registry does not know
		_, encoded, _ := strings.Cut(r.URL.Path, "sha512:")
		found, _ := filepath.Glob("testdata/sample/*/*/blobs/sha512/" + encoded)
		http.ServeFile(w, r, found[0])
		return
	}
	rec, whole := httptest.NewRecorder(), r.Clone(r.Context())
	whole.Header.Del("Range") // which this registry understands in one form only
	h.registry.ServeHTTP(rec, whole)
	body := rec.Body.Bytes()
	switch {
	case fault == "html":
		rec.Code, body = http.StatusOK, []byte("<!doctype html><title>Welcome</title>")
		rec.Header().Del("Docker-Content-Digest")
		rec.Header().Set("Content-Type", "text/html")
	case fault == "wrongdigest" && content && !blob:
		body = bytes.Replace(body, []byte(`"schemaVersion":2`), []byte(`"schemaVersion":7`), 1)
	case fault == "wrongblob" && content && blob && len(body) > 0:
		body[len(body)-1] ^= 1
	case fault == "bigmanifest" && content && !blob:
		body = append(body, bytes.Repeat([]byte(" "), 5<<20)...)
	}
	maps.Copy(w.Header(), rec.Header())
	if content && blob && rec.Code == http.StatusOK && fault != "stall" {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
		return
	}
	if content {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(rec.Code)
	if fault == "stall" && content && blob {
		_, _ = w.Write(body[:len(body)/2]) // the client is not there to the end
		_ = http.NewResponseController(w).Flush()
		time.Sleep(200 * time.Millisecond) // for the client to write it down
		h.stalled <- struct{}{}
		<-r.Context().Done()
		return
	}
	_, _ = w.Write(body)
}
