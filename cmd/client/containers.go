package client

import (
	"fmt"
	"strings"
)

func podman(m Mirror) (Config, error) {
	return m.registriesConf("podman reads it at every pull.",
		"podman login --username "+m.Username+" "+m.Address)
}

func buildah(m Mirror) (Config, error) {
	return m.registriesConf("buildah reads it at every pull.",
		"buildah login --username "+m.Username+" "+m.Address)
}

func skopeo(m Mirror) (Config, error) {
	c, err := m.registriesConf("skopeo reads it at every copy.",
		"skopeo login --username "+m.Username+" "+m.Address)
	c.Notes = append(c.Notes, "skopeo inspect and list-tags list tags at the registry, never at a mirror.")
	return c, err
}

func crio(m Mirror) (Config, error) {
	c, err := m.registriesConf("Then: systemctl reload crio",
		"podman login --authfile FILE --username "+m.Username+" "+m.Address+", and global_auth_file = \"FILE\" in [crio.image] of /etc/crio/crio.conf.d")
	return c, err
}

// registriesConf is a drop-in for all programs that are made with
// containers/image. They send no ?ns=, so each registry needs its prefix. A
// location that is the mirror forbids the registry.
func (m Mirror) registriesConf(note, login string) (Config, error) {
	if err := m.named(); err != nil {
		return Config{}, err
	}
	insecure := ""
	if !m.TLS {
		insecure = "insecure = true\n"
	}
	var stanzas []string
	for _, registry := range m.Registries {
		mirror := fmt.Sprintf("location = %s\n%s", quoteTOML(m.Address+"/"+registry), insecure)
		stanza := fmt.Sprintf("[[registry]]\nprefix = %s\n", quoteTOML(registry))
		if m.NoFallback {
			stanza += mirror
		} else {
			stanza += fmt.Sprintf("location = %s\n\n[[registry.mirror]]\n", quoteTOML(registry)) + mirror
		}
		stanzas = append(stanzas, stanza)
	}
	c := Config{Files: []File{{
		Path: "/etc/containers/registries.conf.d/mirrorctl.conf", Mode: 0o644,
		Content: "# Replaces a [[registry]] for the same prefix in other files.\n\n" + strings.Join(stanzas, "\n"),
		Note:    note,
	}}}
	c.Files = append(c.Files, m.authority("/etc/containers/certs.d/"+m.Address+"/ca.crt", "Read at every pull.")...)
	if m.Username != "" {
		c.Notes = append(c.Notes, login)
	}
	return c, nil
}
