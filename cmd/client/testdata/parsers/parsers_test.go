package parsers

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	hostconfig "github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/docker/buildx/util/confutil"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	buildkitd "github.com/moby/buildkit/cmd/buildkitd/config"
	"github.com/moby/buildkit/util/resolver"
	"github.com/pelletier/go-toml/v2"
	"github.com/rancher/wharfie/pkg/registries"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
	"go.podman.io/image/v5/types"
	"go.yaml.in/yaml/v4"
	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"

	"mirrorctl/cmd/client"
)

// resolve asks for an image as containerd, dockerd and BuildKit do, and wants
// the mirror to be asked for a path.
func resolve(t *testing.T, m *mirror, hosts docker.RegistryHosts, image, want string) {
	t.Helper()
	if _, _, err := docker.NewResolver(docker.ResolverOptions{Hosts: hosts}).Resolve(t.Context(), image); err != nil {
		t.Fatal(err)
	}
	if got := m.last(t); got != want {
		t.Errorf("%s: asked for %s, want %s", image, got, want)
	}
}

// containerd 2, and dockerd from 28 on for what is in certs.d.
func TestHostsTOML(t *testing.T) {
	for name, folder := range map[string]string{"containerd": "/etc/containerd/certs.d", "docker": "/etc/docker/certs.d"} {
		eachMirror(t, func(t *testing.T, m *mirror) {
			m.build(t, name)
			hosts := hostconfig.ConfigureHosts(context.Background(), hostconfig.HostOptions{HostDir: hostconfig.HostDirFromRoot(m.root + folder)})
			resolve(t, m, hosts, "ghcr.io/owner/app:1", "/v2/owner/app/manifests/1?ns=ghcr.io")
			if name == "containerd" || m.Username != "" {
				resolve(t, m, hosts, "docker.io/library/busybox:1", "/v2/library/busybox/manifests/1?ns=docker.io")
			}
			// The registry itself is asked last, and not at all if that is so wished.
			m.NoFallback = true
			if name == "docker" {
				return
			}
			if all, err := hosts("ghcr.io"); err != nil || len(all) != 2 || all[1].Host != "ghcr.io" {
				t.Errorf("hosts of ghcr.io: %+v, %v", all, err)
			}
			m.build(t, name)
			resolve(t, m, hosts, "ghcr.io/owner/app:2", "/v2/owner/app/manifests/2?ns=ghcr.io")
			if all, err := hosts("ghcr.io"); err != nil || len(all) != 1 {
				t.Errorf("hosts of ghcr.io: %+v, %v", all, err)
			}
			m.NoFallback, m.Registries = false, []string{client.All}
			m.build(t, name)
			resolve(t, m, hosts, "quay.io/owner/app:3", "/v2/owner/app/manifests/3?ns=quay.io")
		})
	}
}

