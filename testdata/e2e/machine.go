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
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
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

// fronts starts the ways to a project's mirror, each a mirror of its own on the same
// store. The plain one may be running.
func (p *project) fronts(tb testing.TB, plain string) []front {
	tb.Helper()
	dir := tempDir(tb)
	p.must(tb, "cert", "127.0.0.1", "--dir", dir)
	password := writeFile(tb, filepath.Join(dir, "password"), hubPassword+"\n")
	hash, err := bcrypt.GenerateFromPassword([]byte(hubPassword), bcrypt.MinCost)
	check(tb, err)
	users := writeFile(tb, filepath.Join(dir, "users"), hubUser+":"+string(hash)+"\n")
	secure := []string{"--tls-cert", filepath.Join(dir, "server.pem"), "--tls-key", filepath.Join(dir, "server.key")}
	private := p.serve(tb, secure...)
	guarded := p.serve(tb, append(secure, "--htpasswd", users, "--require-login", "read")...)
	authority := filepath.Join(dir, "ca.pem")
	return []front{
		{"http", plain, []string{"--mirror", plain}, false},
		{"https", private, []string{"--mirror", "https://" + private, "--ca", authority}, false},
		{"https with login", guarded, []string{"--mirror", "https://" + guarded, "--ca", authority, "--username", hubUser, "--password-file", password}, true},
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
