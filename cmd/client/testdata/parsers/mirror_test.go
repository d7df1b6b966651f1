package parsers

import (
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"mirrorctl/cmd/client"
)

const (
	user     = "ci"
	password = "open \"sesame\""

	layerless = `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"config":{}}`
)

var manifest = fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",`+
	`"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%x","size":%d},"layers":[]}`,
	sha256.Sum256([]byte(layerless)), len(layerless))

// mirror is a registry that has one image under every name, and remembers who
// asked for what.
type mirror struct {
	client.Mirror
	root string // where the configuration is

	mu   sync.Mutex
	seen []string
}

func (m *mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if name, word, _ := r.BasicAuth(); m.Username != "" && (name != user || word != password) {
		w.Header().Set("WWW-Authenticate", `Basic realm="mirror"`)
		http.Error(w, "{}", http.StatusUnauthorized)
		return
	}
	switch {
	case r.URL.Path == "/v2/":
	case strings.Contains(r.URL.Path, "/manifests/"):
		m.mu.Lock()
		m.seen = append(m.seen, r.URL.RequestURI())
		m.mu.Unlock()
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		w.Header().Set("Docker-Content-Digest", fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(manifest))))
		w.Header().Set("Content-Length", fmt.Sprint(len(manifest)))
		fmt.Fprint(w, manifest)
	case strings.Contains(r.URL.Path, "/blobs/"):
		fmt.Fprint(w, layerless)
	default:
		http.NotFound(w, r)
	}
}

// last is the last request for a manifest.
func (m *mirror) last(t *testing.T) string {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.seen) == 0 {
		t.Fatal("the mirror was not asked")
	}
	return m.seen[len(m.seen)-1]
}

// eachMirror runs a test with a plain mirror, one behind TLS with a private
// authority, and one that wants a login besides.
func eachMirror(t *testing.T, test func(t *testing.T, m *mirror)) {
	for _, name := range []string{"http", "https", "https with login"} {
		t.Run(name, func(t *testing.T) {
			m := &mirror{root: t.TempDir()}
			m.Registries = []string{"docker.io", "ghcr.io"}
			m.DockerConfig = filepath.Join(m.root, "docker")
			if strings.HasSuffix(name, "login") {
				m.Username, m.Password = user, password
			}
			server := httptest.NewUnstartedServer(m)
			if name == "http" {
				server.Start()
			} else {
				server.StartTLS()
				m.TLS = true
				m.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
			}
			t.Cleanup(server.Close)
			m.Address = server.Listener.Addr().String()
			test(t, m)
		})
	}
}

// build returns the configuration of a client, with every path below the root of
// the mirror, and writes the files.
func (m *mirror) build(t *testing.T, name string) client.Config {
	t.Helper()
	config, err := client.Build(name, m.Mirror)
	if err != nil {
		t.Fatal(err)
	}
	for i := range config.Files {
		f := &config.Files[i]
		if f.Snippet() {
			continue
		}
		f.Content = strings.NewReplacer(`"/etc/`, `"`+m.root+`/etc/`).Replace(f.Content)
		if !strings.HasPrefix(f.Path, m.root) {
			f.Path = filepath.Join(m.root, f.Path)
		}
		if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f.Path, []byte(f.Content), f.Mode); err != nil {
			t.Fatal(err)
		}
	}
	return config
}
