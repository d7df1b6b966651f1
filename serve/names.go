package serve

import (
	"errors"
	"fmt"
	"maps"
	"strings"

	"mirrorctl/store"
)

const dockerHub = "docker.io"

// maxNameLength limits the path of a repository, in bytes and without its
// registry. It is distribution/reference's limit: a longer name cannot be
// written in any Dockerfile or client, so it can neither be pinned nor meant.
const maxNameLength = 255

// names knows which registry a request means. One port stands for all
// registries, and clients say which in different ways:
//
//  1. A query, ?ns=ghcr.io: containerd, BuildKit, dockerd with the containerd
//     store, regctl, k3s.
//  2. A first component after /v2, /v2/ghcr.io/owner/app, or before it,
//     /ghcr.io/v2/owner/app: podman, buildah, skopeo, kaniko, crane, and all
//     clients that take a mirror with a path. It is a registry's host, or an
//     alias without a dot for clients that cannot write a host there (kaniko).
//  3. The Host header, where the mirror has a name for each registry:
//     docker.mirror.lan, ghcr.mirror.lan. For clients that can do neither 1
//     nor 2, and for people who want short names.
//  4. Nothing: dockerd's registry-mirrors. That is the default registry.
//
// Both 1 and 2 at once is what BuildKit, containerd (override_path) and regctl
// (pathPrefix) send when their mirror has a path: the path was put there by
// the person who configured the mirror, the query by the client. If they say
// the same registry, the prefix is that configuration and goes. If they
// differ, ns decides and the path is taken whole, because
//
//   - a client sends ns only for the registry of the image it was asked for,
//     and a repository may well begin with a host: a mirrored
//     registry.example/docker.io/library/alpine of a pull-through registry is
//     ns=registry.example and /v2/docker.io/library/alpine;
//   - if the prefix is a mistake in a configuration, the whole path is a name
//     that nobody has pinned. The client gets 404 and goes on to its next
//     host. Following the prefix would hand it another registry's image.
//
// A registry before /v2 is never part of a repository; where it differs from
// ns it is ignored. So is a Host header's where it differs from either, and to
// a prefix after /v2 it is what ns is: one that says the same goes, one that
// says another belongs to the path.
type names struct {
	fallback string            // the default registry
	aliases  map[string]string // first component without a dot -> registry
	hosts    map[string]string // name of this mirror, without port -> registry
}

// newNames checks what was configured, so that no request can produce a name
// that is not valid.
func newNames(opts Options) (names, error) {
	fallback := opts.DefaultRegistry
	if fallback == "" {
		fallback = dockerHub
	}
	n := names{aliases: maps.Clone(opts.Aliases), hosts: map[string]string{}}
	var err error
	if n.fallback, err = RegistryName(fallback); err != nil {
		return names{}, fmt.Errorf("default registry %w", err)
	}
	for alias, registry := range n.aliases {
		if err := CheckAlias(alias); err != nil {
			return names{}, err
		}
		if n.aliases[alias], err = RegistryName(registry); err != nil {
			return names{}, fmt.Errorf("alias %q: %w", alias, err)
		}
	}
	for host, registry := range opts.Hosts {
		name, err := VirtualHost(host)
		if err != nil {
			return names{}, err
		}
		if registry, err = RegistryName(registry); err != nil {
			return names{}, fmt.Errorf("host %q: %w", host, err)
		}
		if other, twice := n.hosts[name]; twice && other != registry {
			return names{}, fmt.Errorf("host %q means both %s and %s", name, other, registry)
		}
		n.hosts[name] = registry
	}
	return n, nil
}

// VirtualHost returns the one form of a name of this mirror that stands for a
// registry: lower case. The error says what such a name is.
func VirtualHost(s string) (string, error) {
	switch host := strings.ToLower(s); {
	case strings.Contains(s, ":"):
		return "", fmt.Errorf("host %q: must be a name without a port: it counts on every port", s)
	case !validHost(s):
		return "", fmt.Errorf("host %q: must be a name of this mirror, such as docker.mirror.lan", s)
	case host == dockerHub || host == "index.docker.io" || host == "registry-1.docker.io":
		return "", fmt.Errorf("host %q: is Docker Hub's and no name of a mirror", s)
	default:
		return host, nil
	}
}

// virtual returns the registry that a Host header stands for, or "".
func (n *names) virtual(host string) string {
	if len(n.hosts) == 0 {
		return ""
	}
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host = host[:i]
	}
	return n.hosts[strings.ToLower(strings.TrimSuffix(host, "."))]
}

// RegistryName returns the one form in which a registry is stored and asked for:
// lower case, with its port if it has one, and docker.io for all hosts of Docker
// Hub. The error says what a registry is.
func RegistryName(s string) (string, error) {
	host, ok := canonicalHost(s)
	if !ok {
		return "", fmt.Errorf("%q is not a registry: a host, with a dot in it or :port after it", s)
	}
	return host, nil
}

// CheckAlias takes a first path component that stands for a registry: one that
// cannot be a registry itself and that hides nothing else.
func CheckAlias(alias string) error {
	switch {
	case alias == "library":
		return errors.New(`alias "library" would hide Docker Hub's own images`)
	case alias == "v2":
		return errors.New(`alias "v2" would hide the API`)
	case !validComponent(alias) || looksLikeHost(alias):
		return fmt.Errorf("alias %q: must be one word of lower-case letters, digits, - and _, without a dot", alias)
	}
	return nil
}

// registry returns the registry that a path component or ns stands for, or ""
// if it is not one.
func (n *names) registry(s string) string {
	if !looksLikeHost(s) {
		return n.aliases[s]
	}
	host, _ := canonicalHost(s)
	return host
}

// repository returns the repository of a name as the client wrote it, within
// scope, the registry that ns, a prefix before /v2 or the Host header gave, or "".
func (n *names) repository(scope, name string) (store.Repository, bool) {
	repo := store.Repository{Registry: scope, Path: name}
	if first, rest, more := strings.Cut(name, "/"); more {
		prefix := n.registry(first)
		if prefix != "" && (scope == "" || scope == prefix) {
			repo = store.Repository{Registry: prefix, Path: rest}
		}
	}
	if repo.Registry == "" {
		repo.Registry = n.fallback
	}
	if repo.Registry == dockerHub && !strings.Contains(repo.Path, "/") {
		repo.Path = "library/" + repo.Path
	}
	return repo, validPath(repo.Path)
}

// looksLikeHost tells a registry from the first component of a repository by
// the rule of every client: a dot, a colon, or localhost.
func looksLikeHost(s string) bool {
	return strings.ContainsAny(s, ".:") || strings.EqualFold(s, "localhost")
}

// canonicalHost returns a registry's host, with its port if it has one, in the
// one form under which images are stored: lower case, and docker.io for Docker
// Hub's hosts. The grammar is that of distribution/reference.
func canonicalHost(s string) (string, bool) {
	if !looksLikeHost(s) || !validHost(s) {
		return "", false
	}
	host := strings.ToLower(s)
	switch host {
	case "index.docker.io", "registry-1.docker.io":
		host = dockerHub
	}
	return host, true
}
