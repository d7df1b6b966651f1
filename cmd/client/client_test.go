package client

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

// ca stands for a private authority; nothing here looks into it.
const ca = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"

// mirrors are the descriptions that every client is tried with.
var mirrors = []struct {
	name string
	Mirror
}{
	{"http", Mirror{Address: "buildbox:5000", Registries: []string{"docker.io"}}},
	{"http, loopback", Mirror{Address: "127.0.0.1:5000", Registries: []string{"docker.io"}}},
	{"https, loopback", Mirror{Address: "127.0.0.1:5443", TLS: true, Registries: []string{"docker.io"}}},
	{"http, several registries", Mirror{Address: "buildbox:5000", Registries: []string{"docker.io", "ghcr.io", "registry.corp:5443"}, Aliases: map[string]string{"gh": "ghcr.io"}}},
	{"https", Mirror{Address: "mirror.corp", TLS: true, Registries: []string{"docker.io", "ghcr.io"}}},
	{"https, private authority", Mirror{Address: "mirror.corp:5443", TLS: true, CA: []byte(ca), Registries: []string{"docker.io", "ghcr.io"}}},
	{"http, login", Mirror{Address: "buildbox:5000", Registries: []string{"docker.io", "ghcr.io"}, Username: "ci"}},
	{"https, private authority, login with password", Mirror{Address: "mirror.corp:5443", TLS: true, CA: []byte(ca), Registries: []string{"docker.io"}, Username: "ci", Password: "it's \"hunter2\""}},
	{"all registries", Mirror{Address: "buildbox:5000", Registries: []string{All}}},
	{"no fallback", Mirror{Address: "buildbox:5000", Registries: []string{"docker.io", "ghcr.io"}, NoFallback: true}},
}

// What each client gets for each mirror is in testdata/golden.
func TestGolden(t *testing.T) {
	for _, c := range Clients() {
		t.Run(c.Name, func(t *testing.T) {
			var b strings.Builder
			for _, m := range mirrors {
				m.DockerConfig = "/home/u/.docker"
				fmt.Fprintf(&b, "==== %s\n", m.name)
				config, err := Build(c.Name, m.Mirror)
				if err != nil {
					fmt.Fprintf(&b, "error: %v\n", err)
				}
				for _, f := range config.Files {
					fmt.Fprintf(&b, "---- %s, mode %04o, note: %s\n%s", f.Path, f.Mode, f.Note, f.Content)
				}
				for _, note := range config.Notes {
					fmt.Fprintf(&b, "note: %s\n", note)
				}
			}
			path := filepath.Join("testdata", "golden", c.Name+".txt")
			if *update {
				if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if b.String() != string(want) {
				t.Errorf("differs from %s; go test ./cmd/client -update writes it\n%s", path, b.String())
			}
		})
	}
}

// What is printed for a file that is not there has to be what is looked for in
// one that is: merging into it changes nothing.
func TestContentHasSettings(t *testing.T) {
	for _, c := range Clients() {
		for _, m := range mirrors {
			config, err := Build(c.Name, m.Mirror)
			if err != nil {
				continue
			}
			for _, f := range config.Files {
				got, err := f.Merge([]byte(f.Content))
				if err != nil || string(got) != f.Content {
					t.Errorf("%s, %s, %s: %v\n%s", c.Name, m.name, f.Path, err, got)
				}
				if !f.Snippet() && f.Mode == 0 {
					t.Errorf("%s: no mode", f.Path)
				}
			}
		}
	}
}

// A password is only where it was said to be, and never in a note.
func TestPassword(t *testing.T) {
	m := mirrors[slices.IndexFunc(mirrors, func(m struct {
		name string
		Mirror
	}) bool {
		return m.Password != ""
	})].Mirror
	for _, c := range Clients() {
		config, err := Build(c.Name, m)
		if err != nil {
			continue
		}
		for _, f := range config.Files {
			holds := strings.Contains(f.Content, "hunter2") || strings.Contains(f.Content, strings.TrimPrefix(m.basic(), "Basic "))
			if holds != f.Secret {
				t.Errorf("%s: %s holds the password: %v, and says %v", c.Name, f.Path, holds, f.Secret)
			}
			if f.Secret && f.Mode.Perm()&0o077 != 0 && !f.Snippet() {
				t.Errorf("%s: others can read %s", c.Name, f.Path)
			}
		}
		if strings.Contains(strings.Join(config.Notes, " "), "hunter2") {
			t.Errorf("%s: the notes hold the password", c.Name)
		}
	}
}

func TestBuildErrors(t *testing.T) {
	for _, c := range []struct {
		client string
		mirror Mirror
		want   string
	}{
		{"dockre", Mirror{}, `client "dockre" is not known`},
		{"docker", Mirror{Password: "x"}, "without a user name"},
		{"k3s", Mirror{Username: "u", Password: "\xff"}, "have to be UTF-8"},
		{"docker", Mirror{Registries: []string{hub}, NoFallback: true}, "docker: always goes on to the registry"},
		{"podman", Mirror{Registries: []string{All}}, "podman: has no rule for all registries"},
		{"gitlab-runner", Mirror{Address: "m:1", Registries: []string{hub}, Username: "u"}, "takes no login"},
	} {
		if _, err := Build(c.client, c.mirror); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", c.client, err, c.want)
		}
	}
}

// Merging never panics, and merging twice is merging once.
func FuzzMerge(f *testing.F) {
	var files []File
	for _, name := range []string{"docker", "buildkit", "containerd", "k3s"} {
		config, err := Build(name, Mirror{Address: "m:5000", Registries: []string{hub, "ghcr.io"}, Username: map[string]string{"k3s": "u"}[name]})
		if err != nil {
			f.Fatal(err)
		}
		files = append(files, config.Files...)
	}
	for i, file := range files {
		f.Add(i, file.Content)
		f.Add(i, "# comment\n"+file.Content+"\n\n")
	}
	f.Add(0, `{"registry-mirrors": [ "a" ,"b"], "x": {}}`)
	f.Add(1, "[host.\"http://m:5000\"]\ncapabilities = [\"pull\"] # x\n[[a]]\nb = {c = 1}\n")
	f.Add(len(files)-1, "mirrors:\n  docker.io: {endpoint: [x]}\nconfigs:\n  m:5000:\n    auth: {username: u}\n")
	f.Fuzz(func(t *testing.T, i int, old string) {
		if i < 0 || i >= len(files) {
			return
		}
		got, err := files[i].Merge([]byte(old))
		if err != nil {
			return
		}
		again, err := files[i].Merge(got)
		if err != nil || string(again) != string(got) {
			t.Errorf("merged\n%s\nthen %v\n%s", got, err, again)
		}
	})
}
