package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"
)

// errPrivate is why a connection was not made.
var errPrivate = errors.New("it leads to this machine or to a private network")

// guard keeps requests that strangers cause inside the public network: neither
// a registry's name, nor what it redirects to, may lead to this machine or to
// one beside it. The address is looked at when the connection is made, so no
// name can mean one thing when it is checked and another when it is used.
//
// A proxy that the environment names may be anywhere, and knows better than we
// what names lead to.
type guard struct {
	mu      sync.Mutex
	proxies map[string]bool // host:port
}

// proxy is http.ProxyFromEnvironment and remembers whom it names.
func (g *guard) proxy(req *http.Request) (*url.URL, error) {
	u, err := http.ProxyFromEnvironment(req)
	if err != nil || u == nil {
		return u, err
	}
	return g.through(req, u)
}

// through allows a request to go through a proxy.
func (g *guard) through(req *http.Request, u *url.URL) (*url.URL, error) {
	// What names mean the proxy knows and we do not, but an address is one.
	if host := req.URL.Hostname(); isAddress(host) {
		if addr, err := netip.ParseAddr(host); err != nil || !isPublic(addr) {
			return nil, fmt.Errorf("%s: %w", host, errPrivate)
		}
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
	}
	if port == "" {
		port = "80"
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.proxies == nil {
		g.proxies = map[string]bool{}
	}
	g.proxies[net.JoinHostPort(u.Hostname(), port)] = true
	return u, nil
}

func (g *guard) dial(timeout time.Duration) func(context.Context, string, string) (net.Conn, error) {
	plain := net.Dialer{Timeout: timeout, KeepAlive: 30 * time.Second}
	guarded := plain
	guarded.Control = func(_, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		if !isPublic(to.Addr()) {
			return fmt.Errorf("%s: %w", to.Addr(), errPrivate)
		}
		return nil
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		g.mu.Lock()
		proxy := g.proxies[address]
		g.mu.Unlock()
		if proxy {
			return plain.DialContext(ctx, network, address)
		}
		return guarded.DialContext(ctx, network, address)
	}
}

// notPublic are the special ranges that package netip does not tell (IANA's
// special-purpose address registries, RFC 6890): shared address space, protocol
// assignments, benchmarks, documentation, reserved; and the IPv6 ranges that
// carry an IPv4 address, which may be a private one.
var notPublic = func() []netip.Prefix {
	var all []netip.Prefix
	for _, s := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "fec0::/10",
	} {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}()

func isPublic(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	if !addr.IsGlobalUnicast() || addr.IsPrivate() {
		return false
	}
	for _, prefix := range notPublic {
		if prefix.Contains(addr) {
			return false
		}
	}
	return true
}

// isAddress reports whether a registry's name is an address, so that whoever
// named it knew where it leads.
func isAddress(name string) bool {
	host := name
	if h, _, err := net.SplitHostPort(name); err == nil {
		host = h
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || host == "localhost"
}
