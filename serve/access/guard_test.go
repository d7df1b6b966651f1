package access

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

func networks(t testing.TB, all ...string) (list []netip.Prefix) {
	t.Helper()
	for _, s := range all {
		p, err := ParseNetwork(s)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	return list
}

func fetchers(t testing.TB, all ...string) (list []Fetcher) {
	t.Helper()
	for _, s := range all {
		f, err := ParseFetcher(s)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, f)
	}
	return list
}

func guard(t testing.TB, rules Rules) *Guard {
	t.Helper()
	g, err := New(rules)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// TestClient is about who the client is, behind proxies or not.
func TestClient(t *testing.T) {
	g := guard(t, Rules{Proxies: Networks{Prefixes: networks(t, "10.0.0.0/8", "fd00::/8"), Unix: true}})
	for _, c := range []struct {
		peer, forwarded, want string
	}{
		{"192.0.2.1:99", "", "192.0.2.1:99"},
		{"192.0.2.1:99", "198.51.100.7", "192.0.2.1:99"}, // no proxy: anybody may write this
		{"10.0.0.1:99", "198.51.100.7", "198.51.100.7:0"},
		{"10.0.0.1:99", "", "10.0.0.1:99"},
		{"10.0.0.1:99", "203.0.113.9, 198.51.100.7", "198.51.100.7:0"},           // what is left of it the client made up
		{"10.0.0.1:99", "203.0.113.9, 198.51.100.7, 10.0.0.2", "198.51.100.7:0"}, // two proxies
		{"10.0.0.1:99", "203.0.113.9|198.51.100.7", "198.51.100.7:0"},            // two headers
		{"10.0.0.1:99", "10.0.0.3,10.0.0.2", "10.0.0.3:0"},
		{"10.0.0.1:99", "nonsense", "10.0.0.1:99"},
		{"10.0.0.1:99", "198.51.100.7, nonsense", "10.0.0.1:99"},
		{"10.0.0.1:99", "nonsense, 198.51.100.7", "198.51.100.7:0"},
		{"10.0.0.1:99", "nonsense, 10.0.0.2", "10.0.0.2:0"},
		{"10.0.0.1:99", "198.51.100.7:1234", "198.51.100.7:0"},
		{"10.0.0.1:99", "2001:db8::1", "[2001:db8::1]:0"},
		{"10.0.0.1:99", "[2001:db8::1]", "[2001:db8::1]:0"},
		{"[fd00::1]:99", "2001:db8::1", "[2001:db8::1]:0"},
		{"[::ffff:10.0.0.1]:99", "::ffff:198.51.100.7", "198.51.100.7:0"},
		{"@", "198.51.100.7", "198.51.100.7:0"}, // a Unix socket
	} {
		r := httptest.NewRequest("GET", "/v2/", nil)
		r.RemoteAddr = c.peer
		if c.forwarded != "" {
			r.Header["X-Forwarded-For"] = strings.Split(c.forwarded, "|")
		}
		r.Header.Set("X-Request-Id", "given")
		g.Client(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.RemoteAddr != c.want {
				t.Errorf("%s forwarded for %q: client %s, want %s", c.peer, c.forwarded, r.RemoteAddr, c.want)
			}
			if trusted := !strings.HasPrefix(c.peer, "192.0"); (r.Header.Get("X-Request-Id") == "given") != trusted {
				t.Errorf("%s: request id %q", c.peer, r.Header.Get("X-Request-Id"))
			}
		})).ServeHTTP(nil, r)
		if r.RemoteAddr != c.peer {
			t.Error("the request of the server was changed")
		}
	}
	r := httptest.NewRequest("GET", "/v2/", nil)
	r.RemoteAddr = "@"
	r.Header.Set("X-Forwarded-For", "198.51.100.7")
	guard(t, Rules{}).Client(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.RemoteAddr != "@" {
			t.Errorf("client %s", r.RemoteAddr)
		}
	})).ServeHTTP(nil, r)
}

