package serve

import (
	"math/rand/v2"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

var testAliases = map[string]string{
	"ghcr":      "ghcr.io",
	"dockerhub": "index.docker.io",
	"local":     "LocalHost:5000",
	"quay":      "quay.io",
}

func testNames(t testing.TB, fallback string) *names {
	t.Helper()
	n, err := newNames(Options{DefaultRegistry: fallback, Aliases: testAliases, Hosts: testHosts})
	if err != nil {
		t.Fatal(err)
	}
	return &n
}

func TestNames(t *testing.T) {
	long := strings.Repeat("a", maxNameLength-len("library/"))
	tests := []struct {
		url  string // ending in the repository; /manifests/1 is put after its path
		want string // registry and path, or the code of the error
	}{
		// The default registry.
		{"/v2/debian", "docker.io library/debian"},
		{"/v2/library/debian", "docker.io library/debian"},
		{"/v2/acme/tool", "docker.io acme/tool"},
		{"/v2/acme/tool/deep/er", "docker.io acme/tool/deep/er"},
		{"/v2/a", "docker.io library/a"},
		{"/v2/ghcr.io", "docker.io library/ghcr.io"}, // nothing follows: not a registry
		{"/v2/ghcr", "docker.io library/ghcr"},
		{"/v2/localhost", "docker.io library/localhost"},
		{"/v2/a__b/c--d/e.f/g_h/i---j", "docker.io a__b/c--d/e.f/g_h/i---j"},

		// Components that are words of the API.
		{"/v2/library/manifests", "docker.io library/manifests"},
		{"/v2/manifests", "docker.io library/manifests"},
		{"/v2/blobs/uploads", "docker.io blobs/uploads"},
		{"/v2/a/tags/list", "docker.io a/tags/list"},
		{"/v2/v2", "docker.io library/v2"},
		{"/v2/v2/v2", "docker.io v2/v2"},
		{"/v2/referrers/manifests/latest", "docker.io referrers/manifests/latest"},
		{"/v2/ghcr.io/v2/manifests", "ghcr.io v2/manifests"},

		// A prefix after /v2.
		{"/v2/docker.io/library/debian", "docker.io library/debian"},
		{"/v2/docker.io/debian", "docker.io library/debian"},
		{"/v2/index.docker.io/library/debian", "docker.io library/debian"},
		{"/v2/registry-1.docker.io/debian", "docker.io library/debian"},
		{"/v2/ghcr.io/acme/tool", "ghcr.io acme/tool"},
		{"/v2/ghcr.io/tool", "ghcr.io tool"},
		{"/v2/GHCR.io/acme/tool", "ghcr.io acme/tool"},
		{"/v2/Docker.IO/debian", "docker.io library/debian"},
		{"/v2/localhost/tool", "localhost tool"},
		{"/v2/LOCALHOST/tool", "localhost tool"},
		{"/v2/localhost:5000/acme/tool", "localhost:5000 acme/tool"},
		{"/v2/registry:5000/tool", "registry:5000 tool"},
		{"/v2/10.0.0.1:5000/tool", "10.0.0.1:5000 tool"},
		{"/v2/[::1]:5000/tool", "[::1]:5000 tool"},
		{"/v2/[2001:DB8::1]/tool", "[2001:db8::1] tool"},
		{"/v2/localhost%3A5000/tool", "localhost:5000 tool"},
		{"/v2/ghcr.io/docker.io/library/debian", "ghcr.io docker.io/library/debian"},
		{"/v2/registry.k8s.io/pause", "registry.k8s.io pause"},

		// An alias.
		{"/v2/ghcr/acme/tool", "ghcr.io acme/tool"},
		{"/v2/dockerhub/debian", "docker.io library/debian"},
		{"/v2/dockerhub/library/debian", "docker.io library/debian"},
		{"/v2/local/tool", "localhost:5000 tool"},
		{"/v2/GHCR/acme/tool", codeNameInvalid}, // aliases are words of a path, not hosts
		{"/v2/ghcrx/tool", "docker.io ghcrx/tool"},

		// ns.
		{"/v2/library/debian?ns=docker.io", "docker.io library/debian"},
		{"/v2/debian?ns=docker.io", "docker.io library/debian"},
		{"/v2/library/debian?ns=registry-1.docker.io", "docker.io library/debian"},
		{"/v2/library/debian?ns=index.docker.io", "docker.io library/debian"},
		{"/v2/acme/tool?ns=ghcr.io", "ghcr.io acme/tool"},
		{"/v2/acme/tool?ns=GHCR.IO", "ghcr.io acme/tool"},
		{"/v2/tool?ns=ghcr.io", "ghcr.io tool"},
		{"/v2/tool?ns=localhost%3A5000", "localhost:5000 tool"},
		{"/v2/tool?x=1&ns=quay.io&y", "quay.io tool"},
		{"/v2/tool?ns=quay", "quay.io tool"},
		{"/v2/acme/tool?ns=", "docker.io acme/tool"},
		{"/v2/acme/tool?ns", "docker.io acme/tool"},
		{"/v2/acme/tool?nsx=ghcr.io", "docker.io acme/tool"},
		{"/v2/acme/tool?ns=ghcr.io&ns=quay.io", "ghcr.io acme/tool"},

		// ns and a prefix that says the same.
		{"/v2/docker.io/library/debian?ns=docker.io", "docker.io library/debian"},
		{"/v2/docker.io/debian?ns=docker.io", "docker.io library/debian"},
		{"/v2/docker.io/library/debian?ns=registry-1.docker.io", "docker.io library/debian"},
		{"/v2/registry-1.docker.io/library/debian?ns=docker.io", "docker.io library/debian"},
		{"/v2/ghcr.io/acme/tool?ns=ghcr.io", "ghcr.io acme/tool"},
		{"/v2/GHCR.io/acme/tool?ns=ghcr.io", "ghcr.io acme/tool"},
		{"/v2/ghcr/acme/tool?ns=ghcr.io", "ghcr.io acme/tool"},
		{"/v2/dockerhub/library/debian?ns=docker.io", "docker.io library/debian"},
		{"/v2/ghcr.io/ghcr.io/tool?ns=ghcr.io", "ghcr.io ghcr.io/tool"}, // one prefix only

		// ns and a prefix that says another: ns, and the path whole.
		{"/v2/docker.io/library/debian?ns=ghcr.io", "ghcr.io docker.io/library/debian"},
		{"/v2/ghcr/acme/tool?ns=quay.io", "quay.io ghcr/acme/tool"},
		{"/v2/quay.io/a/b?ns=registry.example:443", "registry.example:443 quay.io/a/b"},
		{"/v2/localhost:5000/tool?ns=ghcr.io", codeNameInvalid},
		{"/v2/ghcr.io/tool?ns=docker.io", "docker.io ghcr.io/tool"},

		// A registry before /v2.
		{"/ghcr.io/v2/acme/tool", "ghcr.io acme/tool"},
		{"/ghcr/v2/acme/tool", "ghcr.io acme/tool"},
		{"/docker.io/v2/debian", "docker.io library/debian"},
		{"/Index.Docker.io/v2/debian", "docker.io library/debian"},
		{"/localhost:5000/v2/tool", "localhost:5000 tool"},
		{"/docker.io/v2/library/debian?ns=docker.io", "docker.io library/debian"},
		{"/ghcr.io/v2/ghcr.io/acme/tool", "ghcr.io acme/tool"},
		{"/ghcr.io/v2/docker.io/debian", "ghcr.io docker.io/debian"},
		{"/ghcr.io/v2/acme/tool?ns=quay.io", "quay.io acme/tool"},
		{"/unknown/v2/acme/tool", "outside"},
		{"/a/ghcr.io/v2/acme/tool", "outside"},
		{"/ghcr.io//v2/acme/tool", "outside"},
		{"/ghcr.io/v2x/acme/tool", "outside"},

		// Lengths.
		{"/v2/" + long, "docker.io library/" + long},
		{"/v2/" + long + "a", codeNameInvalid},
		{"/v2/ghcr.io/library/" + long, "ghcr.io library/" + long},
		{"/v2/ghcr.io/library/" + long + "a", codeNameInvalid},
		{"/v2/a/b?ns=" + strings.Repeat("a", 252) + ".io", "" + strings.Repeat("a", 252) + ".io a/b"},
		{"/v2/a/b?ns=" + strings.Repeat("a", 253) + ".io", codeNameInvalid},
		{"/v2/" + strings.Repeat("a/", 30_000) + "a", codeNameInvalid},

		// Hostile or mistaken.
		{"/v2/Debian", codeNameInvalid},
		{"/v2/../etc/passwd", codeNameInvalid},
		{"/v2/a/../b", codeNameInvalid},
		{"/v2/a/./b", codeNameInvalid},
		{"/v2/%2e%2e/b", codeNameInvalid},
		{"/v2//a", codeNameInvalid},
		{"/v2/a//b", codeNameInvalid},
		{"/v2/a/", codeNameInvalid},
		{"/v2/library%2Fdebian", codeNameInvalid},
		{"/v2/ghcr.io%2facme/tool", codeNameInvalid},
		{"/v2/a%00b", codeNameInvalid},
		{"/v2/a%0d%0aX-Evil:%201/b", codeNameInvalid},
		{"/v2/a%5Cb", codeNameInvalid},
		{"/v2/a%20b", codeNameInvalid},
		{"/v2/%C3%A4/b", codeNameInvalid},
		{"/v2/a_-b", codeNameInvalid},
		{"/v2/a___b", codeNameInvalid},
		{"/v2/a..b", codeNameInvalid},
		{"/v2/-a", codeNameInvalid},
		{"/v2/a-", codeNameInvalid},
		{"/v2/a./b", codeNameInvalid},
		{"/v2/:5000/a", codeNameInvalid},
		{"/v2/host:/a", codeNameInvalid},
		{"/v2/host:5x/a", codeNameInvalid},
		{"/v2/-host.io/a", codeNameInvalid},
		{"/v2/[::1/a", codeNameInvalid},
		{"/v2/user@ghcr.io/a", codeNameInvalid},
		{"/v2/http:/ghcr.io/a", codeNameInvalid},
		{"/v2/a/b?ns=ghcr.io%2Fx", codeNameInvalid},
		{"/v2/a/b?ns=http://ghcr.io", codeNameInvalid},
		{"/v2/a/b?ns=..", codeNameInvalid},
		{"/v2/a/b?ns=ghcr.io%00", codeNameInvalid},
		{"/v2/a/b?ns=%zz", codeNameInvalid},
		{"/v2/a/b?ns=word", codeNameInvalid},
		{"/v2/a/b?ns=+ghcr.io", codeNameInvalid},
	}
	if len(tests) < 60 {
		t.Fatalf("%d rows", len(tests))
	}
	n := testNames(t, "")
	for _, test := range tests {
		path, query, _ := strings.Cut(test.url, "?")
		u, err := url.ParseRequestURI(path + "/manifests/1?" + query)
		if err != nil {
			t.Errorf("%s: %v", test.url, err)
			continue
		}
		if got := routed(n, "mirror.lan:5000", u); got != test.want {
			t.Errorf("%.100s: got %.100s, want %.100s", test.url, got, test.want)
		}
	}
}

// routed returns the repository that a URL means, or why there is none.
func routed(n *names, host string, u *url.URL) string {
	req, err := n.route("GET", host, u)
	switch {
	case err != nil:
		return err.(*apiError).code
	case req.kind == kindOutside:
		return "outside"
	}
	return req.repo.Registry + " " + req.repo.Path
}

func TestNamesOtherDefault(t *testing.T) {
	n := testNames(t, "Registry.Example:5000")
	for target, want := range map[string]string{
		"/v2/tool/manifests/1":                      "registry.example:5000 tool",
		"/v2/acme/tool/manifests/1":                 "registry.example:5000 acme/tool",
		"/v2/docker.io/tool/manifests/1":            "docker.io library/tool",
		"/v2/tool/manifests/1?ns=docker.io":         "docker.io library/tool",
		"/v2/registry.example:5000/tool/tags/list":  "registry.example:5000 tool",
		"/docker.io/v2/tool/manifests/1":            "docker.io library/tool",
		"/v2/library/tool/manifests/1?ns=localhost": "localhost library/tool",
	} {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			t.Fatal(err)
		}
		if got := routed(n, "mirror.lan:5000", u); got != want {
			t.Errorf("%s: got %s, want %s", target, got, want)
		}
	}
}

