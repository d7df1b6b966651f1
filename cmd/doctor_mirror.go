package cmd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"mirrorctl/serve"
)

// httpDoer is an *http.Client.
type httpDoer interface {
	Do(*http.Request) (*http.Response, error)
}

// watchClient asks a mirror directly: proxies of the environment and redirects
// are not the way of the clients that are examined.
func watchClient(ca []byte) *http.Client {
	transport := &http.Transport{TLSHandshakeTimeout: 10 * time.Second}
	if ca != nil {
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(ca)
		transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	return &http.Client{
		Transport: transport, Timeout: 20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (d *doctor) mirrorURL() string {
	if d.mirror.TLS {
		return "https://" + d.mirror.Address
	}
	return "http://" + d.mirror.Address
}

// errNotMirrorctl is another answer than that of a mirrorctl.
type errNotMirrorctl struct {
	status int
	server string
}

func (e *errNotMirrorctl) Error() string {
	server := ""
	if e.server != "" {
		server = fmt.Sprintf(" (its Server header is %q)", e.server)
	}
	return fmt.Sprintf("what answers there with %d %s is no mirrorctl serve, or one that is older than doctor%s", e.status, http.StatusText(e.status), server)
}

// watch asks the mirror what it has seen of a probe; the first time makes it
// take notice.
func (d *doctor) watch(ctx context.Context, probe serve.Probe) (serve.Watched, error) {
	var seen serve.Watched
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.mirrorURL()+probe.WatchPath(), nil)
	if err != nil {
		return seen, err
	}
	req.Header.Set("User-Agent", "mirrorctl/"+version())
	if d.mirror.Username != "" {
		req.SetBasicAuth(d.mirror.Username, d.mirror.Password)
	}
	res, err := d.http.Do(req)
	if err != nil {
		return seen, fmt.Errorf("%s: %w", d.mirrorURL(), innermost(err))
	}
	defer res.Body.Close()
	err = json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&seen)
	if err != nil || res.StatusCode != http.StatusOK || seen.Doctor == 0 {
		return seen, fmt.Errorf("%s: %w", d.mirrorURL(), &errNotMirrorctl{res.StatusCode, res.Header.Get("Server")})
	}
	return seen, nil
}

// innermost drops what says the URL once more.
func innermost(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return fmt.Errorf("%s: %w", op.Op, op.Err)
	}
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		var verify *tls.CertificateVerificationError
		if err = inner; errors.As(err, &verify) {
			return verify.Err
		}
	}
	return err
}

// examineMirror makes sure that there is a mirror before a client is blamed.
func (d *doctor) examineMirror(ctx context.Context) (ok bool, err error) {
	_, err = d.watch(ctx, serve.NewProbe("docker.io"))
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	one := diagnosis{Client: "mirror", OK: true, Cause: d.mirrorURL() + " answers, and is mirrorctl serve"}
	if err != nil {
		one = diagnosis{Client: "mirror", Cause: err.Error(), Hint: d.mirrorHint(err)}
	}
	return one.OK, d.report(one)
}

func (d *doctor) mirrorHint(err error) string {
	var unknown x509.UnknownAuthorityError
	var wrongName x509.HostnameError
	var record tls.RecordHeaderError
	var other *errNotMirrorctl
	var lookup *net.DNSError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "is mirrorctl serve running, and does it listen there? without --listen it listens on " + defaultListen
	case errors.As(err, &lookup):
		return "this name leads nowhere from here: give another address with --mirror"
	case errors.As(err, &unknown) && d.mirror.CA == nil:
		return "give the PEM file of its authority with --ca"
	case errors.As(err, &unknown):
		return "its certificate is not from the authority in the file given with --ca"
	case errors.As(err, &wrongName):
		return "its certificate is for another name: write that name in --mirror"
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return "it speaks plain HTTP: --mirror http://" + d.mirror.Address
	case errors.As(err, &other) && other.status == http.StatusUnauthorized && d.mirror.Username == "":
		return "it wants a login: --username and --password-file"
	case errors.As(err, &other) && other.status == http.StatusUnauthorized:
		return "it does not take this login"
	case errors.As(err, &other) && other.status == http.StatusBadRequest && !d.mirror.TLS:
		return "it may speak TLS: --mirror https://" + d.mirror.Address
	case errors.As(err, &other):
		return "give the address of mirrorctl serve with --mirror; what stands before it has to hand on all below /v2/"
	}
	return "can this machine reach it? another address is given with --mirror"
}
