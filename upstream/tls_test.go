package upstream

import (
	"encoding/pem"
	"net/http/httptest"
	"strings"
	"testing"
)

// pemOf returns the certificate of a server, which is its own authority.
func pemOf(srv *httptest.Server) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
}

func TestTLS(t *testing.T) {
	f := newFake(t)
	f.simple(100, "1")
	secure := httptest.NewTLSServer(f)
	t.Cleanup(secure.Close)
	for name, r := range map[string]Registry{
		"ca":              {URL: secure.URL, CA: pemOf(secure)},
		"insecure":        {URL: secure.URL, Insecure: true},
		"ca for a mirror": {URL: "http://127.0.0.1:1", Mirrors: []string{secure.URL}, CA: pemOf(secure)},
	} {
		t.Run(name, func(t *testing.T) { mustFetch(t, newClientOf(t, newStore(t), r), "1") })
	}

	// The certificate is for 127.0.0.1 and example.com.
	_, err := fetchTag(t, newClientOf(t, newStore(t), Registry{URL: strings.Replace(secure.URL, "127.0.0.1", "localhost", 1), CA: pemOf(secure)}), "1")
	wantError(t, err, ErrUnreachable, "not localhost")
	// Insecure is for the registry alone.
	_, err = fetchTag(t, newClientOf(t, newStore(t), Registry{URL: "http://127.0.0.1:1", Mirrors: []string{secure.URL}, Insecure: true}), "1")
	wantError(t, err, ErrUnreachable, "127.0.0.1:1")
	if _, err := fetchTag(t, newClientOf(t, newStore(t), Registry{URL: secure.URL, CA: []byte("none")}), "1"); err == nil {
		t.Error("a bad authority is taken")
	}
}
