package upstream

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"
)

func TestIsPublic(t *testing.T) {
	for s, want := range map[string]bool{
		"8.8.8.8": true, "172.15.0.1": true, "172.32.0.1": true, "2606:4700::1111": true, "::ffff:8.8.8.8": true,
		"127.0.0.1": false, "127.8.8.8": false, "10.1.2.3": false, "172.16.0.1": false, "192.168.1.1": false,
		"169.254.169.254": false, "100.64.0.1": false, "0.0.0.0": false, "224.0.0.1": false, "255.255.255.255": false, "198.18.0.1": false,
		"::1": false, "::": false, "fe80::1": false, "fe80::1%eth0": false, "fd00::1": false, "ff02::1": false,
		"::ffff:127.0.0.1": false, "::127.0.0.1": false, "64:ff9b::7f00:1": false, "2002:7f00:1::": false, "fec0::1": false,
	} {
		if got := isPublic(netip.MustParseAddr(s)); got != want {
			t.Errorf("%s: public %v", s, got)
		}
	}
}

func TestGuard(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	dial := (&guard{}).dial(time.Second)
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]"} {
		conn, err := dial(t.Context(), "tcp", host+":"+port)
		if err == nil {
			conn.Close()
		}
		if !errors.Is(err, errPrivate) {
			t.Errorf("%s: %v", host, err)
		}
	}
}

func TestGuardedClient(t *testing.T) {
	f, st := newFake(t), newStore(t)
	f.simple(10, "1")
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	for name, reached := range map[string]bool{
		f.host():                true,  // an address
		"example.test":          true,  // configured with one
		"localhost.localdomain": false, // a name that leads to this machine, if to any
	} {
		c := New(st, Options{Guarded: true, Registries: map[string]Registry{"example.test": {URL: f.URL}}})
		c.pause = time.Millisecond
		_, err := c.Resolve(t.Context(), named(t, name+"/team/app:1"))
		if (err == nil) != reached {
			t.Errorf("%s: %v", name, err)
		}
		_ = c.Close()
	}
}

// Through a proxy a private address is none the better.
func TestGuardProxy(t *testing.T) {
	g := &guard{}
	for target, ok := range map[string]bool{
		"http://10.0.0.1/": false, "http://[::1]:80/": false, "http://169.254.169.254/latest": false, "http://127.0.0.1:5000/v2/": false,
		"http://8.8.8.8/": true, "http://registry.example/": true,
	} {
		_, err := g.through(&http.Request{URL: mustURL(t, target)}, mustURL(t, "http://10.1.1.1:3128"))
		if (err == nil) != ok || err != nil && !errors.Is(err, errPrivate) {
			t.Errorf("%s: %v", target, err)
		}
	}
	if !g.proxies["10.1.1.1:3128"] {
		t.Errorf("the proxy itself is not known: %v", g.proxies)
	}
}
