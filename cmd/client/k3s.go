package client

import (
	"fmt"
	"strings"
)

func k3s(m Mirror) (Config, error) {
	return m.registriesYAML("/etc/rancher/k3s", "Then: systemctl restart k3s, or k3s-agent; on every node.")
}

func rke2(m Mirror) (Config, error) {
	return m.registriesYAML("/etc/rancher/rke2", "Then: systemctl restart rke2-server, or rke2-agent; on every node.")
}

// registriesYAML is the file that k3s and RKE2 make containerd's hosts.toml
// from. It is read once, at the start. The registry itself is asked last, unless
// the node's own configuration forbids it.
func (m Mirror) registriesYAML(folder, note string) (Config, error) {
	var b strings.Builder
	var settings []setting
	b.WriteString("mirrors:\n")
	for _, registry := range m.Registries {
		fmt.Fprintf(&b, "  %s:\n    endpoint:\n      - %s\n", keyYAML(registry), quoteJSON(m.url()))
		settings = append(settings, setting{path: []string{"mirrors", registry, "endpoint"}, value: []string{m.url()}})
	}
	ca := folder + "/mirrorctl-ca.pem"
	if m.CA != nil || m.Username != "" {
		fmt.Fprintf(&b, "configs:\n  %s:\n", keyYAML(m.Address))
	}
	add := func(table, key, value string) {
		fmt.Fprintf(&b, "      %s: %s\n", key, quoteJSON(value))
		settings = append(settings, setting{path: []string{"configs", m.Address, table, key}, value: value})
	}
	if m.Username != "" {
		b.WriteString("    auth:\n")
		add("auth", "username", m.Username)
		add("auth", "password", m.password())
	}
	if m.CA != nil {
		b.WriteString("    tls:\n")
		add("tls", "ca_file", ca)
	}
	f := File{Path: folder + "/registries.yaml", Mode: 0o600, Content: b.String(), Note: note, Secret: m.Username != "", format: formatYAML, settings: fixed(settings)}
	c := Config{Files: append([]File{f}, m.authority(ca, "Named by registries.yaml.")...)}
	if m.NoFallback {
		c.Files = append(c.Files, File{
			Path: folder + "/config.yaml", Mode: 0o600, Content: "disable-default-registry-endpoint: true\n", Note: "Releases of 2024 or later. " + note,
			format: formatYAML, settings: fixed([]setting{{path: []string{"disable-default-registry-endpoint"}, value: true}}),
		})
	}
	return c, nil
}
