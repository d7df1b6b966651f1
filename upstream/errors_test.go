package upstream

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// answers makes all requests of a kind (manifests, blobs, referrers, or "" for
// all) get one answer.
func (f *fake) answers(kind string, answer http.HandlerFunc) {
	f.misbehave(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if strings.Contains(r.URL.Path, kind) {
			answer(w, r)
			return
		}
		serve(w, r)
	})
}

func status(code int, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
	}
}

// What a registry does wrong, and what is said of it.
func TestErrors(t *testing.T) {
	image := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}`)
	as := func(mediaType string, content []byte, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", mediaType)
			status(http.StatusOK, header...)(w, r)
			_, _ = w.Write(content)
		}
	}
	var zipped bytes.Buffer
	zw := gzip.NewWriter(&zipped)
	_, _ = zw.Write(image)
	_ = zw.Close()
	oci, wrong := v1.MediaTypeImageManifest, digest.FromString("wrong").String()
	descriptor := func(size string) []byte {
		return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"a/b","digest":%q,"size":%s},"layers":[]}`, oci, wrong, size)
	}
	for _, tt := range []struct {
		name     string
		kind     string
		answer   http.HandlerFunc
		cause    error
		mentions string
		within   time.Duration
	}{
		{"404", "/manifests/", status(404), ErrNotFound, "", 1},
		{"401", "", status(401), ErrUnauthorized, "answered 401", 1},
		{"401 with a challenge", "", status(401, "WWW-Authenticate", `Basic realm="x"`), ErrUnauthorized, "answered 401", 1},
		{"401 with an odd challenge", "", status(401, "WWW-Authenticate", `Bearer realm=`), ErrUnauthorized, "answered 401", 1},
		{"403", "", status(403), ErrForbidden, "answered 403", 1},
		{"429", "", status(429), ErrRateLimited, "answered 429", 5},
		{"429 for a second", "", status(429, "Retry-After", "1"), ErrRateLimited, "try again in 1s", 6},
		{"429 for an hour", "", status(429, "Retry-After", "3600"), ErrRateLimited, "try again in 1h0m0s", 1},
		{"429 until a date", "", status(429, "Retry-After", time.Now().Add(24*time.Hour).UTC().Format(http.TimeFormat)), ErrRateLimited, "try again in", 1},
		{"503", "", status(503), ErrUnavailable, "503 Service Unavailable", 5},
		{"503 on referrers", "/referrers/", status(503), ErrUnavailable, "503 Service Unavailable", 5},
		{"HTML", "", as("text/html", []byte("<html>hello</html>")), ErrNotRegistry, `"text/html"`, 1},
		{"HTML with its digest", "", as("text/html", []byte("<html>hello</html>"), "Docker-Content-Digest", wrong), ErrNotRegistry, `"text/html"`, 1},
		{"too large", "/manifests/", as(oci, bytes.Repeat([]byte(" "), 4<<20+1)), ErrTooLarge, "more than 4 MiB", 2},
		{"wrong digest header", "/manifests/", as(oci, image, "Docker-Content-Digest", wrong), ErrIntegrity, wrong, 1},
		{"malformed digest header", "/manifests/", as(oci, []byte("["), "Docker-Content-Digest", "sha256:0"), ErrNotRegistry, "", 1},
		{"no JSON", "/manifests/", as(oci, []byte("hello")), ErrNotRegistry, "a manifest that is no JSON", 1},
		{"JSON, but no manifest", "/manifests/", as(oci, []byte(`["a"]`)), ErrNotRegistry, "no object but array", 1},
		{"another media type within", "/manifests/", as(v1.MediaTypeImageIndex, image), ErrNotRegistry, "", 1},
		{"schema 1", "/manifests/", as("application/vnd.docker.distribution.manifest.v1+prettyjws", []byte(`{"schemaVersion":1}`), "Docker-Content-Digest", wrong), ErrNotRegistry, "a manifest that is no application/vnd.docker.distribution.manifest.v1+prettyjws", 1},
		{"gzip", "/manifests/", as(oci, zipped.Bytes(), "Content-Encoding", "gzip"), ErrNotRegistry, "Content-Encoding", 1},
		{"negative size", "/manifests/", as(oci, descriptor("-1")), ErrInvalid, "size -1", 1},
		{"no size", "/manifests/", as(oci, descriptor("0")), ErrInvalid, "without its size", 1},
		{"size beyond numbers", "/manifests/", as(oci, descriptor("99999999999999999999")), ErrNotRegistry, "size is number 99999999999999999999", 1},
		{"redirect loop", "", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.String(), http.StatusTemporaryRedirect)
		}, ErrUnavailable, "redirects without end", 1},
		{"redirect without a place", "", status(307), ErrUnavailable, "without saying where to", 1},
		{"redirect to a file", "", status(307, "Location", "file:///etc/passwd"), ErrUnavailable, "no address of a server", 1},
		{"redirect to nowhere", "", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/x", http.StatusTemporaryRedirect)
		}, ErrUnreachable, "127.0.0.1:1", 5},
		{"204", "", status(204), ErrNotRegistry, "answered 204", 1},
		{"400", "", status(400), ErrUnsupported, "answered 400", 1},
		{"a message", "", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(403)
			fmt.Fprintf(w, `{"errors":[{"code":"DENIED","message":"not for you\n\u001b[31m%s"}]}`, strings.Repeat("!", 9999))
		}, ErrForbidden, "answered 403", 1},
		{"a huge error", "", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			for range 1000 {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
		}, ErrUnavailable, "answered 500", 5},
		{"cut manifest", "/manifests/", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", oci)
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write(image)
		}, ErrUnavailable, "broke off", 5},
		{"endless referrers", "/referrers/", func(w http.ResponseWriter, r *http.Request) {
			as(v1.MediaTypeImageIndex, []byte(`{"manifests":[]}`), "Link", `<?last=x>; rel="next"`)(w, r)
		}, ErrTooLarge, "100 pages", 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, st := newFake(t), newStore(t)
			f.simple(100, "1")
			f.answers(tt.kind, tt.answer)
			began := time.Now()
			_, err := fetchTag(t, newClient(t, st, f), "1")
			mentions := []string{f.host()}
			if tt.mentions != "" {
				mentions = append(mentions, tt.mentions)
			}
			if tt.name == "404" || tt.name == "schema 1" || tt.name == "negative size" || tt.name == "no size" || tt.name == "size beyond numbers" {
				mentions = mentions[1:] // not the host is at fault
			}
			wantError(t, err, tt.cause, mentions...)
			if took := time.Since(began); took > 10*tt.within*time.Second { // on a busy machine
				t.Errorf("took %v", took)
			}
			if pins, err := st.Pins(t.Context()); err != nil || len(pins) > 0 {
				t.Errorf("pinned: %v %v", pins, err)
			}
		})
	}
}

