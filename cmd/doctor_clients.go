package cmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"mirrorctl/cmd/client"
	"mirrorctl/serve"
)

// examination is how a client is made to pull an image.
type examination struct {
	alive []string // ends well if the client runs, with its daemon; its first word is the program
	// pull returns something in which the probe's digest or content is, and
	// leaves to x what has to be removed.
	pull func(context.Context, *exam) (string, error)
	// view, if not nil, is what the running daemon says of its mirrors.
	view func(context.Context, *exam) string
}

func (e examination) program() string { return e.alive[0] }

func hasExam(name string) bool {
	_, ok := exams[name]
	return ok
}

// exams are the clients that can be started.
var exams = map[string]examination{
	"docker":     {alive: []string{"docker", "version"}, pull: dockerLike("docker", `{{index .Config.Labels "mirrorctl.doctor"}}`), view: dockerMirrors},
	"podman":     {alive: []string{"podman", "version"}, pull: dockerLike("podman", `{{index .Labels "mirrorctl.doctor"}}`)},
	"buildah":    {alive: []string{"buildah", "version"}, pull: pullBuildah},
	"skopeo":     {alive: []string{"skopeo", "--version"}, pull: pullSkopeo},
	"regctl":     {alive: []string{"regctl", "version"}, pull: pullRegctl},
	"crane":      {alive: []string{"crane", "version"}, pull: pullCrane},
	"containerd": {alive: []string{"ctr", "--connect-timeout", "3s", "version"}, pull: pullContainerd},
	"buildkit":   {alive: []string{"buildctl", "debug", "workers"}, pull: pullBuildctl},
	"buildx":     {alive: []string{"docker", "buildx", "inspect"}, pull: pullBuildx},
	"cri-o":      criExam("crictl", "--runtime-endpoint", "unix:///var/run/crio/crio.sock"),
	"k3s":        criExam("k3s", "crictl"),
	"rke2":       criExam("/var/lib/rancher/rke2/bin/crictl", "--runtime-endpoint", "unix:///run/k3s/containerd/containerd.sock"),
	"kind":       {alive: []string{"kind", "version"}, pull: pullKind},
}

// exam is one pull of one probe.
type exam struct {
	probe   serve.Probe
	dir     string // for whatever the client writes; removed afterwards
	mirror  client.Mirror
	timeout time.Duration
	remove  [][]string // commands, the last first
}

// run runs a program and returns its standard output. The error has what it
// said.
func (x *exam) run(ctx context.Context, command ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, x.timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = x.dir, &stdout, &stderr, time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		return "", fmt.Errorf("%s: not done within %s", strings.Join(command[:min(2, len(command))], " "), x.timeout)
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		said := lastWords(stderr.String())
		if said == "" {
			said = lastWords(stdout.String())
		}
		return "", fmt.Errorf("%s", said)
	}
	return stdout.String(), err
}

// undo remembers a command that removes what a client has pulled.
func (x *exam) undo(command ...string) { x.remove = append(x.remove, command) }

// cleanUp removes it, also after an interrupt. What a failed pull did not leave
// cannot be removed, which is no failure.
func (x *exam) cleanUp() {
	for _, command := range slices.Backward(x.remove) {
		_, _ = x.run(context.Background(), command...)
	}
}

// maxWords is how many bytes of a program's complaint are shown.
const maxWords = 600

var (
	colours = regexp.MustCompile("\x1b\\[[0-9;]*[A-Za-z]")
	logLine = regexp.MustCompile(`^time="[^"]*" level=\w+ msg="(.*)"$`) // of skopeo
)

// lastWords are the last line of what a program said, printable and not too long.
func lastWords(text string) string {
	text = strings.TrimSpace(colours.ReplaceAllString(text, ""))
	text = text[strings.LastIndexByte(text, '\n')+1:]
	if logged := logLine.FindStringSubmatch(text); logged != nil {
		text = strings.ReplaceAll(logged[1], `\"`, `"`)
	}
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > maxWords {
		text = strings.ToValidUTF8(text[:maxWords], "") + "..."
	}
	return strings.TrimPrefix(strings.TrimPrefix(text, "Error response from daemon: "), "Error: ")
}

func dockerLike(program, label string) func(context.Context, *exam) (string, error) {
	return func(ctx context.Context, x *exam) (string, error) {
		x.undo(program, "rmi", x.probe.Name())
		if _, err := x.run(ctx, program, "pull", "--quiet", x.probe.Name()); err != nil {
			return "", err
		}
		return x.run(ctx, program, "image", "inspect", "--format", label, x.probe.Name())
	}
}

// dockerMirrors is what dockerd has read of its configuration.
func dockerMirrors(ctx context.Context, x *exam) string {
	if x.probe.Registry != "docker.io" {
		return "" // registry-mirrors are for no other
	}
	text, err := x.run(ctx, "docker", "info", "--format", "{{json .RegistryConfig.Mirrors}}")
	switch {
	case err != nil:
		return ""
	case strings.Contains(text, x.mirror.Address):
		return "the running daemon has the mirror in its registry-mirrors"
	}
	return "the running daemon's registry-mirrors are " + strings.Replace(strings.TrimSpace(text), "null", "[]", 1)
}