// BuildKit, for itself and in what buildx and GitHub's action make of it.
func TestBuildKit(t *testing.T) {
	eachMirror(t, func(t *testing.T, m *mirror) {
		check := func(t *testing.T, config buildkitd.Config) {
			t.Helper()
			hosts := loggedIn(m, resolver.NewRegistryConfig(config.Registries))
			resolve(t, m, hosts, "docker.io/library/busybox:1", "/v2/docker.io/library/busybox/manifests/1?ns=docker.io")
			resolve(t, m, hosts, "ghcr.io/owner/app:1", "/v2/ghcr.io/owner/app/manifests/1?ns=ghcr.io")
		}
		t.Run("buildkit", func(t *testing.T) {
			config, err := buildkitd.LoadFile(m.build(t, "buildkit").Files[0].Path)
			if err != nil {
				t.Fatal(err)
			}
			check(t, config)
		})
		t.Run("buildx", func(t *testing.T) {
			m.build(t, "buildx")
			file, ok := confutil.NewConfig(nil, confutil.WithDir(m.DockerConfig+"/buildx")).BuildKitConfigFile()
			if !ok {
				t.Fatal("buildx does not find its default configuration")
			}
			files, err := confutil.LoadConfigFiles(file)
			if err != nil {
				t.Fatal(err)
			}
			// As it copies them into the container of the builder.
			for path, text := range files {
				path = filepath.Join(m.root, "builder", path)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(text), "/etc/buildkit", m.root+"/builder")), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			config, err := buildkitd.LoadFile(filepath.Join(m.root, "builder/buildkitd.toml"))
			if err != nil {
				t.Fatal(err)
			}
			check(t, config)
		})
		t.Run("github-actions", func(t *testing.T) {
			content := strings.ReplaceAll(m.build(t, "github-actions").Files[0].Content, "${{ runner.temp }}", m.root)
			var steps []struct {
				Uses, Run string
				With      map[string]string
			}
			if err := yaml.Unmarshal([]byte(content), &steps); err != nil {
				t.Fatal(err)
			}
			if m.TLS {
				_, ca, _ := strings.Cut(steps[0].Run, "<<'EOF'\n")
				if err := os.WriteFile(m.root+"/mirrorctl-ca.pem", []byte(strings.TrimSuffix(ca, "EOF\n")), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			last := steps[len(steps)-1]
			if !strings.HasPrefix(last.Uses, "docker/setup-buildx-action@") {
				t.Errorf("the last step is %s", last.Uses)
			}
			config, err := buildkitd.Load(strings.NewReader(last.With["buildkitd-config-inline"]))
			if err != nil {
				t.Fatal(err)
			}
			check(t, config)
		})
	})
}

// loggedIn adds what BuildKit asks its client for, a docker login for the address
// of the mirror.
func loggedIn(m *mirror, hosts docker.RegistryHosts) docker.RegistryHosts {
	return func(name string) ([]docker.RegistryHost, error) {
		all, err := hosts(name)
		for i := range all {
			all[i].Authorizer = docker.NewDockerAuthorizer(docker.WithAuthClient(all[i].Client), docker.WithAuthCreds(func(host string) (string, string, error) {
				if host == m.Address {
					return m.Username, m.Password, nil
				}
				return "", "", nil
			}))
		}
		return all, err
	}
}

// Podman 5 and its relatives.
func TestRegistriesConf(t *testing.T) {
	eachMirror(t, func(t *testing.T, m *mirror) {
		for _, only := range []bool{false, true} {
			m.NoFallback = only
			m.build(t, "podman")
			sysregistriesv2.InvalidateCache()
			system := &types.SystemContext{SystemRegistriesConfPath: os.DevNull, SystemRegistriesConfDirPath: m.root + "/etc/containers/registries.conf.d"}
			named, err := reference.ParseNormalizedNamed("ghcr.io/owner/app:1")
			if err != nil {
				t.Fatal(err)
			}
			registry, err := sysregistriesv2.FindRegistry(system, named.String())
			if err != nil || registry == nil {
				t.Fatal(registry, err)
			}
			sources, err := registry.PullSourcesFromReference(named)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range sources {
				got = append(got, s.Reference.String())
			}
			want := []string{m.Address + "/ghcr.io/owner/app:1"}
			if !only {
				want = append(want, "ghcr.io/owner/app:1")
			}
			if !reflect.DeepEqual(got, want) || sources[0].Endpoint.Insecure == m.TLS {
				t.Errorf("sources %v, insecure: %v; want %v", got, sources[0].Endpoint.Insecure, want)
			}
		}
	})
}

// k3s and RKE2 read registries.yaml by this package.
func TestRegistriesYAML(t *testing.T) {
	for _, name := range []string{"k3s", "rke2"} {
		eachMirror(t, func(t *testing.T, m *mirror) {
			config, err := registries.GetPrivateRegistries(m.build(t, name).Files[0].Path)
			if err != nil {
				t.Fatal(err)
			}
			pull(t, config, "library/busybox:1")
			if got := m.last(t); !strings.HasPrefix(got, "/v2/library/busybox/manifests/1?ns=") {
				t.Errorf("asked for %s", got)
			}
			pull(t, config, "ghcr.io/owner/app:1")
			if got := m.last(t); got != "/v2/owner/app/manifests/1?ns=ghcr.io" {
				t.Errorf("asked for %s", got)
			}
		})
	}
}

func TestKind(t *testing.T) {
	eachMirror(t, func(t *testing.T, m *mirror) {
		decoder := yaml.NewDecoder(strings.NewReader(m.build(t, "kind").Files[1].Content))
		decoder.KnownFields(true)
		var cluster v1alpha4.Cluster
		if err := decoder.Decode(&cluster); err != nil {
			t.Fatal(err)
		}
		if cluster.Kind != "Cluster" || cluster.APIVersion != "kind.x-k8s.io/v1alpha4" || len(cluster.ContainerdConfigPatches) != 1 {
			t.Errorf("%+v", cluster)
		}
		var patch map[string]any
		if err := toml.Unmarshal([]byte(cluster.ContainerdConfigPatches[0]), &patch); err != nil || patch["plugins"] == nil {
			t.Error(patch, err)
		}
	})
}

func pull(t *testing.T, config interface {
	Image(name.Reference, ...remote.Option) (v1.Image, error)
}, text string) {
	t.Helper()
	ref, err := name.ParseReference(text)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := config.Image(ref); err != nil {
		t.Fatal(err)
	}
}