func TestBadOptions(t *testing.T) {
	for _, test := range []struct {
		opts Options
		want string
	}{
		{Options{DefaultRegistry: "word"}, `default registry "word"`},
		{Options{DefaultRegistry: "http://ghcr.io"}, `default registry "http://ghcr.io"`},
		{Options{Aliases: map[string]string{"a.b": "ghcr.io"}}, `alias "a.b"`},
		{Options{Aliases: map[string]string{"a/b": "ghcr.io"}}, `alias "a/b"`},
		{Options{Aliases: map[string]string{"": "ghcr.io"}}, `alias ""`},
		{Options{Aliases: map[string]string{"GHCR": "ghcr.io"}}, `alias "GHCR"`},
		{Options{Aliases: map[string]string{"localhost": "ghcr.io"}}, `alias "localhost"`},
		{Options{Aliases: map[string]string{"v2": "ghcr.io"}}, `alias "v2"`},
		{Options{Aliases: map[string]string{"library": "ghcr.io"}}, `alias "library"`},
		{Options{Aliases: map[string]string{"ghcr": "github"}}, `"github" is not`},
		{Options{Hosts: map[string]string{"": "ghcr.io"}}, `host ""`},
		{Options{Hosts: map[string]string{"a.lan:5000": "ghcr.io"}}, `host "a.lan:5000": must be a name without a port`},
		{Options{Hosts: map[string]string{"http://a.lan": "ghcr.io"}}, `host "http://a.lan"`},
		{Options{Hosts: map[string]string{"a/b": "ghcr.io"}}, `host "a/b"`},
		{Options{Hosts: map[string]string{"*.lan": "ghcr.io"}}, `host "*.lan"`},
		{Options{Hosts: map[string]string{"Docker.io": "ghcr.io"}}, `host "Docker.io": is Docker Hub's`},
		{Options{Hosts: map[string]string{"a.lan": "github"}}, `host "a.lan": "github" is not`},
		{Options{Hosts: map[string]string{"a.lan": "ghcr.io", "A.lan": "quay.io"}}, `host "a.lan" means both`},
	} {
		_, err := New(newMemory(), test.opts)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: got %v, want %s", test.opts, err, test.want)
		}
	}
}

