package serve

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"mirrorctl/store"
)

// suspicious is a Content that fails the test when a name gets through to it
// that no image can have.
type suspicious struct {
	*memory
	t *testing.T
}

func (c *suspicious) check(repo store.Repository, reference string) {
	if !validHost(repo.Registry) || !validPath(repo.Path) || !validTag(reference) && !validDigest(reference) {
		c.t.Errorf("the content was asked for %q %q", repo, reference)
	}
}

func (c *suspicious) Manifest(ctx context.Context, repo store.Repository, reference string) (store.Manifest, error) {
	c.check(repo, reference)
	return c.memory.Manifest(ctx, repo, reference)
}

func (c *suspicious) Blob(ctx context.Context, repo store.Repository, d digest.Digest) (io.ReadSeekCloser, int64, error) {
	c.check(repo, string(d))
	return c.memory.Blob(ctx, repo, d)
}

func (c *suspicious) Referrers(ctx context.Context, repo store.Repository, d digest.Digest) ([]v1.Descriptor, error) {
	c.check(repo, string(d))
	return c.memory.Referrers(ctx, repo, d)
}

// startHostile runs a server with testContent and returns its address.
func startHostile(t *testing.T, server *Server) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	server.Grace = time.Second
	go func() {
		defer close(done)
		if _, err := server.Run(ctx, ln); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { stop(); <-done })
	return ln.Addr().String()
}

// converse sends bytes and describes the answers: status, error code or number
// of bytes, and "closed" if the server has ended the connection.
func converse(t *testing.T, address, raw string) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	// The server may answer and close before it has read all.
	go func() { _, _ = io.WriteString(conn, raw) }()
	method, _, _ := strings.Cut(raw, " ")
	var answers []string
	for reader := bufio.NewReader(conn); ; {
		if len(answers) > 0 {
			_ = conn.SetReadDeadline(time.Now().Add(150 * time.Millisecond))
		}
		res, err := http.ReadResponse(reader, &http.Request{Method: method})
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			break
		}
		if err != nil {
			answers = append(answers, "closed")
			break
		}
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Errorf("%.80q: %v", raw, err)
		}
		answers = append(answers, describe(t, raw, res, body))
	}
	return strings.Join(answers, ", ")
}

func describe(t *testing.T, raw string, res *http.Response, body []byte) string {
	t.Helper()
	for name := range res.Header {
		if strings.Contains(strings.ToLower(name), "evil") {
			t.Errorf("%.80q: header %s", raw, name)
		}
	}
	var failed struct {
		Errors []struct{ Code, Message string }
	}
	switch {
	case json.Unmarshal(body, &failed) == nil && len(failed.Errors) == 1:
		return fmt.Sprintf("%d %s", res.StatusCode, failed.Errors[0].Code)
	case res.StatusCode == 206 && strings.HasPrefix(res.Header.Get("Content-Type"), "multipart/"):
		return "206 multipart"
	case res.StatusCode == 206:
		return "206 " + res.Header.Get("Content-Range")
	case res.StatusCode >= 300:
		return fmt.Sprint(res.StatusCode)
	}
	return fmt.Sprintf("%d %d bytes", res.StatusCode, len(body))
}

