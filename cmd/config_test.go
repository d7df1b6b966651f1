package cmd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func writeConfig(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestLoadConfig(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "mirrorctl.toml")
	writeConfig(t, path, `
store = "/srv/mirror/"
jobs = 8
connections = 4
timeout = "1m30s"
log_level = "info"
mirror_hosts = ["BuildBox:5000"]
[serve]
listen = ["127.0.0.1:5000", "unix:/run//m.sock"]
tls_cert = "certs/server.pem"
max_connections = 100
pull_through = "index.docker.io"
default_registry = "Index.Docker.io"
access_log = "text"
aliases = { ghcr = "ghcr.io", hub = "registry-1.docker.io" }
hosts = { "Docker.mirror.lan" = "index.docker.io", "ghcr.mirror.lan" = "ghcr.io" }
[registry."index.docker.io"]
url = "http://127.0.0.1:5001/"
mirrors = ["https://mirror.hq.example/prefix/"]
username = "u"
password = "p"
[registry."GHCR.io"]
url = "ocidir://testdata/../sample"
username = "u"
password_file = "secret"
ca = "certs/corp.pem"
[registry."[::1]:5000"]
url = "ocidir:///srv/x"
insecure = true
`)
	got, err := loadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	want := config{
		Path: path, Store: "/srv/mirror", Jobs: 8, Connections: 4, Timeout: 90 * time.Second, LogLevel: "info", MirrorHosts: []string{"buildbox:5000"},
		Serve: serveConfig{
			Values: map[string][]string{
				"listen": {"127.0.0.1:5000", "unix:/run/m.sock"}, "default_registry": {"docker.io"}, "access_log": {"text"},
				"tls_cert": {filepath.Join(folder, "certs", "server.pem")}, "max_connections": {"100"}, "pull_through": {"docker.io"},
			},
			Aliases: map[string]string{"ghcr": "ghcr.io", "hub": "docker.io"},
			Hosts:   map[string]string{"docker.mirror.lan": "docker.io", "ghcr.mirror.lan": "ghcr.io"},
		},
		Registries: map[string]registryConfig{
			"docker.io": {URL: "http://127.0.0.1:5001", Mirrors: []string{"https://mirror.hq.example/prefix"}, Username: "u", Password: "p"},
			"ghcr.io": {
				URL: "ocidir://" + filepath.Join(folder, "sample"), Username: "u",
				PasswordFile: filepath.Join(folder, "secret"), CA: filepath.Join(folder, "certs", "corp.pem"),
			},
			"[::1]:5000": {URL: "ocidir:///srv/x", Insecure: true},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}

	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err = loadConfig(path); err != nil || len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], "chmod 600 "+path) {
		t.Errorf("warnings %q: %v", got.Warnings, err)
	}
}