// TestGrammar compares the scanners with the regular expressions of the field,
// over random strings of the characters that matter.
func TestGrammar(t *testing.T) {
	anchored := func(s string) *regexp.Regexp { return regexp.MustCompile(`^(?:` + s + `)$`) }
	path := anchored(`[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*`)
	tag := anchored(reference.TagRegexp.String())
	host := anchored(reference.DomainRegexp.String())
	const alphabet = "ab9A._-/:[]"
	random := rand.New(rand.NewPCG(1, 2))
	valid := 0
	for range 300_000 {
		b := make([]byte, random.IntN(9))
		for i := range b {
			b[i] = alphabet[random.IntN(len(alphabet))]
		}
		s := string(b)
		for _, check := range []struct {
			what      string
			got, want bool
		}{
			{"path", validPath(s), path.MatchString(s)},
			{"tag", validTag(s), tag.MatchString(s)},
			{"host", validHost(s), host.MatchString(s)},
		} {
			if check.got != check.want {
				t.Fatalf("%s %q: got %v, want %v", check.what, s, check.got, check.want)
			}
			if check.want {
				valid++
			}
		}
	}
	if valid < 10_000 {
		t.Errorf("only %d valid strings", valid)
	}
}

func TestDigestGrammar(t *testing.T) {
	sha256, sha512 := digest.SHA256.FromString("x").String(), digest.SHA512.FromString("x").String()
	for s, want := range map[string]bool{
		sha256:                                  true,
		sha512:                                  true,
		"":                                      false,
		"sha256":                                false,
		"sha256:":                               false,
		sha256[:70]:                             false,
		sha256 + "0":                            false,
		strings.ToUpper(sha256):                 false,
		"sha256:" + strings.ToUpper(sha256[7:]): false,
		"sha256:" + strings.Repeat("g", 64):     false,
		"sha512:" + sha256[7:]:                  false,
		"sha256:" + sha512[7:]:                  false,
		"md5:d41d8cd98f00b204e9800998ecf8427e":  false,
		digest.SHA384.FromString("x").String():  false, // the store cannot keep it
		"sha256:" + sha256[7:69] + "/.":         false,
		" " + sha256:                            false,
	} {
		if got := validDigest(s); got != want {
			t.Errorf("%q: got %v, want %v", s, got, want)
		}
		if want && digest.Digest(s).Validate() != nil {
			t.Errorf("%q: go-digest does not know it", s)
		}
	}
}

