package client

import (
	"errors"
	"strings"
	"testing"
)

func TestMergeJSON(t *testing.T) {
	file := Mirror{Address: "m:5000"}.daemonJSON()
	for _, c := range []struct{ name, old, want string }{
		{"no file", "", file.Content},
		{"empty object", "{}\n", "{\n  \"registry-mirrors\": [\"http://m:5000\"],\n  \"insecure-registries\": [\"m:5000\"]\n}\n"},
		{"other keys, their order and spaces", "{\n\t\"log-driver\": \"local\",\n\n\t\"data-root\":\"/x\"\n}\n",
			"{\n\t\"log-driver\": \"local\",\n\n\t\"data-root\":\"/x\",\n\t\"registry-mirrors\": [\"http://m:5000\"],\n\t\"insecure-registries\": [\"m:5000\"]\n}\n"},
		{"one line", `{"debug":true}`, `{"debug":true,"registry-mirrors": ["http://m:5000"],"insecure-registries": ["m:5000"]}`},
		{"in front of other mirrors", "{\n  \"registry-mirrors\": [\n    \"https://a\"\n  ], \"insecure-registries\": [\"b\", \"c\"]\n}",
			"{\n  \"registry-mirrors\": [\n    \"http://m:5000\",\n    \"https://a\"\n  ], \"insecure-registries\": [\"m:5000\", \"b\", \"c\"]\n}"},
		{"empty lists", `{"registry-mirrors": [ ], "insecure-registries": []}`, `{"registry-mirrors": ["http://m:5000"], "insecure-registries": ["m:5000"]}`},
		{"numbers beyond floats", `{"default-ulimits": {"x": 12345678901234567890123}}`,
			`{"default-ulimits": {"x": 12345678901234567890123},"registry-mirrors": ["http://m:5000"],"insecure-registries": ["m:5000"]}`},
		{"a slash after the mirror", `{"registry-mirrors": ["http://m:5000/"], "insecure-registries": ["m:5000"]}`, `{"registry-mirrors": ["http://m:5000/"], "insecure-registries": ["m:5000"]}`},
		{"line ends of Windows", "{\r\n  \"debug\": true\r\n}\r\n", "{\r\n  \"debug\": true,\r\n  \"registry-mirrors\": [\"http://m:5000\"],\r\n  \"insecure-registries\": [\"m:5000\"]\r\n}\r\n"},
		{"byte order mark", "\ufeff{\"debug\":true}", "\ufeff{\"debug\":true,\"registry-mirrors\": [\"http://m:5000\"],\"insecure-registries\": [\"m:5000\"]}"},
	} {
		t.Run(c.name, func(t *testing.T) { merges(t, file, c.old, c.want) })
	}
	refuses(t, file, `[]`, "not a JSON object")
	refuses(t, file, `null`, "not a JSON object")
	refuses(t, file, `{} {}`, "something after")
	refuses(t, file, `{"registry-mirrors": "http://a"}`, "is not a list")
	refuses(t, file, `{// comment`+"\n}", "not a JSON object")
}

func merges(t *testing.T, file File, old, want string) {
	t.Helper()
	got, err := file.Merge([]byte(old))
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	again, err := file.Merge(got)
	if err != nil || string(again) != string(got) {
		t.Errorf("merged again: %v\n%s", err, again)
	}
}

func refuses(t *testing.T, file File, old, want string) {
	t.Helper()
	got, err := file.Merge([]byte(old))
	var refused *RefusedError
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), want) {
		t.Errorf("%s\ngot %s, %v\nwant refused: %s", old, got, err, want)
	}
}

