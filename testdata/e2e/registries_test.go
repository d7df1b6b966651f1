//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// upstreamNames are the registries behind one mirror port, each with an image
// that the others do not have.
var upstreamNames = map[string]string{
	"docker.io": "docker.io/library/busybox:1.35",
	"ghcr.io":   "ghcr.io/acme/tool:1",
	"quay.io":   "quay.io/team/db/server:9",
}

// registryClient is a real client that is pointed at a mirror of several
// registries. start does so in a fresh place; what it returns pulls an image by
// its full name and returns all that it tells of its digests.
type registryClient struct {
	name  string
	start func(tb testing.TB, mirror string) func(tb testing.TB, image string) string
}

var registryClients = []registryClient{
	{"skopeo", func(tb testing.TB, mirror string) func(testing.TB, string) string {
		conf := mirrorsConf(tb, mirror)
		return func(tb testing.TB, image string) string {
			dir := tempDir(tb)
			must(tb, "", nil, "skopeo", "--registries-conf", conf, "--insecure-policy",
				"copy", "--quiet", "--all", "--preserve-digests", "docker://"+image, "dir:"+dir)
			text, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
			check(tb, err)
			return digestOf(text)
		}
	}},
	{"crane", func(_ testing.TB, mirror string) func(testing.TB, string) string {
		return func(tb testing.TB, image string) string {
			layout := filepath.Join(tempDir(tb), "layout")
			must(tb, "", nil, "crane", "pull", "--insecure", "--format", "oci", mirror+"/"+image, layout)
			text, err := os.ReadFile(filepath.Join(layout, "index.json"))
			check(tb, err)
			return string(text)
		}
	}},
	{"regctl", func(tb testing.TB, mirror string) func(testing.TB, string) string {
		env := []string{"REGCTL_CONFIG=" + filepath.Join(tempDir(tb), "config.json")}
		for name := range upstreamNames {
			must(tb, "", env, "regctl", "registry", "set", name, "--mirror", mirror, "--skip-check")
		}
		must(tb, "", env, "regctl", "registry", "set", mirror, "--tls", "disabled", "--skip-check")
		return func(tb testing.TB, image string) string {
			layout := tempDir(tb)
			must(tb, "", env, "regctl", "image", "copy", image, "ocidir://"+layout+":copy")
			text, err := os.ReadFile(filepath.Join(layout, "index.json"))
			check(tb, err)
			return string(text)
		}
	}},
	{"podman", containersClient("podman")},
	{"buildah", containersClient("buildah")},
	{"docker", func(tb testing.TB, mirror string) func(testing.TB, string) string {
		daemon := newDockerd(tb, mirror)
		return func(tb testing.TB, image string) string {
			if !strings.HasPrefix(image, "docker.io/") {
				image = mirror + "/" + image // registry-mirrors are docker.io's alone
			}
			daemon.docker(tb, "pull", "--quiet", image)
			return daemon.docker(tb, "image", "inspect", "--format", "{{join .RepoDigests \" \"}}", image)
		}
	}},
	{"docker build", buildWithDocker("0")},
	{"docker build with BuildKit", buildWithDocker("1")},
	{"containerd", func(tb testing.TB, mirror string) func(testing.TB, string) string {
		c := newContainerd(tb)
		for name := range upstreamNames {
			writeFile(tb, filepath.Join(c.hosts, name, "hosts.toml"), fmt.Sprintf("server = \"http://%[1]s\"\n[host.\"http://%[1]s\"]\n  capabilities = [\"pull\", \"resolve\"]\n", mirror))
		}
		return func(tb testing.TB, image string) string {
			c.ctr(tb, "images", "pull", "--hosts-dir", c.hosts, image)
			return c.ctr(tb, "images", "ls", "name=="+image)
		}
	}},
}

// mirrorsConf sends containers' tools to the mirror for all registries.
func mirrorsConf(tb testing.TB, mirror string) string {
	tb.Helper()
	var text strings.Builder
	for name := range upstreamNames {
		fmt.Fprintf(&text, "[[registry]]\nlocation = %q\n[[registry.mirror]]\nlocation = \"%s/%s\"\ninsecure = true\n", name, mirror, name)
	}
	return writeFile(tb, filepath.Join(tempDir(tb), "registries.conf"), text.String())
}