func pullBuildah(ctx context.Context, x *exam) (string, error) {
	x.undo("buildah", "rmi", x.probe.Name())
	if _, err := x.run(ctx, "buildah", "pull", "--quiet", x.probe.Name()); err != nil {
		return "", err
	}
	return x.run(ctx, "buildah", "inspect", "--type", "image", x.probe.Name())
}

func pullSkopeo(ctx context.Context, x *exam) (string, error) {
	copied := filepath.Join(x.dir, "copy")
	// Whether an unsigned image may run here is not the question.
	if _, err := x.run(ctx, "skopeo", "--insecure-policy", "copy", "--quiet", "--all", "docker://"+x.probe.Name(), "dir:"+copied); err != nil {
		return "", err
	}
	text, err := os.ReadFile(filepath.Join(copied, "manifest.json"))
	return digest.FromBytes(text).String(), err
}

func pullRegctl(ctx context.Context, x *exam) (string, error) {
	if _, err := x.run(ctx, "regctl", "image", "copy", x.probe.Name(), "ocidir://"+x.dir+"/copy:probe"); err != nil {
		return "", err
	}
	text, err := os.ReadFile(filepath.Join(x.dir, "copy", "index.json"))
	return string(text), err
}

// pullCrane names the mirror: crane has no other way to use it.
func pullCrane(ctx context.Context, x *exam) (string, error) {
	image := x.mirror.Address + "/" + x.probe.Name()
	var insecure []string
	if !x.mirror.TLS {
		insecure = []string{"--insecure"}
	}
	if _, err := x.run(ctx, slices.Concat([]string{"crane", "pull"}, insecure, []string{image, filepath.Join(x.dir, "probe.tar")})...); err != nil {
		return "", err
	}
	return x.run(ctx, slices.Concat([]string{"crane", "digest"}, insecure, []string{image})...)
}

// pullContainerd uses a namespace of its own, so that kubelet and docker see nothing.
// ctr does not read config.toml; where there is crictl, that asks the plugin
// that does.
func pullContainerd(ctx context.Context, x *exam) (string, error) {
	if _, err := exec.LookPath("crictl"); err == nil {
		if _, err := x.run(ctx, "crictl", "version"); err == nil {
			return pullCRI("crictl")(ctx, x)
		}
	}
	ctr := func(args ...string) []string {
		return append([]string{"ctr", "--namespace", "mirrorctl-doctor"}, args...)
	}
	x.undo("ctr", "namespaces", "remove", "mirrorctl-doctor")
	x.undo(ctr("images", "remove", "--sync", x.probe.Name())...)
	if _, err := x.run(ctx, ctr("images", "pull", "--hosts-dir", "/etc/containerd/certs.d", x.probe.Name())...); err != nil {
		return "", err
	}
	return x.run(ctx, ctr("images", "list", "name=="+x.probe.Name())...)
}

func criExam(crictl ...string) examination {
	return examination{alive: append(slices.Clone(crictl), "version"), pull: pullCRI(crictl...)}
}

// pullCRI asks by the way that Kubernetes asks.
func pullCRI(crictl ...string) func(context.Context, *exam) (string, error) {
	return func(ctx context.Context, x *exam) (string, error) {
		command := func(args ...string) []string { return append(slices.Clone(crictl), args...) }
		x.undo(command("rmi", x.probe.Name())...)
		if _, err := x.run(ctx, command("pull", x.probe.Name())...); err != nil {
			return "", err
		}
		return x.run(ctx, command("inspecti", x.probe.Name())...)
	}
}

// pullKind asks all nodes, since each has a containerd of its own.
func pullKind(ctx context.Context, x *exam) (proof string, err error) {
	nodes, err := x.run(ctx, "kind", "get", "nodes")
	if err != nil {
		return "", err
	}
	if strings.TrimSpace(nodes) == "" {
		return "", errors.New("there is no cluster")
	}
	for node := range strings.FieldsSeq(nodes) {
		if proof, err = pullCRI("docker", "exec", node, "crictl")(ctx, x); err != nil {
			return "", fmt.Errorf("%s: %w", node, err)
		}
	}
	return proof, nil
}

// context writes a build that copies what the probe has.
func (x *exam) context() error {
	return os.WriteFile(filepath.Join(x.dir, "Dockerfile"), []byte("FROM "+x.probe.Name()+"\n"), 0o644)
}

// built is the file of the probe in the result of a build.
func (x *exam) built() (string, error) {
	text, err := os.ReadFile(filepath.Join(x.dir, "built", "mirrorctl-doctor"))
	return string(text), err
}

func pullBuildctl(ctx context.Context, x *exam) (string, error) {
	if err := x.context(); err != nil {
		return "", err
	}
	_, err := x.run(ctx, "buildctl", "build", "--progress=plain", "--frontend", "dockerfile.v0",
		"--local", "context="+x.dir, "--local", "dockerfile="+x.dir, "--output", "type=local,dest="+filepath.Join(x.dir, "built"))
	if err != nil {
		return "", err
	}
	return x.built()
}

func pullBuildx(ctx context.Context, x *exam) (string, error) {
	if err := x.context(); err != nil {
		return "", err
	}
	_, err := x.run(ctx, "docker", "buildx", "build", "--progress=plain", "--output", "type=local,dest="+filepath.Join(x.dir, "built"), x.dir)
	if err != nil {
		return "", err
	}
	return x.built()
}
