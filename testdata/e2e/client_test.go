//go:build e2e

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What mirrorctl client writes for a client is all that it needs: each pulls
// images of two registries from the mirror, plain, by TLS and with a login,
// while the upstream is down and no network leads anywhere else.
func TestClientConfiguration(t *testing.T) {
	hub := startHub(t, "distribution-3", debian(t), busybox(t))
	project := newProject(t, hub.url(), "debian:bookworm", "busybox:1.35", "busybox:1.35-oci", "busybox:1.35-single", "ghcr.io/library/busybox:1.35")
	project.configure(t, "[registry.\"docker.io\"]\nurl = \""+hub.url()+"\"\n[registry.\"ghcr.io\"]\nurl = \""+hub.url()+"\"\n")
	project.must(t, "sync", "Dockerfile")
	upstream := hub.record(t, "library/busybox:1.35", "library/busybox:1.35-single")
	hub.stop()

	for _, f := range project.fronts(t, project.serve(t)) {
		s := &setup{project, f, upstream}
		t.Run(f.name, func(t *testing.T) {
			t.Run("docker", s.docker)
			t.Run("containerd", s.containerd)
			t.Run("kind", s.kind)
			t.Run("podman", s.podman)
			t.Run("buildah", s.buildah)
			t.Run("skopeo", s.skopeo)
			t.Run("crane", s.crane)
			t.Run("regctl", s.regctl)
			if !f.login {
				t.Run("gitlab-runner", s.gitlabRunner)
			}
		})
	}
}

// setup is a mirror and how it is reached.
type setup struct {
	*project
	front
	upstream *recording
}

// written are the images that clients pull.
var written = []string{"docker.io/library/busybox:1.35", "ghcr.io/library/busybox:1.35"}

// write lets mirrorctl write the configuration into the machine, twice, and
// boots it.
func (s *setup) write(t *testing.T, m *machine, client string, flags ...string) {
	t.Helper()
	args := slices.Concat([]string{"client", client, "--write", "--root", m.root, "--registry", "docker.io,ghcr.io"}, s.flags, flags)
	s.must(t, args...)
	again := s.mirrorctl(t, args...)
	if again.code != exitDone || strings.Contains(again.stderr, "written") {
		t.Errorf("a second --write: %s", again)
	}
	m.boot(t)
}

// printed returns the content of what mirrorctl prints for a client.
func (s *setup) printed(t *testing.T, client, registries string) []string {
	t.Helper()
	args := []string{"client", client, "--json", "--registry", registries}
	for i := 0; i < len(s.flags); i += 2 {
		if s.flags[i] != "--password-file" {
			args = append(args, s.flags[i:i+2]...)
		}
	}
	var files []struct{ Content string }
	check(t, json.Unmarshal([]byte(s.must(t, args...)), &files))
	var content []string
	for _, f := range files {
		content = append(content, f.Content)
	}
	return content
}

// sh runs a script with the mirror's password as its standard input.
func (s *setup) sh(t *testing.T, dir string, env []string, script string) string {
	t.Helper()
	writeFile(t, filepath.Join(dir, "script"), script)
	writeFile(t, filepath.Join(dir, "password"), hubPassword)
	return must(t, dir, env, "sh", "-ec", "sh -e ./script < password")
}

func (s *setup) docker(t *testing.T) {
	m := newMachine(t)
	const before = `{
    "storage-driver": "overlay2",
    "bridge": "none", "iptables": false, "ip6tables": false
}
`
	config := writeFile(t, filepath.Join(m.root, "etc/docker/daemon.json"), before)
	s.write(t, m, "docker")
	if text, err := os.ReadFile(config); err != nil || !strings.HasPrefix(string(text), strings.TrimSuffix(before, "\n}\n")) {
		t.Errorf("daemon.json: %v\n%s", err, text)
	}
	d := dockerdWith(t)
	if s.login {
		// This docker's registry-mirrors takes no login, as its notes say.
		dir := tempDir(t)
		s.sh(t, dir, d.env, "docker login --username "+hubUser+" --password-stdin "+s.address)
		d.docker(t, "pull", "--quiet", s.address+"/ghcr.io/library/busybox:1.35")
		return
	}
	d.pull(t, "library/busybox:1.35", s.upstream)
	if s.name == "http" {
		d.build(t)
	}
}

