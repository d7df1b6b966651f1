package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/regclient/regclient"
	"github.com/regclient/regclient/config"
	"github.com/regclient/regclient/scheme/reg"
	"github.com/regclient/regclient/types/ref"
	"golang.org/x/sync/semaphore"

	"mirrorctl/store"
)

// registry is a registry and where to ask for its content, in order.
type registry struct {
	name      string
	endpoints []*endpoint   // mirrors, then the registry itself
	ordinary  chan struct{} // taken slots of blobs that no client waits for
	urgent    urgentSlots
}

// endpoint is one place that has content of a registry.
type endpoint struct {
	registry string // whose content it has: docker.io
	host     string // as regclient calls it; "" for a folder
	hostname string // host and port, where requests go
	folder   string // of OCI layouts, one per repository; "" for a host
	mirror   bool
	http     *http.Client
	tr       *transport // of http
	health   health
	lines    lines
	whole    atomic.Bool         // it does not send parts
	requests *semaphore.Weighted // manifests and lookups at a time, which are small
	urgent   *semaphore.Weighted // those that clients wait for

	newClient func() *regclient.RegClient // without the tokens of another one
	mu        sync.Mutex
	rc        *regclient.RegClient
	worked    bool // rc has
	logins    int  // how often rc was made anew
}

// client returns regclient for this endpoint.
func (e *endpoint) client() *regclient.RegClient {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.rc
}

func (e *endpoint) works() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.worked = true
}

// login tells one set of tokens from the next.
func (e *endpoint) login() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.logins
}

// renew drops tokens that have worked and no longer do, which regclient keeps
// until they expire. It reports whether there may have been some at the time of
// that login: another request may have dropped them since.
func (e *endpoint) renew(login int) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.logins != login:
		return true
	case e.folder != "" || !e.worked:
		return false
	}
	e.rc, e.worked = e.newClient(), false
	e.logins++
	return true
}

// tokenFailed returns why there is no token, if that is so.
func (e *endpoint) tokenFailed() *tokenError {
	if e.tr == nil {
		return nil
	}
	return e.tr.tokenFailed.Load()
}

// String names the endpoint for people.
func (e *endpoint) String() string {
	if e.folder != "" {
		return "ocidir://" + e.folder
	}
	return e.host
}

// ref is how regclient calls a reference (tag or digest) of a repository here.
func (e *endpoint) ref(repo store.Repository, reference string) ref.Ref {
	r := ref.Ref{Scheme: "reg", Registry: e.host, Repository: repo.Path}
	if e.folder != "" {
		// The grammar of repository paths has neither "..", nor empty
		// components, so this stays below the folder.
		r = ref.Ref{Scheme: "ocidir", Path: filepath.Join(e.folder, filepath.FromSlash(repo.Path))}
	}
	if _, err := digest.Parse(reference); err == nil {
		r.Digest = reference
	} else {
		r.Tag = reference
	}
	r.Reference = repo.String() + "/" + reference // for regclient's own messages
	return r
}

// registry returns the endpoints of a registry, made on first use.
func (c *Client) registry(name string) (*registry, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r, ok := c.registries[name]; ok {
		return r, nil
	}
	conf := c.opts.Registries[name]
	r := &registry{name: name, ordinary: c.transfers, urgent: newUrgentSlots()}
	for _, mirror := range conf.Mirrors {
		e, err := c.newEndpoint(name, mirror, Registry{CA: conf.CA}, true)
		if err != nil {
			return nil, err
		}
		r.endpoints = append(r.endpoints, e)
	}
	address := conf.URL
	if address == "" {
		address = defaultURL(name)
	}
	e, err := c.newEndpoint(name, address, conf, false)
	if err != nil {
		return nil, err
	}
	r.endpoints = append(r.endpoints, e)
	c.registries[name] = r
	return r, nil
}

// defaultURL is where a registry is by its name alone. Registries on this
// machine speak plain HTTP unless configured otherwise, as docker has it.
func defaultURL(name string) string {
	if name == config.DockerRegistry {
		return "https://" + config.DockerRegistryDNS
	}
	host := name
	if h, _, err := net.SplitHostPort(name); err == nil {
		host = h
	}
	if ip := net.ParseIP(strings.Trim(host, "[]")); host == "localhost" || ip != nil && ip.IsLoopback() {
		return "http://" + name
	}
	return "https://" + name
}

