package faults

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// certificate is what a proxy shows: one for 127.0.0.1.
type certificate struct {
	trusted bool // by the configuration
	expired bool
}

// startTLS lets the proxy answer over TLS too.
func (p *Proxy) startTLS(c certificate) (address string, authority []byte) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "proxy"},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if c.expired {
		template.NotAfter = time.Now().Add(-24 * time.Hour)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	server := p.listen()
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	server.StartTLS()
	p.others = append(p.others, server)
	return server.Listener.Addr().String(), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func (p *Proxy) tlsAddress(c certificate) string {
	address, _ := p.startTLS(c)
	return address
}

// overTLS is the registry's table of a configuration that reaches the proxy by
// a host name over TLS.
func (p *Proxy) overTLS(host string, c certificate) string {
	address, authority := p.startTLS(c)
	text := fmt.Sprintf("url = %q\n", "https://"+strings.Replace(address, "127.0.0.1", host, 1))
	if c.trusted {
		file := filepath.Join(p.dir, "ca.pem")
		if err := os.WriteFile(file, authority, 0o644); err != nil {
			panic(err)
		}
		text += fmt.Sprintf("ca = %q\n", file)
	}
	return text
}
