//go:build e2e

package e2e

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What doctor says of real clients: those that use the mirror, and those that
// for one reason or another go round it in silence.
func TestDoctor(t *testing.T) {
	sample, err := filepath.Abs("../sample")
	check(t, err)
	project := newProject(t, "ocidir://"+sample, "hello")
	project.must(t, "add", "hello")
	mirror := project.serve(t)
	ways := project.fronts(t, mirror)
	plain := patient{project, ways[0]}
	private := patient{project, ways[1]}
	guarded := patient{project, ways[2]}
	elsewhere := plain
	elsewhere.flags = []string{"--mirror", address()}

	t.Run("mirror", func(t *testing.T) {
		tells(t, elsewhere.doctor(t, nil, exitFailure, "crane"), "FAILED  mirror", "connection refused", "is mirrorctl serve running")
		p := private
		p.flags = p.flags[:2]
		tells(t, p.doctor(t, nil, exitFailure, "crane"), "unknown authority", "--ca")
		p.flags = []string{"--mirror", "http://" + private.address}
		tells(t, p.doctor(t, nil, exitFailure, "crane"), "it may speak TLS: --mirror https://")
		p.flags = []string{"--mirror", "https://" + plain.address}
		tells(t, p.doctor(t, nil, exitFailure, "crane"), "it speaks plain HTTP: --mirror http://")
		p.flags = guarded.flags[:4]
		tells(t, p.doctor(t, nil, exitFailure, "crane"), "401 Unauthorized", "--username")
		hub := startHub(t, "distribution-3")
		p.flags = []string{"--mirror", hub.address}
		tells(t, p.doctor(t, nil, exitFailure, "crane"), "404 Not Found is no mirrorctl serve")
	})

	t.Run("docker", func(t *testing.T) {
		m := newMachine(t)
		writeFile(t, filepath.Join(m.root, "etc/docker/daemon.json"), `{"storage-driver":"overlay2","bridge":"none","iptables":false,"ip6tables":false}`)
		m.boot(t)
		d := dockerdWith(t)
		tells(t, plain.doctor(t, d.env, exitFailure, "docker"), "FAILED  docker, docker.io: did not ask the mirror",
			"/etc/docker/daemon.json does not have what it needs", "registry-mirrors are []", "mirrorctl client docker --mirror http://"+mirror+" --registry docker.io --write")
		elsewhere.write(t, "docker")
		tells(t, plain.doctor(t, d.env, exitFailure, "docker"), "/etc/docker/daemon.json names 127.0.0.1:", "and the mirror is at "+mirror)
		plain.write(t, "docker")
		tells(t, plain.doctor(t, d.env, exitFailure, "docker"), "registry-mirrors are []", "systemctl reload docker")
		d.reload(t)
		tells(t, plain.doctor(t, d.env, exitDone, "docker"), "ok      docker, docker.io: uses the mirror", "of docker/20.10")
		if left := d.docker(t, "images", "--quiet", "--all"); left != "" {
			t.Errorf("doctor left %s", left)
		}
		// Other registries this docker takes from no mirror.
		tells(t, plain.doctor(t, d.env, exitFailure, "docker", "--registry", "ghcr.io"), "FAILED  docker, ghcr.io", "Before Docker 28")
	})

	// Docker trusts everything on 127.0.0.1.
	t.Run("docker without the authority", func(t *testing.T) {
		const host = "10.9.9.9"
		must(t, "", nil, "ip", "address", "add", host+"/32", "dev", "lo")
		certificate, authority := newAuthority(t, net.ParseIP(host))
		listener, err := tls.Listen("tcp", host+":0", &tls.Config{Certificates: []tls.Certificate{certificate}})
		check(t, err)
		target, err := url.Parse("http://" + mirror)
		check(t, err)
		server := &http.Server{Handler: httputil.NewSingleHostReverseProxy(target)}
		go server.Serve(listener)
		t.Cleanup(func() { server.Close() })
		private := patient{project, front{address: listener.Addr().String(), flags: []string{"--mirror", "https://" + listener.Addr().String(), "--ca", authority}}}

		m := newMachine(t)
		writeFile(t, filepath.Join(m.root, "etc/docker/daemon.json"), `{"registry-mirrors":["https://`+private.address+`"],"storage-driver":"overlay2","bridge":"none","iptables":false,"ip6tables":false}`)
		m.boot(t)
		d := dockerdWith(t)
		tells(t, private.doctor(t, d.env, exitFailure, "docker"), "/etc/docker/certs.d/"+private.address+"/ca.crt is not there", "has the mirror in its registry-mirrors")
		private.write(t, "docker")
		tells(t, private.doctor(t, d.env, exitDone, "docker"), "ok      docker")
	})

	t.Run("podman, buildah and skopeo", func(t *testing.T) {
		m := newMachine(t)
		m.boot(t)
		dir := tempDir(t)
		env := []string{
			"CONTAINERS_STORAGE_CONF=" + writeFile(t, filepath.Join(dir, "storage.conf"), "[storage]\ndriver = \"overlay\"\ngraphroot = \""+dir+"/graph\"\nrunroot = \""+dir+"/run\"\n"),
			"CONTAINERS_CONF=" + writeFile(t, filepath.Join(dir, "containers.conf"), "[engine]\nevents_logger = \"none\"\n"),
			"REGISTRY_AUTH_FILE=" + writeFile(t, filepath.Join(dir, "auth.json"), "{}"),
		}
		all := []string{"podman", "buildah", "skopeo", "--registry", "docker.io,ghcr.io"}
		tells(t, plain.doctor(t, env, exitFailure, "podman"), "registries.conf.d/mirrorctl.conf is not there")
		elsewhere.write(t, "podman")
		tells(t, plain.doctor(t, env, exitFailure, "podman"), "mirrorctl.conf names 127.0.0.1:")
		plain.write(t, "podman")
		r := plain.doctor(t, env, exitDone, all...)
		for _, line := range []string{"podman, docker.io", "podman, ghcr.io", "buildah, docker.io", "buildah, ghcr.io", "skopeo, docker.io", "skopeo, ghcr.io"} {
			tells(t, r, "ok      "+line+": uses the mirror")
		}
		if left := must(t, "", env, "podman", "images", "--quiet", "--all"); left != "" {
			t.Errorf("doctor left %s", left)
		}

		// A wrong prefix: the mirror was asked for another image.
		conf := "/etc/containers/registries.conf.d/mirrorctl.conf"
		text, err := os.ReadFile(conf)
		check(t, err)
		writeFile(t, conf, strings.ReplaceAll(string(text), mirror+"/docker.io", mirror+"/hub"))
		tells(t, plain.doctor(t, env, exitFailure, "podman"), "asked the mirror under a wrong name", "GET /v2/hub/mirrorctl/doctor-", "404")

		// TLS that is not trusted, then trusted.
		check(t, os.Remove(conf))
		private.write(t, "podman")
		ca := "/etc/containers/certs.d/" + private.address + "/ca.crt"
		authority, err := os.ReadFile(ca)
		check(t, err)
		check(t, os.Remove(ca))
		tells(t, private.doctor(t, env, exitFailure, "podman"), "does not trust the mirror's certificate", "--ca FILE --write")
		writeFile(t, ca, string(authority))
		tells(t, private.doctor(t, env, exitDone, "skopeo"), "ok      skopeo")

		// Without the login that the mirror wants, and with it.
		check(t, os.Remove(conf))
		guarded.write(t, "podman", "--no-fallback")
		tells(t, guarded.doctor(t, env, exitFailure, "podman"), "has no login that the mirror takes", "podman login --username "+hubUser)
		setup := &setup{project: project, front: guarded.front}
		setup.sh(t, dir, env, "podman login --username "+hubUser+" --password-stdin "+guarded.address)
		tells(t, guarded.doctor(t, env, exitDone, "podman", "buildah", "skopeo"), "ok      podman", "ok      buildah", "ok      skopeo")
	})

	t.Run("containerd", func(t *testing.T) {
		m := newMachine(t)
		m.boot(t)
		env := []string{"CONTAINERD_ADDRESS=" + newContainerd(t).socket}
		tells(t, plain.doctor(t, env, exitFailure, "containerd"), "/etc/containerd/certs.d/docker.io/hosts.toml is not there")
		plain.write(t, "containerd")
		r := plain.doctor(t, env, exitDone, "containerd", "--registry", "docker.io,ghcr.io")
		tells(t, r, "ok      containerd, docker.io: uses the mirror", "ok      containerd, ghcr.io: uses the mirror")
		if left := must(t, "", env, "ctr", "namespaces", "list", "--quiet"); strings.Contains(left, "mirrorctl") {
			t.Errorf("doctor left the namespace %s", left)
		}
	})

	t.Run("buildkit", func(t *testing.T) {
		m := newMachine(t)
		m.boot(t)
		start := func() []string {
			dir := tempDir(t)
			daemon := start(t, exec.Command("buildkitd", "--config", "/etc/buildkit/buildkitd.toml", "--root", dir+"/root", "--addr", "unix://"+dir+"/b.sock",
				"--containerd-worker=false", "--oci-worker-snapshotter=overlayfs", "--oci-worker-net=host", "--oci-worker-binary=runc"))
			daemon.ready(t, dial("unix", dir+"/b.sock"))
			return []string{"BUILDKIT_HOST=unix://" + dir + "/b.sock"}
		}
		writeFile(t, "/etc/buildkit/buildkitd.toml", "debug = false\n")
		before := start()
		tells(t, plain.doctor(t, before, exitFailure, "buildkit"), "/etc/buildkit/buildkitd.toml does not have what it needs")
		plain.write(t, "buildkit")
		tells(t, plain.doctor(t, before, exitFailure, "buildkit"), "did not ask the mirror", "Then restart buildkitd.")
		tells(t, plain.doctor(t, start(), exitDone, "buildkit", "--registry", "docker.io,ghcr.io"), "ok      buildkit, docker.io", "ok      buildkit, ghcr.io", "buildkit")

		// buildx, with the same daemon as its builder.
		program, err := exec.LookPath("buildx")
		check(t, err)
		dir := tempDir(t)
		check(t, os.Mkdir(dir+"/cli-plugins", 0o755))
		check(t, os.Symlink(program, dir+"/cli-plugins/docker-buildx"))
		env := []string{"DOCKER_CONFIG=" + dir}
		for name, daemon := range map[string]string{"before": before[0], "after": start()[0]} {
			must(t, "", env, "docker", "buildx", "create", "--name", name, "--driver", "remote", strings.TrimPrefix(daemon, "BUILDKIT_HOST="))
		}
		must(t, "", env, "docker", "buildx", "use", "before")
		tells(t, plain.doctor(t, env, exitFailure, "buildx"), "FAILED  buildx", "buildkitd.default.toml is not there", "mirrorctl client buildx")
		must(t, "", env, "docker", "buildx", "use", "after")
		tells(t, plain.doctor(t, env, exitDone, "buildx"), "ok      buildx")
	})

	t.Run("crane and regctl", func(t *testing.T) {
		dir := tempDir(t)
		env := []string{"REGCTL_CONFIG=" + filepath.Join(dir, "config.json"), "DOCKER_CONFIG=" + dir}
		tells(t, plain.doctor(t, env, exitFailure, "crane", "regctl"), "ok      crane", "FAILED  regctl", "run mirrorctl client regctl")
		setup := &setup{project: project, front: plain.front}
		setup.sh(t, dir, env, setup.printed(t, "regctl", "docker.io")[0])
		tells(t, plain.doctor(t, env, exitDone, "regctl"), "ok      regctl")
	})
}

// patient is a mirror, reached in one way, whose clients doctor examines.
type patient struct {
	*project
	front
}

// doctor runs the command and demands an exit code.
func (p patient) doctor(t *testing.T, env []string, code int, args ...string) result {
	t.Helper()
	name, args := p.command(append(append([]string{"doctor"}, p.flags...), args...)...)
	r := call(t, p.dir, env, name, args...)
	t.Logf("%s", r.stdout)
	if r.code != code {
		t.Errorf("want exit code %d: %s", code, r)
	}
	return r
}

// tells checks what doctor prints.
func tells(t *testing.T, r result, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(r.stdout, word) {
			t.Errorf("%q is missing:\n%v", word, r)
		}
	}
}

// write configures a client on the machine that was booted.
func (p patient) write(t *testing.T, client string, flags ...string) {
	t.Helper()
	args := append([]string{"client", client, "--write", "--registry", "docker.io,ghcr.io"}, p.flags...)
	if client == "docker" {
		args[4] = "docker.io"
	}
	p.must(t, append(args, flags...)...)
}