func (c *Client) newEndpoint(name, address string, conf Registry, mirror bool) (*endpoint, error) {
	e := &endpoint{
		registry: name, mirror: mirror,
		requests: semaphore.NewWeighted(int64(2 * c.opts.Jobs)), urgent: semaphore.NewWeighted(2 * maxUrgent),
	}
	quiet := slog.New(demoted{c.log.Handler()})
	if folder, ok := strings.CutPrefix(address, "ocidir://"); ok {
		e.folder = folder
		e.http = &http.Client{}
		e.rc = regclient.New(regclient.WithSlog(quiet))
		return e, nil
	}
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("registry %s: bad address %q: it must start with https://, http:// or ocidir://", name, address)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("registry %s: bad address %q: give nothing but host and path; a login has its own settings", name, u.Redacted())
	}
	base, err := newBaseTransport(conf, mirror, c.silence)
	if err != nil {
		return nil, fmt.Errorf("registry %s: %w", name, err)
	}

	host := config.HostNewName(u.Host)
	if name == config.DockerRegistry && u.Host == config.DockerRegistryDNS {
		host = config.HostNewName(config.DockerRegistry) // regclient's name for Docker Hub
	}
	if c.opts.Guarded && !mirror && conf.URL == "" && !isAddress(name) {
		g := &guard{}
		base.Proxy, base.DialContext = g.proxy, g.dial(base.TLSHandshakeTimeout)
	}
	e.host, e.hostname = host.Name, host.Hostname
	e.tr = &transport{base: base, host: host.Hostname, secure: u.Scheme == "https", silence: c.silence}
	if mirror {
		e.tr.ns = name
	}
	e.http = &http.Client{Transport: e.tr}
	host.TLS = config.TLSEnabled
	if u.Scheme == "http" {
		host.TLS = config.TLSDisabled
	}
	host.PathPrefix = strings.Trim(u.Path, "/")
	host.ReqConcurrent = 1 << 16 // this package has its own limits
	host.RepoAuth = true         // a token for all repositories would be asked for anew with each of them
	if conf.Username != "" {
		host.User, host.Pass = conf.Username, conf.Password
	} else if err := c.addDockerCredentials(host); err != nil {
		return nil, err
	}
	e.newClient = func() *regclient.RegClient {
		return regclient.New(
			regclient.WithSlog(quiet),
			regclient.WithUserAgent(c.opts.UserAgent),
			regclient.WithConfigHost(*host),
			regclient.WithRegOpts(
				reg.WithHTTPClient(e.http),
				reg.WithManifestMax(store.MaxManifestSize, store.MaxManifestSize),
				// One try, and one more for a token; see request.
				reg.WithRetryLimit(1),
				reg.WithDelay(1, 1),
			),
		)
	}
	e.rc = e.newClient()
	return e, nil
}

// demoted is a log in which everything is for debugging: what regclient warns
// of comes back as an error, and is told by whoever gets it.
type demoted struct{ slog.Handler }

func (d demoted) Enabled(ctx context.Context, level slog.Level) bool {
	return d.Handler.Enabled(ctx, min(level, slog.LevelDebug))
}

func (d demoted) Handle(ctx context.Context, r slog.Record) error {
	r.Level = min(r.Level, slog.LevelDebug)
	return d.Handler.Handle(ctx, r)
}

func (d demoted) WithAttrs(attrs []slog.Attr) slog.Handler {
	return demoted{d.Handler.WithAttrs(attrs)}
}
func (d demoted) WithGroup(name string) slog.Handler { return demoted{d.Handler.WithGroup(name)} }

// addDockerCredentials takes over what the docker configuration has for exactly
// this host: logins, stores and helpers.
func (c *Client) addDockerCredentials(host *config.Host) error {
	all, err := c.creds()
	if err != nil {
		return fmt.Errorf("docker configuration: %w", err)
	}
	i := slices.IndexFunc(all, func(h config.Host) bool { return h.Name == host.Name })
	if i < 0 {
		return nil
	}
	host.User, host.Pass, host.Token = all[i].User, all[i].Pass, all[i].Token
	host.CredHelper, host.CredExpire, host.CredHost = all[i].CredHelper, all[i].CredExpire, all[i].CredHost
	return nil
}

// newBaseTransport returns the connections of one endpoint.
func newBaseTransport(conf Registry, mirror bool, silence time.Duration) (*http.Transport, error) {
	patience := min(10*time.Second, silence)
	if mirror {
		patience /= 3 // there is somebody else to ask
	}
	t := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: patience, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:    patience,
		ResponseHeaderTimeout:  silence,
		IdleConnTimeout:        60 * time.Second,
		MaxIdleConnsPerHost:    16,
		MaxResponseHeaderBytes: 256 << 10,
		// Bytes are wanted as they are stored upstream, and their number known.
		DisableCompression: true,
		ReadBufferSize:     64 << 10,
		TLSClientConfig:    &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: conf.Insecure}, //nolint:gosec // asked for in the configuration
		// No HTTP/2: one connection for all blobs is slower over a long
		// link than a few of them.
		TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
	}
	if len(conf.CA) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			return nil, err
		}
		if !pool.AppendCertsFromPEM(conf.CA) {
			return nil, errors.New("ca: no certificate in PEM form")
		}
		t.TLSClientConfig.RootCAs = pool
	}
	return t, nil
}

// ask calls fn with each endpoint in turn until one succeeds, and returns the
// error of the last one, the registry itself: what its mirrors lack is no news.
func (c *Client) ask(ctx context.Context, repo store.Repository, fn func(*endpoint) error) error {
	r, err := c.registry(repo.Registry)
	if err != nil {
		return err
	}
	for _, e := range r.endpoints {
		if err = fn(e); err == nil || ctx.Err() != nil || isLocal(err) {
			return err
		}
		if e.mirror {
			c.log.Info("mirror did not help", "registry", r.name, "mirror", e.String(), "err", err)
		}
	}
	return err
}
