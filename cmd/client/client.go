// Package client knows how container clients are pointed at a mirror: which
// files, flags or commands each of them needs, and how to put that into files
// that hold other things too. It reads and writes no files: functions go from
// the description of a mirror to text, and from text to text.
package client

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strings"
	"unicode/utf8"
)

// A Mirror is what a client has to know about a mirror.
type Mirror struct {
	Address    string   // host:port, or a host that has a dot and the scheme's own port
	TLS        bool     // https and not http
	CA         []byte   // PEM of a private authority; nil for a public one
	Username   string   // empty for a mirror without login
	Password   string   // empty prints Placeholder in its place
	Registries []string // whose images to take from the mirror: docker.io, ghcr.io, or All
	NoFallback bool     // ask no registry when the mirror fails

	// Aliases are the mirror's dotless names for registries, for kaniko.
	Aliases map[string]string
	// DockerConfig is the folder of the docker command's configuration, for buildx.
	DockerConfig string
}

const (
	// All stands for every registry, for clients that have a rule for that.
	All = "*"
	// Placeholder stands where a client keeps a password in its file.
	Placeholder = "PASSWORD"

	hub = "docker.io"
)

// url is the mirror's address with its scheme.
func (m Mirror) url() string {
	if m.TLS {
		return "https://" + m.Address
	}
	return "http://" + m.Address
}

func (m Mirror) password() string {
	if m.Password == "" {
		return Placeholder
	}
	return m.Password
}

// loopback reports whether the mirror's address means the machine or container
// that uses it.
func (m Mirror) loopback() bool {
	host, _, err := net.SplitHostPort(m.Address)
	if err != nil {
		host = m.Address
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// A Config is all that points one client at a mirror.
type Config struct {
	Files []File
	Notes []string // what to know or do besides, a sentence each
}

// A File is a piece of a configuration.
type File struct {
	Path    string // on the client's machine, absolute; what to do with it, if it is no file there
	Mode    fs.FileMode
	Content string // all of it, where the file holds nothing else
	Note    string // what takes it over: "systemctl reload docker"
	Secret  bool   // Content holds a password

	format format
	// settings returns what has to be in a file that holds other things too.
	// It gets what the file says now. nil means that the whole file is ours.
	settings func(document map[string]any) ([]setting, error)
}

// Snippet reports whether the content has to be put somewhere by a person.
func (f File) Snippet() bool { return !strings.HasPrefix(f.Path, "/") }

// A Client is a program that can use a mirror.
type Client struct {
	Name  string
	About string // one line
	build func(Mirror) (Config, error)
}

// Clients returns all that are known, in the order in which they are listed.
func Clients() []Client {
	return []Client{
		{"docker", "dockerd: daemon.json for Docker Hub, certs.d for other registries (Docker 28 or later)", docker},
		{"buildkit", "buildkitd.toml of a buildkitd of your own", buildkit},
		{"buildx", "builders that docker buildx create makes", buildx},
		{"github-actions", "a step of a workflow for docker/setup-buildx-action", githubActions},
		{"gitlab-runner", "docker:dind as a service, in config.toml or .gitlab-ci.yml", gitlabRunner},
		{"containerd", "containerd 1.x and 2.x, with Kubernetes or nerdctl: certs.d and config_path", containerd},
		{"k3s", "registries.yaml of k3s", k3s},
		{"rke2", "registries.yaml of RKE2", rke2},
		{"kind", "a script that configures the nodes of a kind cluster", kind},
		{"podman", "registries.conf.d, which buildah, skopeo and CRI-O read too", podman},
		{"buildah", "the same file as podman", buildah},
		{"skopeo", "the same file as podman", skopeo},
		{"cri-o", "the same file as podman", crio},
		{"kaniko", "flags of kaniko's executor", kaniko},
		{"regctl", "commands that configure regctl", regctl},
		{"crane", "crane has no mirrors: how to name images of this one", crane},
	}
}

// Build returns what the client needs. The error says why this client cannot do
// what the mirror's description asks for.
func Build(name string, m Mirror) (Config, error) {
	i := slices.IndexFunc(Clients(), func(c Client) bool { return c.Name == name })
	if i < 0 {
		return Config{}, fmt.Errorf("client %q is not known", name)
	}
	if m.Username == "" && m.Password != "" {
		return Config{}, errors.New("a password without a user name")
	}
	if !utf8.ValidString(m.Username + m.Password) {
		return Config{}, errors.New("user name and password have to be UTF-8")
	}
	c, err := Clients()[i].build(m)
	if err != nil {
		return Config{}, fmt.Errorf("%s: %w", name, err)
	}
	if m.Username != "" && !m.TLS && !m.loopback() {
		c.Notes = append(c.Notes, "Over http the password can be read on its way.")
	}
	return c, nil
}

// named refuses what a client that wants each registry by name cannot do.
func (m Mirror) named() error {
	if slices.Contains(m.Registries, All) {
		return errors.New("has no rule for all registries: name them with --registry")
	}
	return nil
}

var errFallback = errors.New("always goes on to the registry when the mirror fails; mirrorctl policy and mirrorctl pin make a build obey the lock")

// inContainer is the note for clients that run in a container of their own.
func (m Mirror) inContainer(what string) []string {
	if !m.loopback() {
		return nil
	}
	return []string{fmt.Sprintf("%s is %s itself: give an address that it can reach with --mirror.", m.Address, what)}
}

// authority is the file of the mirror's private authority, or nothing.
func (m Mirror) authority(path, note string) []File {
	if m.CA == nil {
		return nil
	}
	return []File{{Path: path, Mode: 0o644, Content: string(m.CA), Note: note}}
}
