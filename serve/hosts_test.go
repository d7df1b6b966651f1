package serve

import (
	"net/url"
	"strings"
	"testing"
)

var testHosts = map[string]string{
	"docker.mirror.lan": "registry-1.docker.io",
	"GHCR.mirror.lan":   "ghcr.io",
}

func TestVirtualHosts(t *testing.T) {
	n := testNames(t, "")
	for _, test := range []struct{ host, url, want string }{
		{"docker.mirror.lan", "/v2/debian", "docker.io library/debian"},
		{"docker.mirror.lan", "/v2/acme/tool", "docker.io acme/tool"},
		{"ghcr.mirror.lan", "/v2/acme/tool", "ghcr.io acme/tool"},
		{"ghcr.mirror.lan", "/v2/tool", "ghcr.io tool"},

		// However the host is written.
		{"ghcr.mirror.lan:5000", "/v2/acme/tool", "ghcr.io acme/tool"},
		{"GHCR.Mirror.LAN.", "/v2/acme/tool", "ghcr.io acme/tool"},
		{"ghcr.mirror.lan.:443", "/v2/acme/tool", "ghcr.io acme/tool"},

		// Not one of them.
		{"", "/v2/acme/tool", "docker.io acme/tool"},
		{"mirror.lan", "/v2/acme/tool", "docker.io acme/tool"},
		{"x.ghcr.mirror.lan", "/v2/acme/tool", "docker.io acme/tool"},
		{"ghcr.mirror.lan.evil", "/v2/acme/tool", "docker.io acme/tool"},
		{"ghcr.mirror.lan:5000:5000", "/v2/acme/tool", "docker.io acme/tool"},
		{"[::1]", "/v2/acme/tool", "docker.io acme/tool"},
		{"[::1]:5000", "/v2/acme/tool", "docker.io acme/tool"},
		{":5000", "/v2/acme/tool", "docker.io acme/tool"},
		{"ghcr.io", "/v2/acme/tool", "docker.io acme/tool"},

		// A prefix that says the same goes; another is part of the name.
		{"ghcr.mirror.lan", "/v2/ghcr.io/acme/tool", "ghcr.io acme/tool"},
		{"ghcr.mirror.lan", "/v2/ghcr/acme/tool", "ghcr.io acme/tool"},
		{"docker.mirror.lan", "/v2/docker.io/debian", "docker.io library/debian"},
		{"ghcr.mirror.lan", "/v2/docker.io/library/debian", "ghcr.io docker.io/library/debian"},
		{"ghcr.mirror.lan", "/v2/localhost:5000/tool", codeNameInvalid},

		// ns, and a registry before /v2, say it more exactly.
		{"ghcr.mirror.lan", "/v2/acme/tool?ns=ghcr.io", "ghcr.io acme/tool"},
		{"ghcr.mirror.lan", "/v2/acme/tool?ns=quay.io", "quay.io acme/tool"},
		{"ghcr.mirror.lan", "/v2/ghcr.io/acme/tool?ns=quay.io", "quay.io ghcr.io/acme/tool"},
		{"ghcr.mirror.lan", "/v2/acme/tool?ns=", "ghcr.io acme/tool"},
		{"ghcr.mirror.lan", "/v2/acme/tool?ns=word", codeNameInvalid},
		{"ghcr.mirror.lan", "/quay.io/v2/acme/tool", "quay.io acme/tool"},
		{"ghcr.mirror.lan", "/ghcr.io/v2/acme/tool", "ghcr.io acme/tool"},
		{"ghcr.mirror.lan", "/unknown/v2/acme/tool", "outside"},
	} {
		path, query, _ := strings.Cut(test.url, "?")
		u, err := url.ParseRequestURI(path + "/manifests/1?" + query)
		if err != nil {
			t.Fatal(err)
		}
		if got := routed(n, test.host, u); got != test.want {
			t.Errorf("%s at %s: got %s, want %s", test.url, test.host, got, test.want)
		}
	}
	for target, want := range map[string]string{
		"/v2/_catalog":                 "ghcr.io",
		"/v2/_catalog?ns=quay.io":      "quay.io",
		"/v2/ghcr.io/_catalog":         "ghcr.io",
		"/quay.io/v2/_catalog":         "quay.io",
		"/v2/docker.io/_catalog?n=1":   codeNameUnknown,
		"/v2/docker.io/_catalog?ns=":   codeNameUnknown,
		"/v2/ghcr.io/_catalog?last=%7": codeNameInvalid,
	} {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			t.Fatal(err)
		}
		req, err := n.route("GET", "ghcr.mirror.lan", u)
		got := req.repo.Registry
		if err != nil {
			got = err.(*apiError).code
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", target, got, want)
		}
	}
}
