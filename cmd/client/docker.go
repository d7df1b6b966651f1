package client

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

const (
	dockerJSON  = "/etc/docker/daemon.json"
	dockerCerts = "/etc/docker/certs.d"
)

// docker configures dockerd. Its registry-mirrors are for Docker Hub alone and
// take no login; hosts.toml files, from Docker 28 on, are for any registry, for
// builds and for pulls with the containerd image store. Where hosts.toml names a
// host, registry-mirrors does not count, so Docker Hub gets only one of them.
func docker(m Mirror) (Config, error) {
	if m.NoFallback {
		return Config{}, errFallback
	}
	var c Config
	others := m.Registries
	if m.Username == "" {
		others = slices.DeleteFunc(slices.Clone(others), func(r string) bool { return r == hub })
	}
	if len(others) < len(m.Registries) || slices.Contains(others, All) && m.Username == "" {
		c.Files = append(c.Files, m.daemonJSON())
	}
	for _, registry := range others {
		f := m.hostsTOML(dockerCerts, registry)
		f.Note = "Docker 28 or later reads it at every build and, with the containerd image store, pull."
		c.Files = append(c.Files, f)
	}
	c.Files = append(c.Files, m.authority(dockerCerts+"/"+m.Address+"/ca.crt", "dockerd reads it at every pull.")...)
	if len(others) > 0 {
		c.Notes = append(c.Notes, fmt.Sprintf("Before Docker 28, or without the containerd image store, write the mirror in the image's name: docker pull %s/%s.", m.Address, example(others[0])))
	}
	if m.Username != "" {
		c.Notes = append(c.Notes,
			"registry-mirrors of daemon.json takes no login, so Docker Hub is in certs.d, too.", headerNote,
			fmt.Sprintf("For images that are named with the mirror, and for docker buildx: docker login %s --username %s", m.Address, m.Username))
	}
	return c, nil
}

// daemonJSON has the mirror for Docker Hub. insecure-registries is not for the
// mirror, whose address has a scheme, but for images named with its address.
func (m Mirror) daemonJSON() File {
	settings := []setting{{path: []string{"registry-mirrors"}, value: []string{m.url()}}}
	content := fmt.Sprintf("{\n  \"registry-mirrors\": [%s]", quoteJSON(m.url()))
	if !m.TLS {
		settings = append(settings, setting{path: []string{"insecure-registries"}, value: []string{m.Address}})
		content += fmt.Sprintf(",\n  \"insecure-registries\": [%s]", quoteJSON(m.Address))
	}
	return File{
		Path: dockerJSON, Mode: 0o644, Content: content + "\n}\n",
		Note:     "For Docker Hub's images. Then: systemctl reload docker",
		format:   formatJSON,
		settings: fixed(settings),
	}
}

func quoteJSON(s string) string {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings always marshal
	}
	return string(text)
}

// example is an image of a registry.
func example(registry string) string {
	switch registry {
	case hub, All:
		return hub + "/library/debian:bookworm"
	}
	return registry + "/owner/image:tag"
}

// gitlabRunner gives docker:dind, which builds run against, the mirror as
// flags. The images of jobs are pulled by the runner's own docker.
func gitlabRunner(m Mirror) (Config, error) {
	if err := m.named(); err != nil {
		return Config{}, err
	}
	if m.NoFallback {
		return Config{}, errFallback
	}
	if m.Username != "" {
		return Config{}, fmt.Errorf("docker:dind takes no login for a mirror; in the job: docker login %s, and name images as %s/%s", m.Address, m.Address, example(hub))
	}
	flags := []string{"--registry-mirror=" + m.url()}
	if !m.TLS {
		flags = append(flags, "--insecure-registry="+m.Address)
	}
	var quoted []string
	for _, flag := range flags {
		quoted = append(quoted, quoteJSON(flag)) // the same in TOML and YAML
	}
	command := strings.Join(quoted, ", ")
	volumes := ""
	notes := []string{"The images of jobs and services are pulled by the docker of the runner's machine: mirrorctl client docker, there."}
	var files []File
	if m.CA != nil {
		volumes = fmt.Sprintf("    volumes = [\"/certs/client\", \"/cache\", \"%[1]s:%[1]s:ro\"]\n", dockerCerts)
		files = m.authority(dockerCerts+"/"+m.Address+"/ca.crt", "On the runner's machine; the volume below takes it into docker:dind.")
	}
	if slices.ContainsFunc(m.Registries, func(r string) bool { return r != hub }) {
		notes = append(notes, "The flags are for Docker Hub alone; name images of other registries with the mirror: "+m.Address+"/ghcr.io/owner/image:tag.")
	}
	notes = append(notes, m.inContainer("the container of docker:dind")...)
	return Config{Notes: notes, Files: append(files,
		File{Path: "config.toml of the runner", Note: "Add the service to the [[runners]] that it is for; the runner reads the file again by itself.", Content: "" +
			"[[runners]]\n  [runners.docker]\n" + volumes +
			"    [[runners.docker.services]]\n      name = \"docker:dind\"\n      alias = \"docker\"\n      command = [" + command + "]\n"},
		File{Path: ".gitlab-ci.yml", Note: "Or, instead, in the project.", Content: "" +
			"services:\n  - name: docker:dind\n    alias: docker\n    command: [" + command + "]\n"},
	)}, nil
}