func TestBehind(t *testing.T) {
	tests := []struct{ host, path, want string }{
		{"mirror.lan:5000", "ubuntu", "docker.io/library/ubuntu"},
		{"mirror.lan:5000", "acme/tool", "docker.io/acme/tool"},
		{"mirror.lan:5000", "ghcr.io/owner/app", "ghcr.io/owner/app"},
		{"mirror.lan:5000", "ghcr/owner/app", "ghcr.io/owner/app"},
		{"mirror.lan:5000", "dockerhub/alpine", "docker.io/library/alpine"},
		{"mirror.lan:5000", "other/owner/app", "docker.io/other/owner/app"},
		{"mirror.lan:5000", "ghcr.io/Bad", ""},
		{"ghcr.mirror.lan:5000", "owner/app", "ghcr.io/owner/app"},
		{"docker.mirror.lan", "ubuntu", "docker.io/library/ubuntu"},
	}
	for _, tt := range tests {
		repo, ok, err := Options{Aliases: testAliases, Hosts: testHosts}.Behind(tt.host, tt.path)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if ok {
			got = repo.Registry + "/" + repo.Path
		}
		if got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.path, got, tt.want)
		}
	}
	if _, _, err := (Options{DefaultRegistry: "x"}).Behind("mirror.lan", "a"); err == nil {
		t.Error("no error for a bad default registry")
	}
}