func TestMergeTOML(t *testing.T) {
	buildkitd := mustBuild(t, "buildkit", Mirror{Address: "m:5000", Registries: []string{"docker.io", "ghcr.io"}}).Files[0]
	for _, c := range []struct{ name, old, want string }{
		{"no file", "", buildkitd.Content},
		{"other tables and comments", "# mine\ndebug = true # yes\n\n[worker.oci]\n  enabled = true\n",
			"# mine\ndebug = true # yes\n\n[worker.oci]\n  enabled = true\n" +
				"\n[registry.\"docker.io\"]\n  mirrors = [\"m:5000/docker.io\"]\n\n[registry.\"ghcr.io\"]\n  mirrors = [\"m:5000/ghcr.io\"]\n\n[registry.\"m:5000\"]\n  http = true\n"},
		{"in front of other mirrors", "[registry.'docker.io']\n\tmirrors = [\n\t\t# near\n\t\t\"a\", # far\n\t]\n[registry.\"ghcr.io\"]\nmirrors=[]\n[registry.\"m:5000\"]\nhttp = false # no\n",
			"[registry.'docker.io']\n\tmirrors = [\n\t\t\"m:5000/docker.io\",\n\t\t# near\n\t\t\"a\", # far\n\t]\n[registry.\"ghcr.io\"]\nmirrors=[\"m:5000/ghcr.io\"]\n[registry.\"m:5000\"]\nhttp = true # no\n"},
		{"into a table", "[registry.\"docker.io\"]\n    capabilities = [\"pull\"]\n[registry.\"ghcr.io\"] # empty\n[registry.\"m:5000\"]",
			"[registry.\"docker.io\"]\n    mirrors = [\"m:5000/docker.io\"]\n    capabilities = [\"pull\"]\n[registry.\"ghcr.io\"] # empty\n  mirrors = [\"m:5000/ghcr.io\"]\n[registry.\"m:5000\"]\n  http = true\n"},
		{"line ends of Windows", "debug = true\r\n", "debug = true\r\n\r\n[registry.\"docker.io\"]\r\n  mirrors = [\"m:5000/docker.io\"]\r\n\r\n[registry.\"ghcr.io\"]\r\n  mirrors = [\"m:5000/ghcr.io\"]\r\n\r\n[registry.\"m:5000\"]\r\n  http = true\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) { merges(t, buildkitd, c.old, c.want) })
	}
	refuses(t, buildkitd, "a = \n", "1:5: toml")
	refuses(t, buildkitd, "registry = {}\n", "cannot change")
	refuses(t, buildkitd, "registry.\"docker.io\".http = true\n", "cannot change")
	refuses(t, buildkitd, "[registry]\n\"docker.io\" = { http = true }\n", "cannot change")
	refuses(t, buildkitd, "registry = 1\n", "registry is not a table")
	refuses(t, buildkitd, "[registry.\"m:5000\"]\ninsecure = true\n", "insecure = true")
}

func TestMergeHosts(t *testing.T) {
	m := Mirror{Address: "m:5000", Registries: []string{"docker.io"}}
	hosts := m.hostsTOML("/c", "docker.io")
	ours := "[host.\"http://m:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
	for _, c := range []struct{ name, old, want string }{
		{"before other hosts", "server = \"https://x\"\n\n# near\n[host.\"https://a\"]\n  capabilities = [\"pull\"]\n  [host.\"https://a\".header]\n    x = \"y\"\n",
			"server = \"https://x\"\n\n" + ours + "\n# near\n[host.\"https://a\"]\n  capabilities = [\"pull\"]\n  [host.\"https://a\".header]\n    x = \"y\"\n"},
		{"tags were left to the registry", "[host.\"http://m:5000\"]\ncapabilities = [\"pull\"]\n", "[host.\"http://m:5000\"]\ncapabilities = [\"resolve\", \"pull\"]\n"},
	} {
		t.Run(c.name, func(t *testing.T) { merges(t, hosts, c.old, c.want) })
	}
	m.NoFallback = true
	only := m.hostsTOML("/c", "docker.io")
	merges(t, only, "# mine\nserver = \"https://x\"\n", "# mine\ncapabilities = [\"pull\", \"resolve\"]\nserver = \"http://m:5000\"\n")
	refuses(t, only, "[host.\"https://a\"]\n", "other hosts")

	m = Mirror{Address: "m:5000", Registries: []string{"docker.io"}, Username: "u", Password: "secret"}
	login := m.hostsTOML("/c", "docker.io")
	merges(t, login, ours, "[host.\"http://m:5000\"]\n  header = { Authorization = \"Basic dTpzZWNyZXQ=\" }\n  capabilities = [\"pull\", \"resolve\"]\n")
	refuses(t, login, "[host.\"http://m:5000\".header]\nx = \"y\"\n", "says something else")
	if _, err := login.Merge([]byte("[host.\"http://m:5000\".header]\nx = \"y\"\n")); strings.Contains(err.Error(), "dTpz") {
		t.Errorf("the error shows the password: %v", err)
	}
}

func TestMergeConfigTOML(t *testing.T) {
	for _, c := range []struct{ name, old, want string }{
		{"version 1", "root = \"/x\"\n", "root = \"/x\"\n\n[plugins.cri.registry]\n  config_path = \"/etc/containerd/certs.d\"\n"},
		{"version 2", "version = 2\n[plugins]\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n    [plugins.\"io.containerd.grpc.v1.cri\".registry]\n      config_path = \"\"\n\n[grpc]\n",
			"version = 2\n[plugins]\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n    [plugins.\"io.containerd.grpc.v1.cri\".registry]\n      config_path = \"/etc/containerd/certs.d\"\n\n[grpc]\n"},
		{"version 3", "version = 3\n", "version = 3\n\n[plugins.\"io.containerd.cri.v1.images\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n"},
		{"one of several folders", "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/etc/containerd/certs.d:/etc/docker/certs.d'\n",
			"version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/etc/containerd/certs.d:/etc/docker/certs.d'\n"},
	} {
		t.Run(c.name, func(t *testing.T) { merges(t, configTOML(), c.old, c.want) })
	}
	refuses(t, configTOML(), "version = 9\n", "version = 9 is not known")
	refuses(t, configTOML(), "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/x\"\n", `config_path is "/x"`)
	refuses(t, configTOML(), "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\nendpoint = [\"https://a\"]\n", "has mirrors")
}

func TestMergeYAML(t *testing.T) {
	m := Mirror{Address: "m:5000", TLS: true, CA: []byte("pem\n"), Username: "u", Password: "secret", Registries: []string{"docker.io", "*"}}
	file := mustBuild(t, "k3s", m).Files[0]
	auth := "    auth:\n      username: \"u\"\n      password: \"secret\"\n    tls:\n      ca_file: \"/etc/rancher/k3s/mirrorctl-ca.pem\"\n"
	for _, c := range []struct{ name, old, want string }{
		{"no file", "", file.Content},
		{"comments alone", "# mine\n", "# mine\nmirrors:\n  docker.io:\n    endpoint:\n      - \"https://m:5000\"\n  \"*\":\n    endpoint:\n      - \"https://m:5000\"\nconfigs:\n  \"m:5000\":\n" + auth},
		{"in front of other endpoints", "mirrors:\n    # hub\n    docker.io:\n        endpoint:\n        - https://a # near\n    \"*\": {endpoint: [\"https://b\"]}\n\nconfigs:\n",
			"mirrors:\n    # hub\n    docker.io:\n        endpoint:\n        - \"https://m:5000\"\n        - https://a # near\n    \"*\": {endpoint: [\"https://m:5000\", \"https://b\"]}\n\nconfigs:\n  \"m:5000\":\n" + auth},
		{"another password", "mirrors: # of the hub\n  docker.io:\n    endpoint: ['https://m:5000']\n  \"*\":\n    endpoint:\n      - https://m:5000\nconfigs:\n  m:5000:\n    auth:\n      username: u\n      password: old # since May\n    tls:\n      ca_file: \"/etc/rancher/k3s/mirrorctl-ca.pem\"\n",
			"mirrors: # of the hub\n  docker.io:\n    endpoint: ['https://m:5000']\n  \"*\":\n    endpoint:\n      - https://m:5000\nconfigs:\n  m:5000:\n    auth:\n      username: u\n      password: \"secret\" # since May\n    tls:\n      ca_file: \"/etc/rancher/k3s/mirrorctl-ca.pem\"\n"},
		{"without a last line end", "configs:\n  a:\n    tls:\n      ca_file: x\nmirrors:\n  b:\n    rewrite:\n      \"^a\": b",
			"configs:\n  a:\n    tls:\n      ca_file: x\n  \"m:5000\":\n" + auth + "mirrors:\n  b:\n    rewrite:\n      \"^a\": b\n  docker.io:\n    endpoint:\n      - \"https://m:5000\"\n  \"*\":\n    endpoint:\n      - \"https://m:5000\"\n"},
	} {
		t.Run(c.name, func(t *testing.T) { merges(t, file, c.old, c.want) })
	}
	refuses(t, file, "mirrors: {}\n", "cannot change")
	refuses(t, file, "mirrors: {docker.io: {endpoint: []}}\n", "cannot change")
	refuses(t, file, "mirrors: [a]\n", "mirrors is not a table")
	refuses(t, file, "- a\n", "1: cannot construct")
}

func mustBuild(t *testing.T, name string, m Mirror) Config {
	t.Helper()
	c, err := Build(name, m)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