func (s *setup) gitlabRunner(t *testing.T) {
	m := newMachine(t)
	printed := s.printed(t, "gitlab-runner", "docker.io")
	if s.name == "https" { // what comes first is the file of the authority
		writeFile(t, filepath.Join(m.root, "etc/docker/certs.d", s.address, "ca.crt"), printed[0])
	}
	m.boot(t)
	_, list, _ := strings.Cut(printed[len(printed)-1], "command: ")
	var flags []string
	check(t, json.Unmarshal([]byte(list), &flags))
	d := dockerdWith(t, append(flags, "--storage-driver=overlay2", "--bridge=none", "--iptables=false", "--ip6tables=false")...)
	d.pull(t, "library/busybox:1.35", s.upstream)
}

func (s *setup) containerd(t *testing.T) {
	m := newMachine(t)
	config := writeFile(t, filepath.Join(m.root, "etc/containerd/config.toml"), "# mine\nversion = 2\n\n[grpc]\n  gid = 0\n")
	s.write(t, m, "containerd")
	// containerd's own reading of the file.
	dump := must(t, "", nil, "containerd", "-c", config, "config", "dump")
	_, registry, _ := strings.Cut(dump, `[plugins."io.containerd.grpc.v1.cri".registry]`)
	if !strings.HasPrefix(strings.TrimSpace(registry), `config_path = "/etc/containerd/certs.d"`) {
		t.Errorf("containerd reads\n%s", dump)
	}
	s.ctr(t)
}

// kind runs the script with a docker whose nodes are this machine.
func (s *setup) kind(t *testing.T) {
	m := newMachine(t)
	m.boot(t)
	dir := tempDir(t)
	writeFile(t, filepath.Join(dir, "bin/kind"), "#!/bin/sh\n[ \"$1 $2\" = 'get nodes' ] && echo node\n")
	writeFile(t, filepath.Join(dir, "bin/docker"), "#!/bin/sh\n[ \"$1\" = exec ] || exit 1\nshift\n[ \"$1\" != -i ] || shift\n[ \"$1\" = node ] || exit 1\nshift\nexec \"$@\"\n")
	check(t, os.Chmod(filepath.Join(dir, "bin/kind"), 0o755))
	check(t, os.Chmod(filepath.Join(dir, "bin/docker"), 0o755))
	script := s.printed(t, "kind", "docker.io,ghcr.io")[0]
	script = strings.ReplaceAll(script, "Basic PASSWORD", "Basic "+basic(hubUser, hubPassword))
	must(t, dir, []string{"PATH=" + dir + "/bin:" + os.Getenv("PATH")}, "sh", "-c", script)
	s.ctr(t)
}

// ctr pulls with a containerd of its own.
func (s *setup) ctr(t *testing.T) {
	t.Helper()
	c := newContainerd(t)
	for _, image := range written {
		c.ctr(t, "images", "pull", "--hosts-dir", "/etc/containerd/certs.d", image)
		if list := c.ctr(t, "images", "ls", "name=="+image); !strings.Contains(list, s.digest(t)) {
			t.Errorf("ctr pulled %s, upstream has %s", list, s.digest(t))
		}
	}
}

func (s *setup) digest(t *testing.T) string {
	t.Helper()
	return s.upstream.digest(t, "library/busybox:1.35")
}