// TestRights is who may read, and who may cause a download.
func TestRights(t *testing.T) {
	logins := users(t, "ann:swordfish", "ci:robot")
	const wrong, right, login = "403", "200", "401"
	const fetches, not, ask = "fetches", "not", "ask"
	for _, c := range []struct {
		name  string
		rules Rules
		from  string
		login string
		read  string
		fetch string
	}{
		{"no rules", Rules{}, "192.0.2.1", "", right, fetches},
		{"no rules, a login of whoever", Rules{}, "192.0.2.1", "eve:x", right, fetches},
		{"a network", Rules{Allow: networks(t, "10.0.0.0/8")}, "10.1.2.3", "", right, fetches},
		{"another network", Rules{Allow: networks(t, "10.0.0.0/8")}, "192.0.2.1", "", wrong, ""},
		{"a Unix socket", Rules{Allow: networks(t, "10.0.0.0/8")}, "@", "", right, fetches},
		{"one address", Rules{Allow: networks(t, "10.0.0.0/8", "192.0.2.1")}, "192.0.2.1", "", right, fetches},
		{"v4 in v6", Rules{Allow: networks(t, "10.0.0.0/8")}, "::ffff:10.0.0.1", "", right, fetches},

		{"users, no login needed", Rules{Users: logins}, "192.0.2.1", "", right, fetches},
		{"users, a wrong login", Rules{Users: logins}, "192.0.2.1", "ann:x", login, ""},
		{"login to read", Rules{Users: logins, Login: LoginRead}, "192.0.2.1", "", login, ""},
		{"logged in to read", Rules{Users: logins, Login: LoginRead}, "192.0.2.1", "ann:swordfish", right, fetches},
		{"wrong login to read", Rules{Users: logins, Login: LoginRead}, "192.0.2.1", "ann:robot", login, ""},
		{"network and login", Rules{Users: logins, Login: LoginRead, Allow: networks(t, "10.0.0.0/8")}, "192.0.2.1", "ann:swordfish", wrong, ""},

		{"login to fetch", Rules{Users: logins, Login: LoginFetch}, "192.0.2.1", "", right, ask},
		{"logged in to fetch", Rules{Users: logins, Login: LoginFetch}, "192.0.2.1", "ann:swordfish", right, fetches},
		{"fetch from a network", Rules{Fetchers: fetchers(t, "10.0.0.0/8")}, "10.0.0.1", "", right, fetches},
		{"fetch from another network", Rules{Fetchers: fetchers(t, "10.0.0.0/8")}, "192.0.2.1", "", right, not},
		{"one user fetches", Rules{Users: logins, Login: LoginRead, Fetchers: fetchers(t, "ci")}, "192.0.2.1", "ci:robot", right, fetches},
		{"another user does not", Rules{Users: logins, Login: LoginRead, Fetchers: fetchers(t, "ci")}, "192.0.2.1", "ann:swordfish", right, not},
		{"nobody yet", Rules{Users: logins, Fetchers: fetchers(t, "ci", "10.0.0.0/8")}, "192.0.2.1", "", right, ask},
		{"network or user", Rules{Users: logins, Fetchers: fetchers(t, "ci", "10.0.0.0/8")}, "10.0.0.1", "", right, fetches},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := guard(t, c.rules)
			r := httptest.NewRequest("GET", "/v2/", nil)
			r.RemoteAddr = netip.AddrPort{}.String()
			if a, err := netip.ParseAddr(c.from); err == nil {
				r.RemoteAddr = netip.AddrPortFrom(a, 99).String()
			}
			if user, password, ok := strings.Cut(c.login, ":"); ok {
				r.SetBasicAuth(user, password)
			}
			fetch := ""
			w := httptest.NewRecorder()
			g.Read(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				switch ok, challenge := g.MayFetch(r); {
				case ok:
					fetch = fetches
				case challenge != "":
					fetch = ask
				default:
					fetch = not
				}
			})).ServeHTTP(w, r)
			if got := w.Result().Status[:3]; got != c.read || fetch != c.fetch {
				t.Errorf("read %s, fetch %q; want %s, %q", got, fetch, c.read, c.fetch)
			}
			if asked := w.Header().Get("WWW-Authenticate"); (w.Code == 401) != strings.HasPrefix(asked, "Basic realm=") {
				t.Errorf("status %d with challenge %q", w.Code, asked)
			}
			if w.Code != 200 && !strings.Contains(w.Body.String(), `{"errors":[{"code":`) {
				t.Errorf("body %s", w.Body)
			}
		})
	}
}

func TestBadRules(t *testing.T) {
	for want, rules := range map[string]Rules{
		"a login for read needs users":         {Login: LoginRead},
		"a login for pull-through needs users": {Login: LoginFetch},
		"ci, who may cause downloads":          {Fetchers: fetchers(t, "ci")},
		"eve, who may cause downloads":         {Fetchers: fetchers(t, "eve"), Users: users(t, "ann:x")},
	} {
		if _, err := New(rules); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	for s, want := range map[string]string{
		"10.0.0.0/8": "", "10.0.0.1": "", "fd00::/8": "", "::1": "",
		"10.0.0.1/8": "is 10.0.0.0/8 meant?", "10.0.0.0/33": "must be a network", "lan": "must be a network", "fe80::1%eth0": "must be a network", "": "must be a network",
	} {
		if _, err := ParseNetwork(s); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", s, err, want)
		}
	}
	for _, s := range []string{"", "a b", "10.0.0.0/99", "a:b"} {
		if _, err := ParseFetcher(s); err == nil {
			t.Errorf("%q can fetch", s)
		}
	}
	if _, err := ParseLogin("write"); err == nil {
		t.Error("write needs no login")
	}
}

// BenchmarkRead is what rules cost a request.
func BenchmarkRead(b *testing.B) {
	g := guard(b, Rules{Allow: networks(b, "10.0.0.0/8", "192.0.2.0/24"), Users: users(b, "ann:swordfish"), Login: LoginRead})
	h := g.Client(g.Read(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	r := httptest.NewRequest("GET", "/v2/", nil)
	r.SetBasicAuth("ann", "swordfish")
	w := httptest.NewRecorder()
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(w, r)
	}
}