// libtrust, with which regclient reads signed manifests, panics on a negative
// length.
func TestPanicInRegclient(t *testing.T) {
	f, st := newFake(t), newStore(t)
	f.answers("/manifests/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws")
		fmt.Fprintf(w, `{"schemaVersion":1,"signatures":[{"protected":%q}]}`, base64.RawURLEncoding.EncodeToString([]byte(`{"formatLength":-1,"formatTail":""}`)))
	})
	if _, err := newPullThrough(t, newClient(t, st, f)).Manifest(t.Context(), app, "1"); !errors.Is(err, ErrNotRegistry) {
		t.Errorf("error %v", err)
	}
}

// Failures that pass are not the end.
func TestRetry(t *testing.T) {
	for name, once := range map[string]http.HandlerFunc{
		"500":    status(500),
		"429":    status(429, "Retry-After", "1"),
		"closed": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			f, st := newFake(t), newStore(t)
			f.simple(100, "1")
			failed := map[string]bool{}
			f.misbehave(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
				f.mu.Lock()
				first := !failed[r.Method+r.URL.Path]
				failed[r.Method+r.URL.Path] = true
				f.mu.Unlock()
				if first {
					once(w, r)
					return
				}
				serve(w, r)
			})
			mustFetch(t, newClient(t, st, f), "1")
			checkStored(t, st, f)
		})
	}
}

// Parts of an image that are lost or cannot be.
func TestBadParts(t *testing.T) {
	f := newFake(t)
	good, _ := f.simple(100)
	gone := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromString("gone"), Size: 4}
	huge := f.blob(random(50))
	huge.Size = 1 << 45
	absurd := f.blob(random(51))
	absurd.Size = math.MaxInt64
	deep := good
	for range 100 {
		deep = f.index([]v1.Descriptor{deep})
	}
	self := digest.FromString("itself")
	f.index([]v1.Descriptor{{MediaType: v1.MediaTypeImageIndex, Digest: self, Size: 3}}, "self", self.String())
	f.index([]v1.Descriptor{good, gone}, "gone")
	f.image([]v1.Descriptor{huge}, "huge")
	f.image([]v1.Descriptor{absurd}, "absurd")
	f.onBlob(absurd, func(_ int, w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
		_ = http.NewResponseController(w).Flush() // of unknown length
	})
	f.index([]v1.Descriptor{deep}, "deep")
	announced := good
	announced.MediaType = v1.MediaTypeImageIndex
	f.index([]v1.Descriptor{announced}, "announced")
	wide := make([]v1.Descriptor, maxContents+1)
	for i := range wide {
		wide[i] = v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: digest.FromString(fmt.Sprint(i)), Size: 1}
	}
	f.image(wide, "wide")
	for _, tt := range []struct {
		tag      string
		cause    error
		mentions string
	}{
		{"gone", ErrNotFound, "its manifest " + gone.Digest.String()},
		{"huge", ErrIntegrity, "has 50 bytes"},
		{"absurd", ErrUnavailable, absurd.Digest.String()},
		{"deep", ErrUnsupported, "16 deep"},
		{"self", ErrIntegrity, self.String()},
		{"announced", ErrIntegrity, good.Digest.String()},
		{"wide", ErrTooLarge, "10000"},
	} {
		t.Run(tt.tag, func(t *testing.T) {
			began := time.Now()
			_, err := fetchTag(t, newClient(t, newStore(t), f), tt.tag)
			wantError(t, err, tt.cause, tt.mentions)
			if took := time.Since(began); took > time.Minute {
				t.Errorf("took %v", took)
			}
		})
	}
}