// containers is the environment of podman, buildah and skopeo, which have
// logged in. Their registries.conf is the machine's.
func (s *setup) containers(t *testing.T, program string, flags ...string) (dir string, env []string) {
	t.Helper()
	m := newMachine(t)
	s.write(t, m, program, flags...)
	dir = tempDir(t)
	env = []string{
		"CONTAINERS_STORAGE_CONF=" + writeFile(t, filepath.Join(dir, "storage.conf"),
			"[storage]\ndriver = \"overlay\"\ngraphroot = \""+dir+"/graph\"\nrunroot = \""+dir+"/run\"\n"),
		"CONTAINERS_CONF=" + writeFile(t, filepath.Join(dir, "containers.conf"), "[engine]\nevents_logger = \"none\"\n"),
	}
	if s.login {
		env = append(env, "REGISTRY_AUTH_FILE="+filepath.Join(dir, "auth.json"))
		s.sh(t, dir, env, program+" login --username "+hubUser+" --password-stdin "+s.address)
	}
	return dir, env
}

func (s *setup) podman(t *testing.T) {
	_, env := s.containers(t, "podman", "--no-fallback")
	for _, image := range written {
		must(t, "", env, "podman", "pull", "--quiet", image)
		name, _, _ := strings.Cut(image, ":")
		if got := must(t, "", env, "podman", "image", "inspect", "--format", "{{join .RepoDigests \" \"}}", image); !strings.Contains(got, name+"@"+s.digest(t)) {
			t.Errorf("podman pulled %s, upstream has %s", got, s.digest(t))
		}
	}
}

func (s *setup) buildah(t *testing.T) {
	dir, env := s.containers(t, "buildah")
	writeFile(t, filepath.Join(dir, "context/Dockerfile"), "FROM "+written[0]+"\nCOPY --from="+written[1]+" /bin/busybox /second/busybox\nRUN /second/busybox true\n")
	must(t, "", env, "buildah", "bud", "--network=host", "--isolation=chroot", "-t", "built", filepath.Join(dir, "context"))
}

func (s *setup) skopeo(t *testing.T) {
	dir, env := s.containers(t, "skopeo")
	for i, image := range written {
		copied := filepath.Join(dir, "copy"+string(rune('0'+i)))
		must(t, "", env, "skopeo", "--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests", "docker://"+image, "dir:"+copied)
		same(t, s.upstream, "library/busybox:1.35", s.digest(t), filepath.Join(copied, "manifest.json"))
	}
}

// crane asks for the image that the printed commands name.
func (s *setup) crane(t *testing.T) {
	printed := s.printed(t, "crane", "docker.io")
	dir := tempDir(t)
	if len(printed) > 1 {
		writeFile(t, filepath.Join(dir, "mirrorctl-ca.pem"), printed[1])
	}
	if got := s.sh(t, dir, []string{"DOCKER_CONFIG=" + dir}, printed[0]); !strings.Contains(got, "sha256:") {
		t.Errorf("crane says %s", got)
	}
}

func (s *setup) regctl(t *testing.T) {
	dir := tempDir(t)
	env := []string{"REGCTL_CONFIG=" + filepath.Join(dir, "config.json")}
	s.sh(t, dir, env, s.printed(t, "regctl", "docker.io,ghcr.io")[0])
	for _, image := range written {
		if got := must(t, "", env, "regctl", "image", "digest", image); got != s.digest(t) {
			t.Errorf("regctl: %s is %s, upstream has %s", image, got, s.digest(t))
		}
	}
}

// A running dockerd is not touched by --write, and takes the mirror over by what
// the note says: a reload.
func TestClientReload(t *testing.T) {
	hub := startHub(t, "distribution-3", busybox(t))
	project := newProject(t, hub.url(), "busybox:1.35")
	project.must(t, "sync", "Dockerfile")
	upstream := hub.record(t, "library/busybox:1.35")
	mirror := project.serve(t)
	hub.stop()
	m := newMachine(t)
	writeFile(t, filepath.Join(m.root, "etc/docker/daemon.json"), `{"storage-driver":"overlay2","bridge":"none","iptables":false,"ip6tables":false}`)
	m.boot(t)
	d := dockerdWith(t)
	if r := call(t, "", d.env, "docker", "pull", "busybox:1.35"); r.code == 0 {
		t.Fatalf("docker pulls without a mirror: %s", r)
	}
	project.must(t, "client", "docker", "--mirror", mirror, "--write")
	d.reload(t)
	d.pull(t, "library/busybox:1.35", upstream)
}
