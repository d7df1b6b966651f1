//go:build e2e

package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// buildkitd is a BuildKit daemon of our own.
type buildkitd struct {
	address string
	env     []string // for buildx, in which it is the builder named e2e
}

// newBuildkitd starts a daemon that asks the given registries, each an address
// with or without a path, for the images of docker.io, one after the other.
func newBuildkitd(tb testing.TB, registries ...string) *buildkitd {
	tb.Helper()
	dir := tempDir(tb)
	var config strings.Builder
	fmt.Fprintf(&config, `root = %q
[worker.containerd]
  enabled = false
[worker.oci]
  enabled = true
  snapshotter = "overlayfs"
  networkMode = "host"
  binary = "runc"
[registry."docker.io"]
  mirrors = ["%s"]
`, dir+"/root", strings.Join(registries, `", "`))
	for _, registry := range registries {
		host, _, _ := strings.Cut(registry, "/")
		fmt.Fprintf(&config, "[registry.%q]\n  http = true\n", host)
	}
	b := &buildkitd{address: "unix://" + dir + "/buildkitd.sock"}
	daemon := start(tb, exec.Command("buildkitd", "--config", writeFile(tb, filepath.Join(dir, "buildkitd.toml"), config.String()), "--addr", b.address))
	daemon.ready(tb, dial("unix", dir+"/buildkitd.sock"))
	b.env = []string{"DOCKER_CONFIG=" + dir + "/client", "BUILDX_CONFIG=" + dir + "/buildx"}
	must(tb, "", b.env, "buildx", "create", "--name", "e2e", "--driver", "remote", b.address)
	return b
}

// buildctl builds the Dockerfile of a folder and returns the folder with the
// file system that it made.
func (b *buildkitd) buildctl(tb testing.TB, context string, flags ...string) (result, string) {
	tb.Helper()
	out := tempDir(tb)
	args := []string{"--addr", b.address, "build", "--progress=plain", "--frontend", "dockerfile.v0",
		"--local", "context=" + context, "--local", "dockerfile=" + context, "--output", "type=local,dest=" + out}
	return call(tb, "", b.env, "buildctl", append(args, flags...)...), out
}

// buildx does the same with docker buildx, which reads Dockerfile.rego by itself.
func (b *buildkitd) buildx(tb testing.TB, context string, flags ...string) (result, string) {
	tb.Helper()
	out := tempDir(tb)
	args := []string{"build", "--builder", "e2e", "--progress=plain", "--output", "type=local,dest=" + out}
	return call(tb, "", b.env, "buildx", append(append(args, flags...), context)...), out
}