// Hosts that give no answer at all.
func TestUnreachable(t *testing.T) {
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(secure.Close)
	secure.Config.ErrorLog = nil
	plain := newFake(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	for _, tt := range []struct{ name, url, mentions string }{
		{"refused", "http://127.0.0.1:1", "127.0.0.1:1: connection refused"},
		{"no such name", "https://registry.invalid", "registry.invalid: "},
		{"unknown authority", secure.URL, "unknown authority"},
		{"plain HTTP", strings.Replace(plain.URL, "http:", "https:", 1), "does not speak TLS"},
		{"silent", "http://" + silent.Addr().String(), "does not answer"},
		{"silent TLS", "https://" + silent.Addr().String(), "does not answer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newClientOf(t, newStore(t), Registry{URL: tt.url})
			c.silence = 2 * time.Second // a busy machine is silent at times, too
			began := time.Now()
			_, err := fetchTag(t, c, "1")
			wantError(t, err, ErrUnreachable, tt.mentions, mustURL(t, tt.url).Host)
			if took := time.Since(began); took > 10*c.silence {
				t.Errorf("took %v", took)
			}
			// The next image does not wait again.
			began = time.Now()
			_, err = fetchTag(t, c, "2")
			wantError(t, err, ErrUnreachable)
			if took := time.Since(began); took > c.silence/2 {
				t.Errorf("the next one took %v", took)
			}
		})
	}
}

func TestBadAddress(t *testing.T) {
	for _, address := range []string{"example.test", "ftp://example.test", "https://", "https://me:secret@example.test", "https://a b"} {
		_, err := fetchTag(t, newClientOf(t, newStore(t), Registry{URL: address}), "1")
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// A root that is not what it was announced as: only what was announced is said.
// What was announced without a media type is what the registry sends it as.
func TestRootAnnounced(t *testing.T) {
	f := newFake(t)
	image, _ := f.simple(100, "1")
	const mediaType, size = v1.MediaTypeImageIndex, 7
	sent := fmt.Sprintf("%s sent %s with %d", f.host(), image.MediaType, image.Size)
	for _, tt := range []struct {
		root v1.Descriptor
		want string // "" for a pin
	}{
		{v1.Descriptor{}, ""},
		{v1.Descriptor{MediaType: image.MediaType}, ""},
		{v1.Descriptor{Size: image.Size}, ""},
		{v1.Descriptor{MediaType: mediaType}, " is announced as " + mediaType + ", " + sent},
		{v1.Descriptor{Size: size}, " is announced with 7 bytes, " + sent},
		{v1.Descriptor{MediaType: mediaType, Size: size}, " is announced as " + mediaType + " with 7 bytes, " + sent},
	} {
		st := newStore(t)
		tt.root.Digest = image.Digest
		pin, err := newClient(t, st, f).Fetch(t.Context(), named(t, "example.test/team/app:1"), tt.root, false, &Progress{})
		if tt.want != "" {
			wantError(t, err, ErrIntegrity, image.Digest.String()+tt.want)
			continue
		}
		if err != nil || pin.MediaType != image.MediaType {
			t.Errorf("%+v: pinned as %q, %v", tt.root, pin.MediaType, err)
		}
	}

	// A tag that is answered with another media type, and without a length.
	f.misbehave(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if r.Method != http.MethodHead {
			serve(w, r)
			return
		}
		w.Header().Set("Content-Type", mediaType)
		w.Header().Set("Docker-Content-Digest", image.Digest.String())
	})
	_, err := fetchTag(t, newClient(t, newStore(t), f), "1")
	wantError(t, err, ErrIntegrity, " is announced as "+mediaType+", "+sent)
}
