//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// client is a real container client that has been pointed at a mirror. Where it
// can, it asks for docker.io/library/... and is sent to the mirror by its own
// configuration, as on a person's machine.
type client struct {
	name string
	// start configures the client for the mirror at an address, in a fresh
	// place, with its daemon if it has one.
	start func(tb testing.TB, mirror string) pull
	// cannot is an image that the client refuses from any registry.
	cannot string
}

// pull fetches library/name:tag and checks what arrived against upstream's
// recording.
type pull func(tb testing.TB, image string, upstream *recording)

var clients = []client{
	{name: "skopeo", start: startSkopeo, cannot: "busybox:1.35-nested"},
	{name: "crane", start: startCrane},
	{name: "regctl", start: startRegctl},
	{name: "podman", start: startPodman},
	{name: "docker", start: startDocker},
	{name: "containerd", start: startContainerd},
}

// registriesConf sends podman and skopeo to the mirror for docker.io.
func registriesConf(tb testing.TB, mirror string) string {
	tb.Helper()
	return writeFile(tb, filepath.Join(tempDir(tb), "registries.conf"), fmt.Sprintf(`
[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "%s/docker.io"
insecure = true
`, mirror))
}

func startSkopeo(tb testing.TB, mirror string) pull {
	conf := registriesConf(tb, mirror)
	return func(tb testing.TB, image string, upstream *recording) {
		tb.Helper()
		dir := tempDir(tb)
		must(tb, "", nil, "skopeo", "--registries-conf", conf, "--insecure-policy",
			"copy", "--quiet", "--all", "--preserve-digests", "docker://docker.io/"+image, "dir:"+dir)
		// The folder holds manifest.json, and below an index HEX.manifest.json.
		digest := upstream.digest(tb, image)
		same(tb, upstream, image, digest, filepath.Join(dir, "manifest.json"))
		name, _, _ := strings.Cut(image, ":")
		for _, child := range decode(tb, upstream.manifests[name+"@"+digest].bytes).Manifests {
			same(tb, upstream, image, child.Digest, filepath.Join(dir, strings.TrimPrefix(child.Digest, "sha256:")+".manifest.json"))
		}
	}
}

func startCrane(tb testing.TB, mirror string) pull {
	return func(tb testing.TB, image string, upstream *recording) {
		tb.Helper()
		dir, reference, digest := tempDir(tb), mirror+"/"+image, upstream.digest(tb, image)
		if got := must(tb, "", nil, "crane", "digest", "--insecure", reference); got != digest {
			tb.Errorf("crane digest %s: %s, upstream has %s", image, got, digest)
		}
		layout := filepath.Join(dir, "layout")
		must(tb, "", nil, "crane", "pull", "--insecure", "--format", "oci", reference, layout)
		name, _, _ := strings.Cut(image, ":")
		same(tb, upstream, image, digest, blobPath(layout, digest))
		for _, child := range decode(tb, upstream.manifests[name+"@"+digest].bytes).Manifests {
			same(tb, upstream, image, child.Digest, blobPath(layout, child.Digest))
		}
	}
}

// startRegctl configures regctl, which asks its mirrors for registry-1.docker.io.
func startRegctl(tb testing.TB, mirror string) pull {
	env := []string{"REGCTL_CONFIG=" + filepath.Join(tempDir(tb), "config.json")}
	must(tb, "", env, "regctl", "registry", "set", "docker.io", "--mirror", mirror, "--skip-check")
	must(tb, "", env, "regctl", "registry", "set", mirror, "--tls", "disabled", "--skip-check")
	return func(tb testing.TB, image string, upstream *recording) {
		tb.Helper()
		layout, digest := tempDir(tb), upstream.digest(tb, image)
		must(tb, "", env, "regctl", "image", "copy", "docker.io/"+image, "ocidir://"+layout+":copy")
		name, _, _ := strings.Cut(image, ":")
		same(tb, upstream, image, digest, blobPath(layout, digest))
		for _, child := range decode(tb, upstream.manifests[name+"@"+digest].bytes).Manifests {
			same(tb, upstream, image, child.Digest, blobPath(layout, child.Digest))
		}
	}
}

func startPodman(tb testing.TB, mirror string) pull {
	env := containersEnv(tb, registriesConf(tb, mirror))
	return func(tb testing.TB, image string, upstream *recording) {
		tb.Helper()
		id := must(tb, "", env, "podman", "pull", "--quiet", "docker.io/"+image)
		digests := strings.Fields(must(tb, "", env, "podman", "image", "inspect", "--format", "{{join .RepoDigests \" \"}}", id))
		name, _, _ := strings.Cut(image, ":")
		if want := "docker.io/" + name + "@" + upstream.digest(tb, image); !slices.Contains(digests, want) {
			tb.Errorf("podman pulled %v, upstream has %s", digests, want)
		}
	}
}

// same checks that a client wrote a manifest exactly as upstream sent it.
func same(tb testing.TB, upstream *recording, image, digest, path string) {
	tb.Helper()
	name, _, _ := strings.Cut(image, ":")
	text, err := os.ReadFile(path)
	check(tb, err)
	if string(text) != string(upstream.manifests[name+"@"+digest].bytes) {
		tb.Errorf("%s: manifest %s has other bytes than upstream", image, digest)
	}
}

// blobPath is where an OCI layout or a store keeps a blob.
func blobPath(root, digest string) string {
	return filepath.Join(root, "blobs", strings.Replace(digest, ":", "/", 1))
}

// containersEnv makes podman and buildah start from nothing.
func containersEnv(tb testing.TB, registries string) []string {
	tb.Helper()
	root := tempDir(tb)
	return []string{
		"CONTAINERS_REGISTRIES_CONF=" + registries,
		"CONTAINERS_STORAGE_CONF=" + writeFile(tb, filepath.Join(root, "storage.conf"), fmt.Sprintf(
			"[storage]\ndriver = \"overlay\"\ngraphroot = %q\nrunroot = %q\n", root+"/graph", root+"/run")),
		"CONTAINERS_CONF=" + writeFile(tb, filepath.Join(root, "containers.conf"), "[engine]\nevents_logger = \"none\"\n"),
	}
}
