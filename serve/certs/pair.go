// Package certs has the certificates of a server: those in files, which change
// while it runs; those that it gets by ACME; and those of a private authority,
// for teams without a public name.
package certs

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

// Config returns the settings of TLS for a server: TLS 1.2 and later, HTTP/2,
// and a certificate for each handshake from get.
func Config(get func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: get,
	}
}

// Pair is a certificate, with the chain above it, and its key, each in a PEM file.
// It is safe for concurrent use.
type Pair struct {
	certFile, keyFile string
	now               atomic.Pointer[tls.Certificate]
}

// OpenPair reads a pair.
func OpenPair(certFile, keyFile string) (*Pair, error) {
	p := &Pair{certFile: certFile, keyFile: keyFile}
	if err := p.Load(); err != nil {
		return nil, err
	}
	return p, nil
}

// Load reads the files again. If they do not belong together, because one of them
// is just being replaced, what was read before stays.
func (p *Pair) Load() error {
	cert, err := os.ReadFile(p.certFile)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	key, err := os.ReadFile(p.keyFile)
	if err != nil {
		return fmt.Errorf("key: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		// It says what is wrong with the PEM, and quotes none of it.
		return fmt.Errorf("certificate %s with key %s: %w", p.certFile, p.keyFile, err)
	}
	p.now.Store(&pair)
	return nil
}

// Files are those of the pair.
func (p *Pair) Files() []string { return []string{p.certFile, p.keyFile} }

// Get returns the certificate: it is for [Config].
func (p *Pair) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) { return p.now.Load(), nil }

// Expiry is when the certificate ends.
func (p *Pair) Expiry() time.Time { return p.now.Load().Leaf.NotAfter }

// Names are those that the certificate is for, names and addresses.
func (p *Pair) Names() []string {
	leaf := p.now.Load().Leaf
	names := append([]string(nil), leaf.DNSNames...)
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	return names
}