// TestHostile sends what no client sends, over a real connection. Each has its
// exact answer, and after all of it the server still works. Where the answer has
// no error code, it is net/http's own, before any code of this module.
func TestHostile(t *testing.T) {
	content, _, layer := testContent()
	watched := &suspicious{memory: content, t: t}
	address := startHostile(t, &Server{Handler: newHandler(t, watched, Options{Aliases: testAliases, Hosts: testHosts})})
	absent := digest.FromString("absent").String()
	blob := "/v2/debian/blobs/" + layer.String()
	dots := strings.Repeat("../", 8)
	get := func(target string) string { return "GET " + target + " HTTP/1.1\r\nHost: x\r\n\r\n" }
	with := func(target string, headers ...string) string {
		return "GET " + target + " HTTP/1.1\r\nHost: x\r\n" + strings.Join(headers, "\r\n") + "\r\n\r\n"
	}
	type row struct{ what, raw, want string }
	rows := []row{
		{"path: dots", get("/v2/" + dots + "etc/passwd"), "404 NAME_UNKNOWN"},
		{"path: dots as a name", get("/v2/" + dots + "etc/manifests/passwd"), "400 NAME_INVALID"},
		{"path: dots, encoded", get("/v2/%2e%2e/%2e%2e/etc/manifests/passwd"), "400 NAME_INVALID"},
		{"path: dots, encoded twice", get("/v2/%252e%252e/etc/manifests/passwd"), "400 NAME_INVALID"},
		{"path: slashes, encoded", get("/v2/..%2f..%2fetc/manifests/passwd"), "400 NAME_INVALID"},
		{"path: slashes, encoded twice", get("/v2/..%252f..%252fetc/manifests/passwd"), "400 NAME_INVALID"},
		{"path: backslashes", get(`/v2/..\..\etc/manifests/passwd`), "400 NAME_INVALID"},
		{"path: backslashes, encoded", get("/v2/..%5c..%5cetc/manifests/passwd"), "400 NAME_INVALID"},
		{"path: dots before /v2", get("/../../etc/passwd"), "404"},
		{"path: dots after a registry", get("/v2/ghcr.io/../debian/manifests/bookworm"), "400 NAME_INVALID"},
		{"path: a file's URL", get("file:///etc/passwd"), "404"},
		{"path: the index of the store", get("/v2/index.db"), "404 NAME_UNKNOWN"},
		{"path: many slashes", get("/" + strings.Repeat("/", 5000) + "v2/"), "404"},
		{"path: many slashes in a name", get("/v2/a" + strings.Repeat("/", 5000) + "b/manifests/1"), "400 NAME_INVALID"},
		{"path: a very long name", get("/v2/" + strings.Repeat("a", 30_000) + "/manifests/1"), "400 NAME_INVALID"},
		{"path: a name one too long", get("/v2/a/" + strings.Repeat("a", 254) + "/manifests/1"), "400 NAME_INVALID"},
		{"path: very many components", get("/v2/" + strings.Repeat("a/", 15_000) + "manifests/1"), "400 NAME_INVALID"},
		{"path: NUL", get("/v2/a%00b/manifests/1"), "400 NAME_INVALID"},
		{"path: a raw NUL", get("/v2/a\x00b/manifests/1"), "400, closed"},
		{"path: a raw control character", get("/v2/a\x07b/manifests/1"), "400, closed"},
		{"path: not UTF-8", get("/v2/a%ff%fe/manifests/1"), "400 NAME_INVALID"},
		{"path: not UTF-8, raw", get("/v2/a\xff\xfe/manifests/1"), "400 NAME_INVALID"},
		{"path: an overlong dot", get("/v2/%c0%ae%c0%ae/manifests/1"), "400 NAME_INVALID"},
		{"path: letters that look alike", get("/v2/d%d0%b5bian/manifests/bookworm"), "400 NAME_INVALID"},
		{"path: a broken escape", get("/v2/%zz/manifests/1"), "400, closed"},
		{"path: a fragment", get("/v2/debian/manifests/bookworm#/../x"), "404 NAME_UNKNOWN"},
		{"path: a matrix parameter", get("/v2/debian;x=1/manifests/bookworm"), "400 NAME_INVALID"},

		{"tag: dots", get("/v2/debian/manifests/.."), "404 MANIFEST_UNKNOWN"},
		{"tag: line ends", get("/v2/debian/manifests/1%0d%0aX-Evil:%20x"), "400 DIGEST_INVALID"},
		{"tag: line ends, without a colon", get("/v2/debian/manifests/1%0d%0aevil"), "404 MANIFEST_UNKNOWN"},
		{"tag: very long", get("/v2/debian/manifests/" + strings.Repeat("t", 30_000)), "404 MANIFEST_UNKNOWN"},
		{"tag: SQL", get("/v2/debian/manifests/'%20OR%20'1'='1"), "404 MANIFEST_UNKNOWN"},
		{"tag: markup", get("/v2/debian/manifests/%3Cscript%3E"), "404 MANIFEST_UNKNOWN"},

		{"digest: dots", get("/v2/debian/blobs/sha256:" + dots + "etc/passwd"), "404 NAME_UNKNOWN"},
		{"digest: dots, encoded", get("/v2/debian/blobs/sha256:..%2f..%2fetc%2fpasswd"), "400 NAME_INVALID"},
		{"digest: too short", get("/v2/debian/blobs/sha256:abc"), "400 DIGEST_INVALID"},
		{"digest: empty", get("/v2/debian/blobs/sha256:"), "400 DIGEST_INVALID"},
		{"digest: too long", get("/v2/debian/blobs/" + absent + "0"), "400 DIGEST_INVALID"},
		{"digest: upper case", get("/v2/debian/blobs/sha256:" + strings.ToUpper(absent[7:])), "400 DIGEST_INVALID"},
		{"digest: another length", get("/v2/debian/blobs/sha512:" + absent[7:]), "400 DIGEST_INVALID"},
		{"digest: another algorithm", get("/v2/debian/blobs/md5:d41d8cd98f00b204e9800998ecf8427e"), "400 DIGEST_INVALID"},
		{"digest: none", get("/v2/debian/blobs/"), "400 DIGEST_INVALID"},
		{"digest: a NUL behind", get(blob + "%00"), "400 DIGEST_INVALID"},
		{"digest: a line end behind", get(blob + "%0a"), "400 DIGEST_INVALID"},
		{"digest: of a referrer", get("/v2/debian/referrers/latest"), "400 DIGEST_INVALID"},

		{"ns: metadata service", get("/v2/a/manifests/1?ns=169.254.169.254"), "404 MANIFEST_UNKNOWN"},
		{"ns: localhost", get("/v2/a/manifests/1?ns=localhost"), "404 MANIFEST_UNKNOWN"},
		{"ns: a URL", get("/v2/a/manifests/1?ns=http://evil.example"), "400 NAME_INVALID"},
		{"ns: a user", get("/v2/a/manifests/1?ns=ghcr.io%40evil.example"), "400 NAME_INVALID"},
		{"ns: dots", get("/v2/a/manifests/1?ns=../../etc"), "400 NAME_INVALID"},
		{"ns: a path", get("/v2/a/manifests/1?ns=ghcr.io/a"), "400 NAME_INVALID"},
		{"ns: line ends", get("/v2/a/manifests/1?ns=ghcr.io%0d%0aX-Evil:x"), "400 NAME_INVALID"},
		{"ns: NUL", get("/v2/a/manifests/1?ns=ghcr.io%00"), "400 NAME_INVALID"},
		{"ns: a broken escape", get("/v2/a/manifests/1?ns=%zz"), "400 NAME_INVALID"},
		{"ns: not UTF-8", get("/v2/a/manifests/1?ns=%ff.io"), "400 NAME_INVALID"},
		{"ns: very long", get("/v2/a/manifests/1?ns=" + strings.Repeat("a", 30_000) + ".io"), "400 NAME_INVALID"},
		{"ns: twice, the first counts", get("/v2/library/debian/manifests/bookworm?ns=docker.io&ns=evil.example"), "200 45 bytes"},

		{"list: a negative n", get("/v2/debian/tags/list?n=-1"), "400 UNSUPPORTED"},
		{"list: a huge n", get("/v2/debian/tags/list?n=99999999999999999999"), "400 UNSUPPORTED"},
		{"list: the largest n", get("/v2/debian/tags/list?n=2147483647"), "200 37 bytes"},
		{"list: n in hexadecimal", get("/v2/debian/tags/list?n=0x10"), "400 UNSUPPORTED"},
		{"list: last with line ends", get("/v2/debian/tags/list?n=1&last=%0d%0aX-Evil:x"), "200 37 bytes"},
		{"list: last not UTF-8", get("/v2/_catalog?last=%ff"), "200 19 bytes"},

		{"URL: another host", get("http://evil.example/v2/debian/manifests/bookworm"), "200 45 bytes"}, // the path counts
		{"URL: the metadata service", get("http://169.254.169.254/latest/meta-data/"), "404"},
		{"URL: https", get("https://evil.example/v2/"), "200 2 bytes"},
		{"URL: two slashes", get("//evil.example/v2/"), "404"},
		{"CONNECT", "CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n", "404"},
		{"host: none", "GET /v2/ HTTP/1.1\r\n\r\n", "400, closed"},
		{"host: two", with("/v2/", "Host: y"), "400, closed"},
		{"host: a line", "GET /v2/ HTTP/1.1\r\nHost: a b\r\n\r\n", "400, closed"},
		{"host: a path", "GET /v2/ HTTP/1.1\r\nHost: ../../x\r\n\r\n", "400, closed"},
		{"host: very long", "GET /v2/ HTTP/1.1\r\nHost: " + strings.Repeat("a", 30_000) + "\r\n\r\n", "200 2 bytes"},
		{"OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "200 0 bytes"},
		{"HTTP/2 without TLS", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "404, closed"},
		{"HTTP/0.9", "GET /v2/\r\n\r\n", "400, closed"},
		{"HTTP/3.0 as text", "GET /v2/ HTTP/3.0\r\nHost: x\r\n\r\n", "505, closed"},
		{"TLS to a plain port", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "400, closed"},

		{"header: too large", with("/v2/", "X: "+strings.Repeat("y", 80<<10)), "431, closed"},
		{"header: too many", with("/v2/", strings.Repeat("X: y\r\n", 20_000)+"Y: z"), "431, closed"},
		{"header: a request line too long", get("/v2/" + strings.Repeat("a", 80<<10)), "431, closed"},
		{"header: a space before the colon", with("/v2/", "X : y"), "400, closed"},
		{"header: a NUL", with("/v2/", "X: a\x00b"), "400, closed"},
		{"header: folded", with("/v2/", "X: a", " b"), "200 2 bytes"},
		{"header: Accept that is no type", with("/v2/library/debian/manifests/bookworm", "Accept: \xff\xfe;;;q=x"), "200 45 bytes"},
		{"header: forwarded", with("/v2/library/debian/manifests/bookworm", "X-Forwarded-Host: ghcr.mirror.lan", "X-Original-URL: /x", "X-HTTP-Method-Override: DELETE"), "200 45 bytes"},

		{"range: overlapping", with(blob, "Range: bytes=0-9,5-14"), "206 multipart"},
		{"range: thousands", with(blob, "Range: bytes="+strings.Repeat("0-,", 5000)+"0-"), "200 20 bytes"},
		{"range: beyond the end", with(blob, "Range: bytes=20-"), "416 SIZE_INVALID"},
		{"range: backwards", with(blob, "Range: bytes=9-3"), "416 SIZE_INVALID"},
		{"range: negative", with(blob, "Range: bytes=--5"), "416 SIZE_INVALID"},
		{"range: more than there is, from the end", with(blob, "Range: bytes=-999"), "206 bytes 0-19/20"},
		{"range: nothing from the end", with(blob, "Range: bytes=-0"), "416 SIZE_INVALID"},
		{"range: past 64 bits", with(blob, "Range: bytes=0-99999999999999999999"), "416 SIZE_INVALID"},
		{"range: another unit", with(blob, "Range: lines=0-9"), "200 20 bytes"},
		{"range: no range", with(blob, "Range: bytes="), "200 20 bytes"},
		{"range: If-Range of another", with(blob, "Range: bytes=0-3", `If-Range: "x"`), "200 20 bytes"},

		{"body: a GET with one", "GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", "200 2 bytes, closed"},
		{"body: a GET that promises one", "GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nh", "200 2 bytes, closed"},
		{"body: a request inside", "GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 35\r\n\r\nGET /v2/_catalog HTTP/1.1\r\nHost: x\r\n", "200 2 bytes, closed"},
		{"body: chunked, a request behind", "GET /v2/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v2/_catalog HTTP/1.1\r\nHost: x\r\n\r\n", "200 2 bytes, closed"},
		{"body: length and chunked", "POST /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v2/_catalog HTTP/1.1\r\nHost: x\r\n\r\n", "405 UNSUPPORTED, closed"},
		{"body: two lengths", "GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\nhello", "400, closed"},
		{"body: a length with a sign", "GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello", "400, closed"},
		{"body: a negative length", "GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", "400, closed"},
		{"body: two encodings", "GET /v2/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", "501, closed"},
		{"body: an unknown encoding", "GET /v2/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "501, closed"},
		{"body: a bad chunk", "GET /v2/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "200 2 bytes, closed"},
		{"body: Expect", "PUT /v2/a/manifests/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\nExpect: 100-continue\r\n\r\n", "405 UNSUPPORTED, closed"},
		{"body: an unknown Expect", with("/v2/", "Expect: everything"), "417, closed"},

		{"two requests at once", get("/v2/") + "DELETE /v2/a/manifests/1 HTTP/1.1\r\nHost: x\r\n\r\n", "200 2 bytes, 405 UNSUPPORTED"},
	}
	// Every way to write, everywhere.
	for _, method := range []string{"PUT", "POST", "PATCH", "DELETE", "TRACE", "OPTIONS", "PROPFIND", "get", "G\tET"} {
		for _, target := range []string{"/v2/", "/v2/debian/manifests/bookworm", blob, "/v2/debian/blobs/uploads/", "/v2/debian/blobs/uploads/1-2-3?digest=" + absent,
			"/v2/debian/blobs/uploads/?mount=" + absent + "&from=a", "/v2/debian/tags/list", "/v2/_catalog", "/v2/debian/referrers/" + absent, "/ghcr.io/v2/acme/tool/manifests/v1", "/v2/_mirrorctl/doctor/" + strings.Repeat("0", 32)} {
			want := "405 UNSUPPORTED"
			if method == "G\tET" {
				want = "400, closed"
			}
			rows = append(rows, row{"write: " + method, method + " " + target + " HTTP/1.1\r\nHost: x\r\n\r\n", want})
		}
	}
	// They wait for each other no longer than each waits for the end.
	got := make([]string, len(rows))
	var group sync.WaitGroup
	limit := make(chan struct{}, 16)
	for i, test := range rows {
		limit <- struct{}{}
		group.Go(func() {
			defer func() { <-limit }()
			got[i] = converse(t, address, test.raw)
		})
	}
	group.Wait()
	for i, test := range rows {
		line, _, _ := strings.Cut(test.raw, "\r\n")
		if len(line) > 90 {
			line = line[:90] + "..."
		}
		t.Logf("%-40s %-100q %s", test.what, line, got[i])
		if got[i] != test.want {
			t.Errorf("%s: %.100q: got %s, want %s", test.what, test.raw, got[i], test.want)
		}
	}
	if after := converse(t, address, get("/v2/library/debian/manifests/bookworm")); after != "200 45 bytes" {
		t.Errorf("after all that: %s", after)
	}
}

// TestTrickle holds that a client that sends its header byte by byte does not
// keep its connection, nor one that does so with the body of a GET.
func TestTrickle(t *testing.T) {
	address := startHostile(t, &Server{Handler: newHandler(t, newMemory(), Options{}), headerTimeout: 200 * time.Millisecond})
	for what, start := range map[string]string{
		"request line": "GET /v2/",
		"header":       "GET /v2/ HTTP/1.1\r\nHost: x\r\nX: ",
		"body":         "GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n",
	} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		ended := make(chan struct{})
		go func() {
			_, _ = io.WriteString(conn, start)
			for {
				select {
				case <-ended:
					return
				case <-time.After(20 * time.Millisecond):
					_, _ = conn.Write([]byte("a"))
				}
			}
		}()
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		answer, err := io.ReadAll(conn)
		close(ended)
		conn.Close()
		took := time.Since(began)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() || took > 5*time.Second {
			t.Errorf("%s: still open after %s", what, took)
		}
		line, _, _ := bytes.Cut(answer, []byte("\r\n"))
		t.Logf("%-40s cut after %s, answer %q", "slow: "+what, took.Round(10*time.Millisecond), line)
	}
}