func containersClient(program string) func(testing.TB, string) func(testing.TB, string) string {
	return func(tb testing.TB, mirror string) func(testing.TB, string) string {
		env := containersEnv(tb, mirrorsConf(tb, mirror))
		return func(tb testing.TB, image string) string {
			id := must(tb, "", env, program, "pull", "--quiet", image)
			if program == "buildah" {
				return must(tb, "", env, "buildah", "images", "--digests", "--no-trunc", "--format", "{{.Digest}}", image)
			}
			return must(tb, "", env, "podman", "image", "inspect", "--format", "{{join .RepoDigests \" \"}}", id)
		}
	}
}

// buildWithDocker builds with images of two registries, and pulls nothing else.
func buildWithDocker(buildkit string) func(testing.TB, string) func(testing.TB, string) string {
	return func(tb testing.TB, mirror string) func(testing.TB, string) string {
		daemon := newDockerd(tb, mirror)
		return func(tb testing.TB, image string) string {
			context := tempDir(tb)
			other := mirror + "/" + image
			writeFile(tb, filepath.Join(context, "Dockerfile"), fmt.Sprintf(
				"FROM busybox:1.35\nCOPY --from=%s /bin/busybox /other/busybox\nRUN /other/busybox true\n", other))
			must(tb, "", append(daemon.env, "DOCKER_BUILDKIT="+buildkit), "docker", "build", "--no-cache", "--network=host", "-t", "built", context)
			return ""
		}
	}
}

// tool is an image of another registry, with a layer of its own.
func tool(tb testing.TB, name, tag string, seed byte) *repository {
	r := &repository{name: name}
	var images []descriptor
	for _, arch := range []string{"amd64", "arm64"} {
		images = append(images, r.image(oci, arch, rootfsLayer(tb, "busybox-"+arch, ".gz"), randomLayer(tb, seed, 200_000)))
	}
	r.tag(r.index(oci, images...), tag)
	return r
}

// One port for three registries and all clients: first nothing is stored, and
// every client pulls from all three, then the registries are gone, and clients
// that know nothing yet pull again.
func TestPullThroughRegistries(t *testing.T) {
	hubs := map[string]*hub{
		"docker.io": startHub(t, "docker-registry-2.8", busybox(t)),
		"ghcr.io":   startHub(t, "distribution-3", tool(t, "acme/tool", "1", 20)),
		"quay.io":   startHub(t, "distribution-3", tool(t, "team/db/server", "9", 30)),
	}
	settings, digests := "", map[string]string{}
	for name, hub := range hubs {
		settings += fmt.Sprintf("[registry.%q]\nurl = %q\n", name, hub.url())
		inside := strings.TrimPrefix(upstreamNames[name], name+"/")
		digests[name] = hub.record(t, inside).digest(t, inside)
	}
	const through = "[serve]\npull_through = [\"docker.io\", \"ghcr.io\", \"quay.io\"]\n"
	for _, c := range registryClients {
		t.Run(c.name, func(t *testing.T) {
			project := newProject(t, "")
			project.configure(t, through+settings)
			mirror := address()
			server := project.server(t, mirror)
			pull := func(t *testing.T) {
				get := c.start(t, mirror)
				for name, image := range upstreamNames {
					if got := get(t, image); got != "" && !strings.Contains(got, digests[name]) {
						t.Errorf("%s: pulled %s, upstream has %s", image, got, digests[name])
					}
				}
			}
			if !t.Run("upstreams reachable", pull) {
				return
			}
			for _, image := range upstreamNames {
				project.complete(t, image)
			}
			server.stop()
			// Nobody is where the registries were.
			project.configure(t, through+strings.ReplaceAll(settings, "http://127.0.0.1:", "http://127.0.0.2:"))
			server = project.server(t, mirror)
			t.Run("upstreams gone", pull)
			server.stop()
			project.verify(t)
		})
	}
}
