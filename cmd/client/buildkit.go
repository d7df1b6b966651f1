package client

import (
	"fmt"
	"slices"
	"strings"
)

// buildkit configures a buildkitd.
func buildkit(m Mirror) (Config, error) {
	const folder = "/etc/buildkit"
	c, err := m.buildkitd(folder+"/buildkitd.toml", folder+"/mirrorctl-ca.pem")
	if err != nil {
		return Config{}, err
	}
	c.Files[0].Note = "Then restart buildkitd."
	if m.Username != "" {
		c.Notes = append(c.Notes, fmt.Sprintf("buildctl sends the login of the machine that it runs on: docker login %s --username %s", m.Address, m.Username))
	}
	c.Notes = append(c.Notes, m.inContainer("the container of buildkitd, where it runs in one,")...)
	return c, nil
}

// buildx configures what docker buildx create makes: the file that it takes
// when no --buildkitd-config is given. It copies authorities into the builder.
func buildx(m Mirror) (Config, error) {
	folder := m.DockerConfig + "/buildx"
	c, err := m.buildkitd(folder+"/buildkitd.default.toml", folder+"/mirrorctl-ca.pem")
	if err != nil {
		return Config{}, err
	}
	c.Files[0].Note = "Then create the builder anew: docker buildx create --use --driver docker-container"
	if m.CA != nil {
		c.Files[1].Note = "docker buildx create copies it into the builder."
	}
	c.Notes = append(c.Notes,
		"A builder keeps the configuration that it was created with. A file elsewhere is named with --buildkitd-config (--config before buildx 0.15).",
		"The driver docker has no configuration of its own: mirrorctl client docker.")
	if m.Username != "" {
		c.Notes = append(c.Notes, fmt.Sprintf("docker login %s --username %s", m.Address, m.Username))
	}
	c.Notes = append(c.Notes, m.inContainer("the container of the builder")...)
	return c, nil
}

// githubActions is a step of a workflow.
func githubActions(m Mirror) (Config, error) {
	ca := "${{ runner.temp }}/mirrorctl-ca.pem"
	c, err := m.buildkitd("", ca)
	if err != nil {
		return Config{}, err
	}
	var b strings.Builder
	if m.CA != nil {
		b.WriteString("- run: |\n    cat > \"${{ runner.temp }}/mirrorctl-ca.pem\" <<'EOF'\n" + indent(string(m.CA), "    ") + "    EOF\n")
	}
	if m.Username != "" {
		fmt.Fprintf(&b, "- uses: docker/login-action@v3\n  with:\n    registry: %s\n    username: %s\n    password: ${{ secrets.MIRROR_PASSWORD }}\n",
			quoteJSON(m.Address), quoteJSON(m.Username))
	}
	b.WriteString("- uses: docker/setup-buildx-action@v3\n  with:\n    buildkitd-config-inline: |\n" + indent(c.Files[0].Content, "      "))
	notes := []string{"It is for builds with buildx; docker pull and docker run in the same job do not use it."}
	if m.Username != "" {
		notes = append(notes, "The password is the secret MIRROR_PASSWORD of the repository.")
	}
	return Config{
		Files: []File{{Path: ".github/workflows/*.yml", Note: "Before the steps that build.", Content: b.String()}},
		Notes: append(notes, m.inContainer("the container of the builder")...),
	}, nil
}

// indent puts s before every line that is not empty.
func indent(text, s string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) != "" {
			b.WriteString(s)
		}
		b.WriteString(line)
	}
	return b.String()
}

// buildkitd is buildkitd.toml, first, and the file of the authority. Two kinds
// of stanza are needed: what the mirror is for, and how it is reached; a mirror
// takes no scheme there. BuildKit sends ?ns= too; the prefix is for proxies that
// drop a query.
func (m Mirror) buildkitd(path, ca string) (Config, error) {
	if err := m.named(); err != nil {
		return Config{}, err
	}
	if m.NoFallback {
		return Config{}, errFallback
	}
	var stanzas []string
	var settings []setting
	for _, registry := range m.Registries {
		mirror := m.Address + "/" + registry
		stanzas = append(stanzas, fmt.Sprintf("[registry.%s]\n  mirrors = [%s]\n", quoteTOML(registry), quoteTOML(mirror)))
		settings = append(settings, setting{path: []string{"registry", registry, "mirrors"}, value: []string{mirror}})
	}
	own := []string{"registry", m.Address}
	var reach []string
	add := func(key string, value any) {
		reach = append(reach, "  "+key+" = "+valueTOML(value)+"\n")
		settings = append(settings, setting{path: append(slices.Clone(own), key), value: value})
	}
	if !m.TLS {
		add("http", true)
	} else if m.loopback() {
		add("http", false) // which it takes for granted there
	}
	if m.CA != nil {
		add("ca", []string{ca})
	}
	if reach != nil {
		stanzas = append(stanzas, "[registry."+quoteTOML(m.Address)+"]\n"+strings.Join(reach, ""))
	}
	return Config{Files: append([]File{{
		Path: path, Mode: 0o644, Content: strings.Join(stanzas, "\n"),
		format: formatTOML,
		settings: func(document map[string]any) ([]setting, error) {
			// http and insecure together are TLS without verification.
			if insecure, _ := find(document, append(slices.Clone(own), "insecure")); insecure == true && !m.TLS {
				return nil, fmt.Errorf("[registry.%s] has insecure = true, which makes BuildKit try TLS: take it out first", quoteTOML(m.Address))
			}
			return settings, nil
		},
	}}, m.authority(ca, "buildkitd reads it when it starts.")...)}, nil
}