func TestConfigMistakes(t *testing.T) {
	t.Chdir(t.TempDir())
	for text, want := range map[string]string{
		"[registry.\"docker.io\"]\nurl = \"http://a\"\n\nmirorrs = []\n":           `4:1: unknown key registry."docker.io".mirorrs (did you mean mirrors?)`,
		"jobs = 8\nserv.listen = \"x\"\n":                                          `2:1: unknown key serv (did you mean serve?)`,
		"jobs = \"8\"":                                                             `1:1: jobs must be a whole number, not a string`,
		"jobs = 0":                                                                 `1:1: jobs must be from 1 to 256`,
		"log_level = \"loud\"":                                                     `1:1: log_level must be one of debug, info, warn, error`,
		"store = \"~/x\"":                                                          `1:1: store: ~ is not expanded here`,
		"store = \"\"":                                                             `1:1: store is empty`,
		"[serve]\nlisten = \"5000\"":                                               `2:1: listen: must be HOST:PORT`,
		"[serve]\nlisten = \":70000\"":                                             `2:1: listen: must be HOST:PORT`,
		"[serve]\naccess_log = \"xml\"":                                            `2:1: access_log: must be one of off, text, json`,
		"[serve]\nmax_connections = \"many\"":                                      `2:1: serve.max_connections must be a whole number, not a string`,
		"[serve]\nmax_connections = -1":                                            `2:1: max_connections: must be a number`,
		"[serve]\nallow = [\"10.0.0.0/8\",\n\"10.0.0.1/8\"]":                       `3:1: allow: 10.0.0.1/8 has bits beyond its length: is 10.0.0.0/8 meant?`,
		"[serve]\nallow = 10":                                                      `2:1: serve.allow must be an array of strings, not a number`,
		"[serve]\nhtpasswd = \"~/users\"":                                          `2:1: htpasswd: ~ is not expanded here`,
		"[serve]\ntls_cert = \"\"":                                                 `2:1: tls_cert: is empty`,
		"[serve]\ntrusted_proxy = \"proxy.lan\"":                                   `2:1: trusted_proxy: must be a network`,
		"[serve]\nrequire_login = \"write\"":                                       `2:1: require_login: must be none, pull-through or read`,
		"[serve]\nmin_rate = \"fast\"":                                             `2:1: min_rate: must be a size`,
		"[serve]\ngrace = \"soon\"":                                                `2:1: grace: must be a duration`,
		"[serve]\nlisten = \"unix:m.sock\"":                                        `2:1: listen: must be unix:/PATH`,
		"[serve]\npull_through_for = [\"a b\"]":                                    `2:21: pull_through_for: must be a network, such as 10.0.0.0/8, or a user`,
		"log_format = \"xml\"":                                                     `1:1: log_format must be one of text, json`,
		"[serve]\ndefault_registry = \"ghcr\"":                                     `2:1: default_registry: "ghcr" is not a registry`,
		"[serve]\naliases = { \"gh.cr\" = \"ghcr.io\" }":                           `2:13: alias "gh.cr": must be one word`,
		"[serve]\naliases = { Gh = \"ghcr.io\" }":                                  `2:13: alias "Gh": must be`,
		"[serve]\naliases = { \"a/b\" = \"ghcr.io\" }":                             `2:13: alias "a/b": must be`,
		"[serve]\naliases = { library = \"ghcr.io\" }":                             `2:13: alias "library" would hide`,
		"[serve]\naliases = { v2 = \"ghcr.io\" }":                                  `2:13: alias "v2" would hide the API`,
		"[registry.\"" + strings.Repeat("a", 256) + ".b\"]":                        `1:11: "` + strings.Repeat("a", 256) + `.b" is not a registry`,
		"[serve]\naliases = { g = \"\" }":                                          `2:13: g: "" is not a registry`,
		"[serve]\nhosts = { \"a.lan:5000\" = \"ghcr.io\" }":                        `2:11: host "a.lan:5000": must be a name without a port`,
		"[serve]\nhosts = { \"a.lan\" = \"ghcr\" }":                                `2:11: a.lan: "ghcr" is not a registry`,
		"[serve]\nhosts = { \"a b\" = \"ghcr.io\" }":                               `2:11: host "a b": must be a name of this mirror`,
		"[serve]\n[serve.hosts]\n\"a.lan\" = \"ghcr.io\"\n\"A.lan\" = \"ghcr.io\"": `3:1: host a.lan is configured twice`,
		"serve = 1": `1:1: serve must be a table, not a number`,
		"[registry]\n\"docker.io\" = \"http://x\"":                                                `2:1: registry."docker.io" must be a table, not a string`,
		"[registry.docker]":                                                                       `1:11: "docker" is not a registry`,
		"[registry.\"docker.io/library\"]":                                                        `1:11: "docker.io/library" is not a registry`,
		"[registry.\"https://docker.io\"]":                                                        `1:11: "https://docker.io" is not a registry`,
		"[registry.\"docker.io\"]\n[registry.\"index.docker.io\"]":                                `2:11: registry docker.io is configured twice`,
		"[registry.\"a.b\"]\nurl = \"ftp://x\"":                                                   `2:1: url: must be http://host[:port][/prefix] or https://, or ocidir://path`,
		"[registry.\"a.b\"]\nurl = \"a.b\"":                                                       `2:1: url: must be http`,
		"[registry.\"a.b\"]\nurl = \"http://\"":                                                   `2:1: url: must be http`,
		"[registry.\"a.b\"]\nurl = \"http:a.b\"":                                                  `2:1: url: must be http`,
		"[registry.\"a.b\"]\nurl = \"http://a:0\"":                                                `2:1: url: port out of range`,
		"[registry.\"a.b\"]\nurl = \"http://a/?x\"":                                               `2:1: url: no query`,
		"[registry.\"a.b\"]\nurl = \"ocidir://\"":                                                 `2:1: url: ocidir:// needs a path`,
		"[registry.\"a.b\"]\nmirrors = [\"http://a\",\n\"ocidir://x\"]":                           `3:1: mirrors: must be http`,
		"[registry.\"a.b\"]\nmirrors = \"http://a\"":                                              `2:1: registry."a.b".mirrors must be an array of strings, not a string`,
		"[registry.\"a.b\"]\nusername = \"u\"":                                                    `2:1: username without password`,
		"[registry.\"a.b\"]\npassword = \"hunter2\"":                                              `1:11: password without username`,
		"[registry.\"a.b\"]\nusername=\"u\"\npassword = \"hunter2\"\npassword_file = \"hunter2\"": `4:1: password and password_file: only one`,
		"[registry.\"a.b\"]\nurl = \"http://u:hunter2@x\"":                                        `2:1: url: no user or password in an address`,
		"[registry.\"a.b\"]\nurl = \"http://u:hunter2#@x\"":                                       `2:1: url: must be http`,
		"[registry.\"a.b\"]\nmirrors = [\"http://u:hunter2 @x\"]":                                 `2:12: mirrors: must be http`,
		"[registry.\"a.b\"]\npassword = hunter2":                                                  `2:12: not valid TOML`,
		"[registry.\"a.b\"]\npasword = \"hunter2\"":                                               `2:1: unknown key registry."a.b".pasword`,
		"[registry.\"a.b\"]\nusername=\"u\"\npassword = [\"hunter2\"]":                            `3:1: registry."a.b".password must be a string, not an array`,
	} {
		writeConfig(t, "mirrorctl.toml", text)
		got, err := loadConfig("mirrorctl.toml")
		if err == nil || !strings.HasPrefix(err.Error(), "mirrorctl.toml:"+want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s\ngot %v\nwant %s", text, err, want)
		}
		if !reflect.DeepEqual(got, config{}) {
			t.Errorf("%s\na config beside an error: %+v", text, got)
		}
	}
	writeConfig(t, "mirrorctl.toml", "jobs = 0\nx = 1\n[serve]\nlisten = 1\n[registry.x]\nurl = \"\"\n")
	_, err := loadConfig("mirrorctl.toml")
	if err == nil || strings.Count(err.Error(), "\n") != 4 {
		t.Errorf("not all mistakes at once: %v", err)
	}
}

