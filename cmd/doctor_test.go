package cmd

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"mirrorctl/cmd/client"
	"mirrorctl/serve"
	"mirrorctl/store"
)

// startMirror serves an empty store.
func startMirror(t *testing.T) string {
	t.Helper()
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	handler, err := serve.New(st, serve.Options{})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(func() {
		server.Close()
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return server.URL
}

// TestDoctorWait plays somebody who pulls what doctor names.
func TestDoctorWait(t *testing.T) {
	t.Chdir(t.TempDir())
	mirror := startMirror(t)
	read, write := io.Pipe()
	go func() {
		line, _ := bufio.NewReader(read).ReadString('\n')
		_, name, _ := strings.Cut(strings.TrimSpace(line), "within 20s: ")
		path, _, _ := strings.Cut(name, ":")
		probe := serve.Probe{Registry: "docker.io", Token: path[strings.LastIndex(path, "-")+1:]}
		for _, target := range []string{"/manifests/probe", "/blobs/" + probe.Index().String()} {
			res, err := http.Get(mirror + "/v2/" + path + target)
			if err != nil {
				t.Error(err)
				return
			}
			res.Body.Close()
		}
		_, _ = io.Copy(io.Discard, read)
	}()
	var stdout bytes.Buffer
	code := Main(t.Context(), []string{"mirrorctl", "doctor", "--mirror", mirror, "--wait", "20s"}, strings.NewReader(""), &stdout, write)
	write.Close()
	if code != 0 || !strings.Contains(stdout.String(), "ok      any client, docker.io: pulled the probe from the mirror: it saw 2 requests of Go-http-client/1.1") {
		t.Errorf("exit code %d: %s", code, &stdout)
	}
}

// TestCause gives doctor what clients say, and looks at its advice.
func TestCause(t *testing.T) {
	m := client.Mirror{Address: "mirror.lan:5000", TLS: true}
	guarded := m
	guarded.CA, guarded.Username = []byte("x"), "ci"
	plain := client.Mirror{Address: "mirror.lan:5000"}
	probe := serve.NewProbe("docker.io")
	path := "/v2/mirrorctl/doctor-" + probe.Token
	for _, test := range []struct {
		mirror      client.Mirror
		name, said  string
		seen        []serve.WatchedRequest
		cause, hint string
	}{
		{m, "podman", `(Mirrors also failed: [mirror.lan:5000/x: Get "https://mirror.lan:5000/v2/": x509: certificate signed by unknown authority])`, nil,
			"does not trust the mirror's certificate: ", "give the authority's file with --ca"},
		{guarded, "podman", `Get "https://mirror.lan:5000/v2/": x509: certificate signed by unknown authority`, nil,
			"does not trust", "run mirrorctl client podman --mirror https://mirror.lan:5000 --registry docker.io --ca FILE --username ci --write"},
		{guarded, "containerd", "x", nil, "did not ask the mirror", "--username ci --password-file FILE --write"},
		{plain, "crane", `Get "https://mirror.lan:5000/v2/": http: server gave HTTP response to HTTPS client`, nil, "speaks TLS to a mirror that speaks plain HTTP", "mirrorctl client crane"},
		{guarded, "podman", "pinging mirror.lan:5000: unauthorized: authentication required", nil, "has no login that the mirror takes: ", "podman login --username ci mirror.lan:5000"},
		{m, "crane", "mirror.lan:5000: Client sent an HTTP request to an HTTPS server", nil, "speaks plain HTTP to a mirror that speaks TLS", "mirrorctl client crane"},
		// The trouble of another host is not the mirror's.
		{plain, "crane", `Get "https://ghcr.io/v2/": x509: certificate signed by unknown authority`, nil, "did not ask the mirror", "run mirrorctl client crane"},
		{plain, "regctl", "denied", nil, "did not ask the mirror for " + probe.Name(), "run mirrorctl client regctl --mirror http://mirror.lan:5000 --registry docker.io, and do what it says"},
		{plain, "crane", "broken pipe", []serve.WatchedRequest{{Method: "GET", Path: path + "/manifests/probe", Status: 200}}, "asked the mirror, but did not finish the pull: broken pipe", "see its own log"},
		{plain, "crane", "not found", []serve.WatchedRequest{{Method: "GET", Path: "/v2/hub" + path[3:] + "/manifests/probe", Status: 404}}, "asked the mirror under a wrong name: not found", "[serve] aliases"},
	} {
		d := &doctor{mirror: test.mirror}
		cause, hint := d.cause(test.name, probe, errors.New(test.said), test.seen)
		if !strings.Contains(cause, test.cause) || !strings.Contains(hint, test.hint) {
			t.Errorf("%s: %s\ngot  %s\n     %s\nwant %s\n     %s", test.name, test.said, cause, hint, test.cause, test.hint)
		}
	}
}

// TestJudge looks at pulls that came to an end.
func TestJudge(t *testing.T) {
	d := &doctor{mirror: client.Mirror{Address: "mirror.lan:5000"}}
	probe := serve.NewProbe("docker.io")
	seen := []serve.WatchedRequest{{Method: "GET", Path: "/v2/x", Status: 200, Agent: "x/1%20y"}}
	for _, test := range []struct {
		proof string
		seen  []serve.WatchedRequest
		ok    bool
		cause string
	}{
		{probe.Content() + "\n", seen, true, "uses the mirror: it saw 1 request of x/1"},
		{"@" + probe.Index().String(), seen, true, "uses the mirror"},
		{probe.Content(), nil, false, "another mirrorctl answered"},
		{"", seen, false, "pulled something else"},
		{"quay.io/mirrorctl/doctor-" + probe.Token, seen, false, "for one of another registry"},
		{serve.Probe{Registry: "ghcr.io", Token: probe.Token}.Index().String(), seen, false, "pulled something else"},
	} {
		got := d.judge("docker", probe, test.proof, nil, test.seen)
		if got.OK != test.ok || !strings.Contains(got.Cause, test.cause) || !got.OK && got.Hint == "" {
			t.Errorf("%q: got %+v, want %s", test.proof, got, test.cause)
		}
	}
}

func TestHasLines(t *testing.T) {
	for _, test := range []struct {
		text, lines string
		want        bool
	}{
		{"a\nb\nc\n", "c\n\na\n", true},
		{"a\nb", "  b\n", true},
		{"a\n", "b\n", false},
		{"", "", true},
	} {
		if got := hasLines(test.text, test.lines); got != test.want {
			t.Errorf("%q in %q: %v", test.lines, test.text, got)
		}
	}
}

func TestOtherPorts(t *testing.T) {
	for _, test := range []struct{ text, address, want string }{
		{`{"registry-mirrors":["http://mirror.lan:5999"]}`, "mirror.lan:5000", "mirror.lan:5999"},
		{`["http://mirror.lan:5000", "http://mirror.lan:5999"]`, "mirror.lan:5000", ""},
		{`["http://mirror_lan:5999"]`, "mirror.lan:5000", ""},
		{`x mirror.lan:1 mirror.lan:2 mirror.lan:1`, "mirror.lan:5000", "mirror.lan:1 mirror.lan:2"},
		{`mirror.lan:5999`, "mirror.lan", ""},
	} {
		if got := strings.Join(otherPorts(test.text, test.address), " "); got != test.want {
			t.Errorf("%s: got %q, want %q", test.text, got, test.want)
		}
	}
}

func TestLastWords(t *testing.T) {
	for text, want := range map[string]string{
		"":                               "",
		"one\ntwo\n":                     "two",
		"\x1b[31mError:\x1b[0m no\x00pe": "no pe",
		`time="2026-11-21T13:13:24Z" level=fatal msg="Get \"https://x/\": no"`: `Get "https://x/": no`,
		"Error response from daemon: denied":                                   "denied",
		strings.Repeat("x", 1000):                                              strings.Repeat("x", maxWords) + "...",
	} {
		if got := lastWords(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestExamNames(t *testing.T) {
	known := map[string]bool{}
	for _, c := range client.Clients() {
		known[c.Name] = true
	}
	for name, exam := range exams {
		if !known[name] || len(exam.alive) < 2 || exam.pull == nil {
			t.Errorf("%s: %+v", name, exam)
		}
	}
}
