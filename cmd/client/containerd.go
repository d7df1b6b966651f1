package client

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
)

const containerdCerts = "/etc/containerd/certs.d"

// containerd configures containerd for Kubernetes, nerdctl and ctr: a folder for
// each registry, and the key that makes the CRI plugin look there.
func containerd(m Mirror) (Config, error) {
	var c Config
	for _, registry := range m.Registries {
		f := m.hostsTOML(containerdCerts, registry)
		f.Note = "containerd reads it at every pull."
		c.Files = append(c.Files, f)
	}
	c.Files = append(c.Files, m.authority(containerdCerts+"/"+m.Address+"/ca.crt", "containerd reads it at every pull.")...)
	c.Files = append(c.Files, configTOML())
	c.Notes = []string{
		"config.toml is for Kubernetes. nerdctl looks into the folder by itself, ctr with --hosts-dir " + containerdCerts + ".",
	}
	if m.Username != "" {
		c.Notes = append(c.Notes, headerNote)
	}
	return c, nil
}

const headerNote = "Authorization is the word Basic and the base64 of name:password; --write writes it with --password-file."

// hostsTOML is the hosts.toml of a registry below a folder. Without server,
// containerd asks the registry itself after the mirror; the mirror as server is
// the way to say that there is nobody else. It sends ?ns=, so that no path is
// needed.
func (m Mirror) hostsTOML(folder, registry string) File {
	f := File{Path: folder + "/" + hostFolder(registry) + "/hosts.toml", Mode: 0o644, format: formatTOML}
	if m.Username != "" {
		f.Mode, f.Secret = 0o600, true
	}
	var b strings.Builder
	var settings []setting
	// What stands outside of [host] is for server.
	stanza := func(at ...string) {
		add := func(key string, value any) {
			fmt.Fprintf(&b, "%s = %s\n", key, valueTOML(value))
			// containerd asks hosts in the order of the file.
			settings = append(settings, setting{path: append(slices.Clone(at), key), value: value, first: true})
		}
		add("capabilities", []string{"pull", "resolve"})
		if m.CA != nil {
			add("ca", folder+"/"+m.Address+"/ca.crt")
		}
		if m.Username != "" {
			add("header", map[string]string{"Authorization": m.basic()})
		}
	}
	if m.NoFallback {
		fmt.Fprintf(&b, "server = %s\n", quoteTOML(m.url()))
		settings = append(settings, setting{path: []string{"server"}, value: m.url()})
		stanza()
	} else {
		fmt.Fprintf(&b, "[host.%s]\n", quoteTOML(m.url()))
		stanza("host", m.url())
	}
	f.Content = b.String()
	f.settings = func(document map[string]any) ([]setting, error) {
		if _, hosts := document["host"]; hosts && m.NoFallback {
			return nil, fmt.Errorf("it has other hosts, which would be asked before the mirror: take them out first")
		}
		return settings, nil
	}
	return f
}

// basic is the value of the Authorization header. A password that is not known
// is a placeholder for all of it.
func (m Mirror) basic() string {
	if m.Password == "" {
		return "Basic " + Placeholder
	}
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(m.Username+":"+m.Password))
}

// hostFolder is the folder of a registry below certs.d.
func hostFolder(registry string) string {
	if registry == All {
		return "_default"
	}
	return registry
}

// configTOML has the key config_path of the CRI plugin. The section has another
// name in each version of the file; containerd 2 understands version 2, too.
func configTOML() File {
	sections := map[string][]string{
		"1": {"plugins", "cri", "registry"},
		"2": {"plugins", "io.containerd.grpc.v1.cri", "registry"},
		"3": {"plugins", "io.containerd.cri.v1.images", "registry"},
	}
	return File{
		Path: "/etc/containerd/config.toml", Mode: 0o644, format: formatTOML,
		Note: "Then: systemctl restart containerd. Not needed from containerd 2.2 on, unless config_path is set to something else.",
		Content: "version = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"" + containerdCerts + "\"\n\n" +
			"# In a file with version = 3 (containerd 2.x) the same is:\n" +
			"# [plugins.\"io.containerd.cri.v1.images\".registry]\n#   config_path = \"" + containerdCerts + "\"\n",
		settings: func(document map[string]any) ([]setting, error) {
			version := "1"
			if v, ok := document["version"]; ok {
				version = fmt.Sprint(v)
			}
			section, known := sections[version]
			if !known {
				return nil, fmt.Errorf("version = %s is not known", version)
			}
			for _, old := range []string{"mirrors", "configs"} {
				if _, ok := find(document, append(slices.Clone(section), old)); ok {
					return nil, fmt.Errorf("[%s] has %s, with which containerd takes no config_path: move them to %s first", joinTOML(section), old, containerdCerts)
				}
			}
			key := append(slices.Clone(section), "config_path")
			now, _ := find(document, key)
			if text, ok := now.(string); ok && text != "" {
				if slices.Contains(strings.Split(text, ":"), containerdCerts) {
					return nil, nil
				}
				return nil, fmt.Errorf("config_path is %q: add :%s to it, or put the folders there", text, containerdCerts)
			}
			return []setting{{path: key, value: containerdCerts}}, nil
		},
	}
}

// kind is a script for the nodes of a cluster that runs, because their
// containerd reads hosts.toml at every pull. Node images before kind 0.27 have
// to be told to look for it when the cluster is created.
func kind(m Mirror) (Config, error) {
	inner, err := containerd(m) // whose first note is of other clients
	if err != nil {
		return Config{}, err
	}
	var b strings.Builder
	b.WriteString("#!/bin/sh\nset -eu\nfor node in $(kind get nodes \"$@\"); do\n")
	for _, f := range inner.Files {
		if f.Path == configTOML().Path {
			continue
		}
		folder := f.Path[:strings.LastIndex(f.Path, "/")]
		fmt.Fprintf(&b, "  docker exec \"$node\" mkdir -p '%s'\n  docker exec -i \"$node\" sh -c 'umask %03o; cat > \"%s\"' <<'EOF'\n%sEOF\n",
			folder, 0o666&^f.Mode, f.Path, f.Content)
	}
	b.WriteString("done\n")
	return Config{
		Files: []File{
			{Path: "mirror-in-kind.sh", Mode: 0o755, Content: b.String(), Secret: m.Username != "",
				Note: "Run it when the cluster is there: sh mirror-in-kind.sh [--name CLUSTER]"},
			{Path: "kind.yaml", Content: "" +
				"kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\ncontainerdConfigPatches:\n- |-\n" +
				"  [plugins.\"io.containerd.grpc.v1.cri\".registry]\n    config_path = \"" + containerdCerts + "\"\n",
				Note: "Only before kind 0.27: kind create cluster --config kind.yaml"},
		},
		Notes: append(inner.Notes[1:], m.inContainer("the node")...),
	}, nil
}
