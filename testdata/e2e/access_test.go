//go:build e2e

package e2e

import (
	"encoding/base64"
	"fmt"
	"path/filepath"
	"testing"
)

// A private image: the login comes from docker's configuration or from ours.
func TestPrivateImage(t *testing.T) {
	eachRegistry(t, func(t *testing.T, kind string) {
		const registry = "registry.example.com"
		hub := startPrivateHub(t, kind, busybox(t))
		elsewhere := fmt.Sprintf("[registry.%q]\nurl = %q\n", registry, hub.url())
		image := registry + "/library/busybox:1.35"

		// private is a project that needs an image, with the settings for it in
		// mirrorctl.toml and one login in docker's configuration.
		private := func(t *testing.T, image, settings, login, password string) *project {
			project := newProject(t, hub.url(), image)
			project.configure(t, settings)
			auth := base64.StdEncoding.EncodeToString([]byte(hubUser + ":" + password))
			config := writeFile(t, filepath.Join(tempDir(t), "config.json"), fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, login, auth))
			project.env = []string{"DOCKER_CONFIG=" + filepath.Dir(config)}
			return project
		}
		refused := func(t *testing.T, project *project, words ...string) {
			t.Helper()
			r := project.mirrorctl(t, "sync", "Dockerfile")
			if r.code != exitSome {
				t.Errorf("sync without access: %v", r)
			}
			says(t, r, append(words, "401")...)
		}

		t.Run("docker login", func(t *testing.T) {
			image := hub.address + "/library/busybox:1.35"
			private(t, image, "", hub.address, hubPassword).must(t, "sync", "Dockerfile")
		})
		t.Run("docker login to where the registry is", func(t *testing.T) {
			private(t, image, elsewhere, hub.address, hubPassword).must(t, "sync", "Dockerfile")
		})
		t.Run("configuration", func(t *testing.T) {
			password := writeFile(t, filepath.Join(tempDir(t), "password"), hubPassword+"\n")
			settings := elsewhere + fmt.Sprintf("username = %q\npassword_file = %q\n", hubUser, password)
			project := private(t, image, settings, hub.address, "guess")
			// Named, because it refers to a file outside its folder.
			project.env = append(project.env, "MIRRORCTL_CONFIG=mirrorctl.toml")
			project.must(t, "sync", "Dockerfile")
			project.verify(t)
		})
		t.Run("wrong password", func(t *testing.T) {
			settings := elsewhere + fmt.Sprintf("username = %q\npassword = %q\n", hubUser, "guess")
			refused(t, private(t, image, settings, "ghcr.io", hubPassword), image)
		})
		t.Run("wrong docker login", func(t *testing.T) {
			refused(t, private(t, image, elsewhere, hub.address, "guess"), image)
		})
		t.Run("no login", func(t *testing.T) {
			// The advice names the host that a login would be good for.
			refused(t, private(t, image, elsewhere, "ghcr.io", hubPassword), image, "docker login "+hub.address)
		})
		t.Run("a login is for one host", func(t *testing.T) {
			// Requests for registry.example.com go to another host here; what a
			// person told docker for the one is not told to the other.
			refused(t, private(t, image, elsewhere, registry, hubPassword), image)
		})
	})
}

// Another mirrorctl as a mirror of docker.io: it is asked first, and what it has
// does not come from the upstream.
func TestMirrorOfMirror(t *testing.T) {
	eachRegistry(t, func(t *testing.T, kind string) {
		hub := startHub(t, kind, busybox(t), attested(t), layered(t))
		near := newProject(t, hub.url(), "busybox:1.35", "busybox:1.35-zstd", "attested:1")
		near.must(t, "sync", "Dockerfile")
		mirror := near.serve(t)

		proxy := startProxy(t, hub.url())
		far := newProject(t, proxy.url(), "busybox:1.35", "busybox:1.35-zstd", "attested:1")
		far.configure(t, fmt.Sprintf("[registry.\"docker.io\"]\nurl = %q\nmirrors = [\"http://%s\"]\n", proxy.url(), mirror))
		far.must(t, "sync", "Dockerfile")
		if requests := proxy.seen("GET", "/blobs/"); len(requests) != 0 {
			t.Errorf("upstream was asked for blobs that the mirror has: %v", requests)
		}
		t.Logf("upstream saw %d HEAD and %d GET of manifests",
			len(proxy.seen("HEAD", "/manifests/")), len(proxy.seen("GET", "/manifests/")))
		upstream := hub.record(t, "library/busybox:1.35", "library/busybox:1.35-zstd", "library/attested:1")
		upstream.compare(t, "http://"+far.serve(t))

		// What the mirror lacks still comes from the upstream.
		far.needs(t, "busybox:1.35", "layered:41")
		far.must(t, "sync", "Dockerfile")
		if len(proxy.seen("GET", "/blobs/")) == 0 {
			t.Error("an image that the mirror lacks came from nowhere")
		}
		far.verify(t)
	})
}
