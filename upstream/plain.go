package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
)

// plainNetError is what a network error means for people: without what its text
// repeats, the method, the URL and the addresses, and without the names of
// packages.
func plainNetError(err error) string {
	var inURL *url.Error
	if errors.As(err, &inURL) {
		err = inURL.Err
	}
	var certificate *tls.CertificateVerificationError
	if errors.As(err, new(x509.UnknownAuthorityError)) {
		return "its certificate is signed by an unknown authority"
	}
	if errors.As(err, &certificate) {
		return "its " + strings.TrimPrefix(certificate.Err.Error(), "x509: ")
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		err = op.Err
		if i := strings.LastIndex(err.Error(), ": "); i >= 0 && op.Op != "remote error" {
			return err.Error()[i+2:] // connect: connection refused
		}
	}
	switch text := err.Error(); {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection was closed too early"
	case errors.Is(err, io.EOF):
		return "the connection was closed without an answer"
	case strings.Contains(text, notHTTP):
		// Package http has no type for these.
		why := text[strings.LastIndex(text, notHTTP)+len(notHTTP):]
		return "its answer is not HTTP: " + strings.TrimSuffix(strings.TrimPrefix(why, "net/http: "), "; aborted")
	default:
		return strings.TrimPrefix(strings.TrimPrefix(text, "net/"), "http: ")
	}
}

// notHTTP begins the errors of package http about answers that it cannot read.
const notHTTP = "transport connection broken: "
