package kaniko

import (
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/GoogleContainerTools/kaniko/pkg/config"
	"github.com/GoogleContainerTools/kaniko/pkg/image/remote"
	"github.com/google/go-containerregistry/pkg/name"

	"mirrorctl/cmd/client"
)

const layerless = `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"config":{}}`

var manifest = fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",`+
	`"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%x","size":%d},"layers":[]}`,
	sha256.Sum256([]byte(layerless)), len(layerless))

// TestFlags pulls images of two registries by kaniko's own code, set up by the
// flags, and looks at what the mirror was asked for.
func TestFlags(t *testing.T) {
	for _, tls := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", tls), func(t *testing.T) {
			var seen []string
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case strings.Contains(r.URL.Path, "/manifests/"):
					seen = append(seen, r.URL.RequestURI())
					w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
					fmt.Fprint(w, manifest)
				case strings.Contains(r.URL.Path, "/blobs/"):
					fmt.Fprint(w, layerless)
				}
			}))
			m := client.Mirror{Registries: []string{"docker.io", "ghcr.io", "registry.corp:5443"}, NoFallback: true, Aliases: map[string]string{"gh": "ghcr.io"}}
			ca := filepath.Join(t.TempDir(), "ca.pem")
			if tls {
				server.StartTLS()
				m.TLS, m.CA = true, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
				if err := os.WriteFile(ca, m.CA, 0o644); err != nil {
					t.Fatal(err)
				}
			} else {
				server.Start()
			}
			defer server.Close()
			m.Address = server.Listener.Addr().String()
			printed, err := client.Build("kaniko", m)
			if err != nil {
				t.Fatal(err)
			}
			options := parse(t, strings.ReplaceAll(printed.Files[0].Content, "/kaniko/mirrorctl-ca.pem", ca))
			tag := fmt.Sprint(tls) // kaniko remembers images, for both
			for _, image := range []string{"busybox", "ghcr.io/owner/app", "registry.corp:5443/owner/app"} {
				if _, err := remote.RetrieveRemoteImage(image+":"+tag, options, "linux/amd64"); err != nil {
					t.Errorf("%s: %v", image, err)
				}
			}
			want := []string{"/v2/library/busybox/manifests/" + tag, "/v2/gh/owner/app/manifests/" + tag, "/v2/registry-corp-5443/owner/app/manifests/" + tag}
			if !slices.Equal(seen, want) {
				t.Errorf("the mirror was asked for %v, want %v", seen, want)
			}
		})
	}
}

// parse sets the options as cmd/executor does, whose flags are of these types.
func parse(t *testing.T, flags string) config.RegistryOptions {
	t.Helper()
	o := config.RegistryOptions{RegistryMaps: map[string][]string{}, RegistriesCertificates: map[string]string{}}
	for _, flag := range strings.Fields(flags) {
		key, value, _ := strings.Cut(strings.TrimPrefix(flag, "--"), "=")
		var err error
		switch key {
		case "registry-mirror":
			err = o.RegistryMaps.Set(name.DefaultRegistry + "=" + value) // what its main does with it
		case "registry-map":
			err = o.RegistryMaps.Set(value)
		case "insecure-registry":
			err = o.InsecureRegistries.Set(value)
		case "registry-certificate":
			err = o.RegistriesCertificates.Set(value)
		case "skip-default-registry-fallback":
			o.SkipDefaultRegistryFallback = true
		default:
			t.Fatalf("kaniko has no --%s", key)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return o
}
