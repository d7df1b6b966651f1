package certs

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func issue(t *testing.T, a *Authority, names ...string) (cert, key []byte) {
	t.Helper()
	cert, key, err := a.Issue(names, 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func newAuthority(t *testing.T) *Authority {
	t.Helper()
	a, err := NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func write(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestAuthority lets a client talk to a server with a certificate of an authority
// that has been written and read.
func TestAuthority(t *testing.T) {
	caPEM, caKey, err := newAuthority(t).PEM()
	if err != nil {
		t.Fatal(err)
	}
	a, err := ReadAuthority(caPEM, caKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key")
	cert, key := issue(t, a, "mirror.lan", "127.0.0.1", "::1")
	write(t, certFile, cert)
	write(t, keyFile, key)
	pair, err := OpenPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	if got := pair.Names(); !slices.Equal(got, []string{"mirror.lan", "127.0.0.1", "::1"}) {
		t.Errorf("names %q", got)
	}

	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Listener = tls.NewListener(server.Listener, Config(pair.Get))
	server.Config.TLSConfig = Config(pair.Get)
	server.Start()
	defer server.Close()
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(caPEM)
	ask := func(config *tls.Config) (*http.Response, error) {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}}
		defer client.CloseIdleConnections()
		res, err := client.Get("https://" + server.Listener.Addr().String())
		if err == nil {
			res.Body.Close()
		}
		return res, err
	}
	for _, name := range []string{"", "mirror.lan"} {
		if res, err := ask(&tls.Config{RootCAs: trusted, ServerName: name}); err != nil || res.ProtoMajor != 2 {
			t.Errorf("as %q: %v", name, err)
		}
	}
	if _, err := ask(&tls.Config{RootCAs: trusted, ServerName: "other.lan"}); err == nil {
		t.Error("another name is believed")
	}
	if _, err := ask(&tls.Config{RootCAs: trusted, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
	leaf := func() *x509.Certificate {
		res, err := ask(&tls.Config{RootCAs: trusted})
		if err != nil {
			t.Fatal(err)
		}
		return res.TLS.PeerCertificates[0]
	}

	// Half of a new pair changes nothing; all of it does, without a restart.
	before := leaf()
	cert, key = issue(t, a, "127.0.0.1")
	write(t, certFile, cert)
	if err := pair.Load(); err == nil || !strings.Contains(err.Error(), certFile) {
		t.Errorf("half a pair: %v", err)
	}
	if !leaf().Equal(before) {
		t.Error("half a pair is used")
	}
	write(t, keyFile, key)
	if err := pair.Load(); err != nil {
		t.Fatal(err)
	}
	if leaf().Equal(before) {
		t.Error("the new pair is not used")
	}
	if err := os.Remove(keyFile); err != nil {
		t.Fatal(err)
	}
	if err := pair.Load(); err == nil {
		t.Error("no key, no error")
	}
	leaf()
}

func TestReadAuthority(t *testing.T) {
	ca, key, err := newAuthority(t).PEM()
	if err != nil {
		t.Fatal(err)
	}
	_, otherKey, err := newAuthority(t).PEM()
	if err != nil {
		t.Fatal(err)
	}
	server, serverKey := issue(t, newAuthority(t), "a.lan")
	for name, c := range map[string]struct {
		cert, key []byte
		want      string
	}{
		"nothing":          {nil, nil, "no PEM certificate"},
		"a key":            {key, key, "no PEM certificate"},
		"no key":           {ca, nil, "no PEM key"},
		"two certificates": {ca, ca, "the key of the authority: "},
		"another key":      {ca, otherKey, "is not that of"},
		"a server":         {server, serverKey, "is not one of an authority"},
	} {
		if _, err := ReadAuthority(c.cert, c.key); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
