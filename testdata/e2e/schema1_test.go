//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const schema1Signed = "application/vnd.docker.distribution.manifest.v1+prettyjws"

// startSchema1Hub runs a registry with library/old:1, an image of schema 1, and
// returns its digest. The registry itself makes that from one of schema 2.
func startSchema1Hub(tb testing.TB) (*hub, string) {
	tb.Helper()
	r := &repository{name: "library/old"}
	r.tag(r.image(docker, "amd64", rootfsLayer(tb, "busybox-amd64", ".gz").as(dockerLayer), randomLayer(tb, 9, 300_000).as(dockerLayer)), "1")
	hub := startHubWith(tb, "docker-registry-2.8", "compatibility: {schema1: {enabled: true}}\n", nil, r)
	made := getSchema1(tb, hub.url(), "1")
	answer := hub.send(tb, http.MethodPut, hub.url()+"/v2/library/old/manifests/1", schema1Signed, strings.NewReader(made.text), int64(len(made.text)), http.StatusCreated)
	return hub, answer.Header.Get("Docker-Content-Digest")
}

// schema1 is an answer with a manifest of schema 1.
type schema1 struct {
	digest, mediaType, text string
	layers                  []string
}

func getSchema1(tb testing.TB, base, reference string) schema1 {
	tb.Helper()
	request, err := http.NewRequest(http.MethodGet, base+"/v2/library/old/manifests/"+reference, nil)
	check(tb, err)
	request.Header.Set("Accept", schema1Signed)
	answer := do(tb, request)
	if answer.StatusCode != http.StatusOK {
		tb.Fatalf("%s: %s: %s", request.URL, answer.Status, answer.body)
	}
	m := schema1{digest: answer.Header.Get("Docker-Content-Digest"), mediaType: answer.Header.Get("Content-Type"), text: string(answer.body)}
	var doc struct{ FSLayers []struct{ BlobSum string } }
	check(tb, json.Unmarshal(answer.body, &doc))
	for _, layer := range doc.FSLayers {
		m.layers = append(m.layers, layer.BlobSum)
	}
	return m
}

// unsigned is a manifest without its signatures, which the registry makes anew
// for each answer.
func (m schema1) unsigned() string {
	text, _, _ := strings.Cut(m.text, ",\n   \"signatures\": ")
	return text
}

// Clients that still read schema 1 pull it from the mirror, whether it was synced
// or pulled through, when the registry is gone.
func TestSchema1(t *testing.T) {
	hub, digest := startSchema1Hub(t)
	upstream := getSchema1(t, hub.url(), "1")
	layers := map[string]string{}
	for _, layer := range upstream.layers {
		layers[layer] = digestOf(get(t, hub.url()+"/v2/library/old/blobs/"+layer).body)
	}
	synced, through := newProject(t, hub.url(), "old:1"), newProject(t, hub.url())
	synced.must(t, "sync", "Dockerfile")
	mirrors := map[string]string{"sync": synced.serve(t), "pull-through": through.serve(t, "--pull-through", "docker.io")}
	first := map[string]schema1{}
	for way, mirror := range mirrors {
		first[way] = getSchema1(t, "http://"+mirror, "1")
	}
	within(t, patience, "pinned", func() bool {
		return strings.Contains(through.must(t, "ls"), " linux/amd64 ") // no longer arriving
	})
	hub.stop()
	for way, mirror := range mirrors {
		t.Run(way, func(t *testing.T) {
			for _, reference := range []string{"1", digest} {
				m := getSchema1(t, "http://"+mirror, reference)
				if m.text != first[way].text {
					t.Errorf("%s: other bytes than at first", reference)
				}
				if m.unsigned() != upstream.unsigned() || m.digest != digest || m.mediaType != schema1Signed {
					t.Errorf("%s: %s %s: %s", reference, m.mediaType, m.digest, m.text)
				}
			}
			for layer, content := range layers {
				if got := digestOf(get(t, "http://"+mirror+"/v2/library/old/blobs/"+layer).body); got != layer || got != content {
					t.Errorf("layer %s: %s", layer, got)
				}
			}
			t.Run("skopeo", func(t *testing.T) {
				dir := tempDir(t)
				must(t, "", nil, "skopeo", "--registries-conf", registriesConf(t, mirror), "--insecure-policy",
					"copy", "--quiet", "--preserve-digests", "docker://docker.io/library/old:1", "dir:"+dir)
				text, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
				check(t, err)
				if string(text) != first[way].text {
					t.Errorf("skopeo has %s", text)
				}
			})
			if way != "sync" && !full() { // the bytes are the same
				return
			}
			t.Run("docker", func(t *testing.T) {
				daemon := newDockerd(t, mirror)
				daemon.docker(t, "pull", "old:1")
				if got := daemon.docker(t, "image", "inspect", "--format", "{{join .RepoDigests \" \"}}", "old:1"); !strings.Contains(got, digest) {
					t.Errorf("docker pulled %s", got)
				}
				daemon.docker(t, "pull", "old@"+digest)
			})
			if !full() {
				return
			}
			t.Run("podman", func(t *testing.T) {
				env := containersEnv(t, registriesConf(t, mirror))
				must(t, "", env, "podman", "pull", "--quiet", "docker.io/library/old:1")
			})
			t.Run("containerd", func(t *testing.T) {
				c := newContainerd(t)
				writeFile(t, filepath.Join(c.hosts, "docker.io", "hosts.toml"), fmt.Sprintf("server = \"http://%[1]s\"\n[host.\"http://%[1]s\"]\n  capabilities = [\"pull\", \"resolve\"]\n", mirror))
				c.ctr(t, "images", "pull", "--hosts-dir", c.hosts, "docker.io/library/old:1")
			})
			t.Run("regctl", func(t *testing.T) {
				env := []string{"REGCTL_CONFIG=" + filepath.Join(tempDir(t), "config.json")}
				must(t, "", env, "regctl", "registry", "set", mirror, "--tls", "disabled", "--skip-check")
				text := must(t, "", env, "regctl", "manifest", "get", "--format", "raw-body", mirror+"/library/old:1")
				if text != first[way].text {
					t.Errorf("regctl has %s", text)
				}
			})
		})
	}
	for _, project := range []*project{synced, through} {
		project.verify(t)
	}
	if want := []string{"docker.io/library/old:1"}; !slices.Equal(changed(nil, synced.lock(t)), want) {
		t.Errorf("the lock is %v", synced.lock(t))
	}
}
