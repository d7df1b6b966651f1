//go:build e2e

package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// dockerd is a docker daemon of our own.
type dockerd struct {
	*process
	env []string
}

// newDockerd has the mirror in registry-mirrors.
func newDockerd(tb testing.TB, mirror string) *dockerd {
	tb.Helper()
	return dockerdWith(tb, "--config-file", writeFile(tb, filepath.Join(tempDir(tb), "daemon.json"), fmt.Sprintf(
		`{"registry-mirrors":["http://%s"],"storage-driver":"overlay2","iptables":false,"ip6tables":false,"bridge":"none"}`, mirror)))
}

// dockerdWith is a docker daemon with flags. Without --config-file its
// configuration is /etc/docker/daemon.json.
func dockerdWith(tb testing.TB, flags ...string) *dockerd {
	tb.Helper()
	dir := tempDir(tb)
	socket := "unix://" + dir + "/docker.sock"
	daemon := start(tb, exec.Command("dockerd", append(flags, "--data-root", dir+"/data",
		"--exec-root", dir+"/exec", "--pidfile", dir+"/pid", "-H", socket)...))
	daemon.ready(tb, dial("unix", dir+"/docker.sock"))
	return &dockerd{daemon, []string{"DOCKER_HOST=" + socket, "DOCKER_CONFIG=" + dir + "/client"}}
}

// reload is what systemctl reload docker does.
func (d *dockerd) reload(tb testing.TB) {
	tb.Helper()
	check(tb, d.Process.Signal(syscall.SIGHUP))
	within(tb, 10*time.Second, "dockerd reads its configuration again", func() bool {
		return strings.Contains(d.output(), "Reloaded configuration")
	})
}

func (d *dockerd) docker(tb testing.TB, args ...string) string {
	tb.Helper()
	return must(tb, "", d.env, "docker", args...)
}

func startDocker(tb testing.TB, mirror string) pull {
	return newDockerd(tb, mirror).pull
}

func (d *dockerd) pull(tb testing.TB, image string, upstream *recording) {
	tb.Helper()
	d.docker(tb, "pull", "--quiet", image)
	name, _, _ := strings.Cut(image, ":")
	got := d.docker(tb, "image", "inspect", "--format", "{{join .RepoDigests \" \"}}", image)
	want := strings.TrimPrefix(name, "library/") + "@" + upstream.digest(tb, image)
	if !strings.Contains(got, want) {
		tb.Errorf("docker pulled %s, upstream has %s", got, want)
	}
}

// build checks that images from the mirror are good for a build and a run, with
// both of docker's builders.
func (d *dockerd) build(t *testing.T) {
	context := tempDir(t)
	writeFile(t, filepath.Join(context, "Dockerfile"), `FROM debian:bookworm AS base
RUN dpkg --print-architecture >/arch && cat /etc/debian_version >>/arch
FROM busybox:1.35-oci
COPY --from=base /arch /arch
COPY --from=busybox:1.35 /bin/busybox /second/busybox
RUN test "$(head -n 1 /arch)" = amd64 && /second/busybox true
CMD ["cat", "/arch"]
`)
	for _, buildkit := range []string{"0", "1"} {
		t.Run("build with DOCKER_BUILDKIT="+buildkit, func(t *testing.T) {
			env := append(d.env, "DOCKER_BUILDKIT="+buildkit)
			image := "built:" + buildkit
			must(t, "", env, "docker", "build", "--no-cache", "--network=host", "-t", image, context)
			if got := d.docker(t, "run", "--rm", "--network=host", image); !strings.HasPrefix(got, "amd64\n12.") {
				t.Errorf("the built image says %q", got)
			}
		})
	}
	t.Run("run", func(t *testing.T) {
		// An image that is not there yet: run pulls it.
		if got := d.docker(t, "run", "--rm", "--network=host", "busybox:1.35-single", "echo", "hello"); got != "hello" {
			t.Errorf("the container says %q", got)
		}
	})
}

// startContainerd has ctr pull by way of a containerd of our own.
func startContainerd(tb testing.TB, mirror string) pull {
	tb.Helper()
	c := newContainerd(tb)
	writeFile(tb, filepath.Join(c.hosts, "docker.io", "hosts.toml"), fmt.Sprintf(`server = "https://registry-1.docker.io"
[host."http://%s"]
  capabilities = ["pull", "resolve"]
`, mirror))
	return func(tb testing.TB, image string, upstream *recording) {
		tb.Helper()
		c.ctr(tb, "images", "pull", "--hosts-dir", c.hosts, "docker.io/"+image)
		digest := upstream.digest(tb, image)
		if list := c.ctr(tb, "images", "ls", "name==docker.io/"+image); !strings.Contains(list, digest) {
			tb.Errorf("ctr pulled %s, upstream has %s", list, digest)
		}
		name, _, _ := strings.Cut(image, ":")
		if got := c.ctr(tb, "content", "get", digest); got != strings.TrimSpace(string(upstream.manifests[name+"@"+digest].bytes)) {
			tb.Errorf("ctr has other bytes for %s than upstream", image)
		}
	}
}

// containerd is a daemon of our own.
type containerd struct {
	socket string
	hosts  string // a folder for hosts.toml
}

// ctr runs the client of the daemon.
func (c containerd) ctr(tb testing.TB, args ...string) string {
	tb.Helper()
	return must(tb, "", nil, "ctr", append([]string{"-a", c.socket}, args...)...)
}

func newContainerd(tb testing.TB) containerd {
	tb.Helper()
	dir := tempDir(tb)
	socket := dir + "/c.sock"
	config := writeFile(tb, filepath.Join(dir, "config.toml"), fmt.Sprintf(`version = 2
root = "%[1]s/root"
state = "%[1]s/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "%[2]s"
[ttrpc]
  address = "%[2]s.ttrpc"
`, dir, socket))
	daemon := start(tb, exec.Command("containerd", "-c", config))
	daemon.ready(tb, dial("unix", socket))
	daemon.ready(tb, func() error {
		return exec.Command("ctr", "-a", socket, "images", "ls").Run()
	})
	return containerd{socket, filepath.Join(dir, "hosts")}
}
