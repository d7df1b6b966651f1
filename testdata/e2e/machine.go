//go:build e2e

package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// machine is a folder with a copy of this machine's /etc that a test may change.
type machine struct {
	root string
}

// newMachine lays a folder over /etc, so that nothing is copied.
func newMachine(tb testing.TB) *machine {
	tb.Helper()
	m := &machine{tempDir(tb)}
	layers := tempDir(tb)
	etc := filepath.Join(m.root, "etc")
	for _, dir := range []string{etc, layers + "/upper", layers + "/work"} {
		check(tb, os.Mkdir(dir, 0o755))
	}
	check(tb, syscall.Mount("overlay", etc, "overlay", 0, fmt.Sprintf("lowerdir=/etc,upperdir=%[1]s/upper,workdir=%[1]s/work", layers)))
	tb.Cleanup(func() { syscall.Unmount(etc, syscall.MNT_DETACH) })
	return m
}

// boot puts the machine's /etc in the place of the real one, for all programs
// that start from here on, until the test ends.
func (m *machine) boot(tb testing.TB) {
	tb.Helper()
	check(tb, syscall.Mount(filepath.Join(m.root, "etc"), "/etc", "", syscall.MS_BIND, ""))
	tb.Cleanup(func() { syscall.Unmount("/etc", syscall.MNT_DETACH) })
}

// front is a way to a mirror: plain, or by TLS with a private authority, or with
// a login besides.
type front struct {
	name    string
	address string
	flags   []string // of mirrorctl client
	login   bool
}

// fronts starts the ways to a mirror.
func fronts(tb testing.TB, mirror string) []front {
	tb.Helper()
	certificate, authority := newAuthority(tb)
	target, err := url.Parse("http://" + mirror)
	check(tb, err)
	proxy := httputil.NewSingleHostReverseProxy(target)
	guarded := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != hubUser || password != hubPassword {
			w.Header().Set("WWW-Authenticate", `Basic realm="mirror"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
			return
		}
		r.Header.Del("Authorization")
		proxy.ServeHTTP(w, r)
	})
	serve := func(handler http.Handler) string {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		check(tb, err)
		server := &http.Server{Handler: handler, TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}}}
		go server.ServeTLS(listener, "", "")
		tb.Cleanup(func() { server.Close() })
		return listener.Addr().String()
	}
	private, guardedAddress := serve(proxy), serve(guarded)
	password := writeFile(tb, filepath.Join(tempDir(tb), "password"), hubPassword+"\n")
	return []front{
		{"http", mirror, []string{"--mirror", mirror}, false},
		{"https", private, []string{"--mirror", "https://" + private, "--ca", authority}, false},
		{"https with login", guardedAddress, []string{"--mirror", "https://" + guardedAddress, "--ca", authority, "--username", hubUser, "--password-file", password}, true},
	}
}

// newAuthority makes a certificate for 127.0.0.1, and other addresses, that is its
// own authority, and the file with the authority.
func newAuthority(tb testing.TB, others ...net.IP) (tls.Certificate, string) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(tb, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mirror"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IPAddresses: append(others, net.IPv4(127, 0, 0, 1)),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	check(tb, err)
	var text bytes.Buffer
	check(tb, pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, writeFile(tb, filepath.Join(tempDir(tb), "ca.pem"), text.String())
}

// basic is what follows the word Basic in a header.
func basic(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}