func TestFindConfig(t *testing.T) {
	folder := t.TempDir()
	t.Chdir(folder)
	home, xdg := filepath.Join(folder, "home"), filepath.Join(folder, "xdg")
	env := map[string]string{"HOME": home}
	check := func(flag, want string) {
		t.Helper()
		if got, err := findConfig(flag, func(k string) string { return env[k] }); err != nil || got != want {
			t.Errorf("got %q, want %q: %v", got, want, err)
		}
	}
	check("", "")
	if c, err := openConfig("", func(k string) string { return env[k] }); err != nil || !reflect.DeepEqual(c, config{}) {
		t.Errorf("without a file: %+v, %v", c, err)
	}
	inHome, inXDG := filepath.Join(home, ".config", "mirrorctl", "config.toml"), filepath.Join(xdg, "mirrorctl", "config.toml")
	writeConfig(t, inHome, "")
	check("", inHome)
	env["XDG_CONFIG_HOME"] = "relative"
	check("", inHome)
	env["XDG_CONFIG_HOME"] = xdg
	check("", "")
	writeConfig(t, inXDG, "")
	check("", inXDG)
	writeConfig(t, "mirrorctl.toml", "")
	check("", "mirrorctl.toml")
	writeConfig(t, "env.toml", "jobs = 3")
	env["MIRRORCTL_CONFIG"] = "env.toml"
	check("", "env.toml")
	check("mirrorctl.toml", "mirrorctl.toml")
	if c, err := openConfig("", func(k string) string { return env[k] }); err != nil || c.Jobs != 3 || c.Path != "env.toml" {
		t.Errorf("%+v, %v", c, err)
	}
	env["MIRRORCTL_CONFIG"] = "none.toml"
	for flag, by := range map[string]string{"": "MIRRORCTL_CONFIG", "nor.toml": "--config"} {
		_, err := findConfig(flag, func(k string) string { return env[k] })
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "named by "+by) {
			t.Errorf("flag %q: %v", flag, err)
		}
	}
}

func TestConfigSecretsAreNotPrinted(t *testing.T) {
	c := config{Registries: map[string]registryConfig{"a.b": {Password: "hunter2"}}}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "config", c)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "config", c)
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	all := fmt.Sprintf("%v %+v %#v", c, c, c) + log.String() + string(data)
	if strings.Contains(all, "hunter2") {
		t.Error(all)
	}
}

func TestConfigFilesOfRegistry(t *testing.T) {
	folder := t.TempDir()
	for text, want := range map[string]string{"s\n": "s", "s\r\n": "s", " s ": " s ", "\n": "is empty", "a\nb\n": "more than one line"} {
		path := filepath.Join(folder, "password")
		writeConfig(t, path, text)
		got, err := registryConfig{PasswordFile: path}.password()
		if err == nil && got != want || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %q, %v", text, got, err)
		}
	}
	if got, err := (registryConfig{Password: "p"}).password(); got != "p" || err != nil {
		t.Error(got, err)
	}
	if _, err := (registryConfig{PasswordFile: filepath.Join(folder, "none")}).password(); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	writeConfig(t, filepath.Join(folder, "ca.pem"), "not a certificate")
	if _, err := (registryConfig{CA: filepath.Join(folder, "ca.pem")}).authorities(); err == nil || !strings.Contains(err.Error(), "no PEM certificate") {
		t.Error(err)
	}
	if got, err := (registryConfig{}).authorities(); got != nil || err != nil {
		t.Error(got, err)
	}
}
