package client

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// kaniko takes the mirror as flags, without scheme. It sends no ?ns=, and a
// prefix with a dot makes it go round the mirror in silence, so registries other
// than Docker Hub are named by a word that the mirror knows.
func kaniko(m Mirror) (Config, error) {
	if err := m.named(); err != nil {
		return Config{}, err
	}
	var flags, aliases []string
	for _, registry := range m.Registries {
		if registry == hub {
			flags = append(flags, "--registry-mirror="+m.Address)
			continue
		}
		alias, configured := m.alias(registry)
		if !configured {
			aliases = append(aliases, fmt.Sprintf("%s = %s", alias, quoteTOML(registry)))
		}
		flags = append(flags, fmt.Sprintf("--registry-map=%s=%s/%s", registry, m.Address, alias))
	}
	if !m.TLS {
		flags = append(flags, "--insecure-registry="+m.Address)
	}
	var c Config
	if m.CA != nil {
		const ca = "/kaniko/mirrorctl-ca.pem"
		flags = append(flags, "--registry-certificate="+m.Address+"="+ca)
		c.Notes = append(c.Notes, "Mount the file of the authority at "+ca+".")
	}
	if m.NoFallback {
		flags = append(flags, "--skip-default-registry-fallback")
	}
	if len(aliases) > 0 {
		c.Notes = append(c.Notes, "The mirror has to know the short names; in its configuration, below [serve]: aliases = { "+strings.Join(aliases, ", ")+" }")
	}
	if m.Username != "" {
		c.Notes = append(c.Notes, fmt.Sprintf("Mount a /kaniko/.docker/config.json with a login for %s, as docker login %s --username %s writes it.", m.Address, m.Address, m.Username))
	}
	c.Notes = append(c.Notes, m.inContainer("the container of kaniko")...)
	c.Files = []File{{Path: "arguments of /kaniko/executor", Content: strings.Join(flags, "\n") + "\n"}}
	return c, nil
}

// alias is the mirror's dotless name for a registry, and whether it is known to
// be configured there.
func (m Mirror) alias(registry string) (string, bool) {
	for _, alias := range slices.Sorted(maps.Keys(m.Aliases)) {
		if m.Aliases[alias] == registry {
			return alias, true
		}
	}
	return strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, registry), "-"), false
}

// regctl has a command that changes its own file.
func regctl(m Mirror) (Config, error) {
	if err := m.named(); err != nil {
		return Config{}, err
	}
	if m.NoFallback {
		return Config{}, errFallback
	}
	var b strings.Builder
	for _, registry := range m.Registries {
		fmt.Fprintf(&b, "regctl registry set %s --mirror %s --skip-check\n", registry, m.Address)
	}
	switch {
	case !m.TLS:
		fmt.Fprintf(&b, "regctl registry set %s --tls disabled --skip-check\n", m.Address)
	case m.CA != nil:
		fmt.Fprintf(&b, "regctl registry set %s --cacert \"$(cat <<'EOF'\n%sEOF\n)\" --skip-check\n", m.Address, m.CA)
	}
	if m.Username != "" {
		fmt.Fprintf(&b, "regctl registry login %s --user %s --pass-stdin --skip-check\n", m.Address, quoteShell(m.Username))
	}
	return Config{
		Files: []File{{Path: "commands", Content: b.String()}},
		Notes: []string{"To undo, take \"mirrors\" out of ~/.regctl/config.json."},
	}, nil
}

// crane asks the registry that is in the name.
func crane(m Mirror) (Config, error) {
	var b strings.Builder
	if m.CA != nil {
		b.WriteString("export SSL_CERT_FILE=mirrorctl-ca.pem\n")
	}
	if m.Username != "" {
		fmt.Fprintf(&b, "crane auth login %s --username %s --password-stdin\n", m.Address, quoteShell(m.Username))
	}
	insecure := ""
	if !m.TLS {
		insecure = "--insecure "
	}
	for _, registry := range m.Registries {
		fmt.Fprintf(&b, "crane digest %s%s/%s\n", insecure, m.Address, example(registry))
	}
	c := Config{Files: []File{{Path: "commands", Content: b.String()}}}
	c.Files = append(c.Files, m.authority("mirrorctl-ca.pem", "")...)
	return c, nil
}

func quoteShell(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
