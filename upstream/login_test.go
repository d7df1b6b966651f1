package upstream

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// wantLogin makes a fake ask for a login by name and password.
func (f *fake) wantLogin(authorization string) {
	f.misbehave(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if r.Header.Get("Authorization") != authorization {
			w.Header().Set("WWW-Authenticate", `Basic realm="fake"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		serve(w, r)
	})
}

// checkAnonymous fails if a fake ever got a login.
func checkAnonymous(t *testing.T, f *fake) {
	t.Helper()
	for _, r := range f.heard() {
		if got := r.Header.Get("Authorization"); got != "" {
			t.Errorf("%s %s got a login: %s", r.Method, r.URL, got)
		}
	}
}

// withDockerConfig makes content the docker configuration of a new client.
func withDockerConfig(t *testing.T, c *Client, content string) *Client {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCKER_CONFIG", dir)
	return c
}

func TestLogin(t *testing.T) {
	auth := base64.StdEncoding.EncodeToString([]byte("me:secret"))
	for name, login := range map[string]func(t *testing.T, f *fake) *Client{
		"configuration": func(t *testing.T, f *fake) *Client {
			return newClientOf(t, newStore(t), Registry{URL: f.URL, Username: "me", Password: "secret"})
		},
		"docker configuration": func(t *testing.T, f *fake) *Client {
			return withDockerConfig(t, newClient(t, newStore(t), f), fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, f.host(), auth))
		},
		"credential helper": func(t *testing.T, f *fake) *Client {
			bin := t.TempDir()
			script := "#!/bin/sh\nread host\n[ \"$1 $host\" = \"get " + f.host() + "\" ] && echo '{\"Username\":\"me\",\"Secret\":\"secret\"}'\n"
			if err := os.WriteFile(filepath.Join(bin, "docker-credential-fake"), []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
			return withDockerConfig(t, newClient(t, newStore(t), f), fmt.Sprintf(`{"credHelpers":{%q:"fake"}}`, f.host()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.simple(100, "1")
			f.wantLogin(basic("me", "secret"))
			mustFetch(t, login(t, f), "1")
		})
	}
	t.Run("wrong password", func(t *testing.T) {
		f := newFake(t)
		f.wantLogin(basic("me", "secret"))
		_, err := fetchTag(t, newClientOf(t, newStore(t), Registry{URL: f.URL, Username: "me", Password: "wrong"}), "1")
		wantError(t, err, ErrUnauthorized, f.host())
	})
}

// A login goes to the host that it is for, and to no other.
func TestLoginStays(t *testing.T) {
	auth := base64.StdEncoding.EncodeToString([]byte("me:secret"))
	hub := fmt.Sprintf(`{"auths":{"https://index.docker.io/v1/":{"auth":%q},"example.test":{"auth":%[1]q}}}`, auth)

	t.Run("url in the registry's place", func(t *testing.T) {
		f := newFake(t)
		f.wantLogin("nothing")
		_, err := fetchTag(t, withDockerConfig(t, newClient(t, newStore(t), f), hub), "1")
		wantError(t, err, ErrUnauthorized, f.host())
		checkAnonymous(t, f)
	})
	t.Run("mirror", func(t *testing.T) {
		mirror, f := newFake(t), newFake(t)
		f.simple(100, "1")
		mirror.wantLogin("nothing")
		f.wantLogin(basic("me", "secret"))
		mustFetch(t, newClientOf(t, newStore(t), Registry{URL: f.URL, Mirrors: []string{mirror.URL}, Username: "me", Password: "secret"}), "1")
		checkAnonymous(t, mirror)
	})
	t.Run("redirect", func(t *testing.T) {
		f, elsewhere := newFake(t), newFake(t)
		_, layer := f.simple(100, "1")
		elsewhere.blobs = f.blobs
		third := newFake(t)
		third.misbehave(func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
			http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusTemporaryRedirect)
		})
		// Another port of the same host is another host.
		f.misbehave(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
			switch {
			case r.Header.Get("Authorization") == "":
				w.Header().Set("WWW-Authenticate", `Basic realm="fake"`)
				w.WriteHeader(http.StatusUnauthorized)
			case is(r.URL.Path, layer):
				http.Redirect(w, r, third.URL+r.URL.Path, http.StatusTemporaryRedirect)
			default:
				serve(w, r)
			}
		})
		mustFetch(t, newClientOf(t, newStore(t), Registry{URL: f.URL, Username: "me", Password: "secret"}), "1")
		checkAnonymous(t, third)
		checkAnonymous(t, elsewhere)
	})
	t.Run("another registry", func(t *testing.T) {
		f, other := newFake(t), newFake(t)
		f.simple(100, "1")
		other.wantLogin("nothing")
		f.wantLogin(basic("me", "secret"))
		t.Setenv("DOCKER_CONFIG", t.TempDir())
		c := New(newStore(t), Options{Registries: map[string]Registry{
			"example.test": {URL: f.URL, Username: "me", Password: "secret"}, "other.test": {URL: other.URL},
		}})
		mustFetch(t, c, "1")
		_, err := fetchName(c, named(t, "other.test/team/app:1"))
		wantError(t, err, ErrUnauthorized, other.host())
		checkAnonymous(t, other)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// tokens makes a fake want tokens from a server of their own.
func tokens(t *testing.T, f *fake, give http.HandlerFunc, valid func(token string) bool) *httptest.Server {
	srv := httptest.NewServer(give)
	t.Cleanup(srv.Close)
	f.misbehave(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !valid(token) {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="fake",scope="repository:team/app:pull"`, srv.URL))
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		serve(w, r)
	})
	return srv
}

func TestToken(t *testing.T) {
	f, st := newFake(t), newStore(t)
	f.simple(100, "1")
	var asked atomic.Int64
	tokens(t, f, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Header.Get("Authorization") != basic("me", "secret") || r.URL.Query().Get("scope") != "repository:team/app:pull" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, `{"token":"good","expires_in":300}`)
	}, func(token string) bool { return token == "good" })
	mustFetch(t, newClientOf(t, st, Registry{URL: f.URL, Username: "me", Password: "secret"}), "1")
	if asked.Load() != 1 {
		t.Errorf("%d tokens asked for", asked.Load())
	}
	checkStored(t, st, f)
}

// A registry that drops a token before its time gets another one.
func TestTokenExpires(t *testing.T) {
	f, st := newFake(t), newStore(t)
	f.simple(100, "1")
	f.simple(100, "2")
	var now atomic.Int64
	tokens(t, f, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"token":"%d","expires_in":300}`, now.Load())
	}, func(token string) bool { return token == fmt.Sprint(now.Load()) })
	c := newClient(t, st, f)
	mustFetch(t, c, "1")
	now.Add(1)
	mustFetch(t, c, "2")
}

// A token that is dropped while many requests are under way is renewed for all of
// them, not only for the one that notices first.
func TestTokenExpiresForMany(t *testing.T) {
	f, st := newFake(t), newStore(t)
	var layers []v1.Descriptor
	for range DefaultJobs - 1 { // and the configuration
		layers = append(layers, f.blob(random(100)))
	}
	f.image(layers, "1")
	var given atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"token":"%d","expires_in":300}`, given.Add(1))
	}))
	t.Cleanup(srv.Close)
	var all sync.WaitGroup // blobs that were asked for with the first token
	all.Add(DefaultJobs)
	f.misbehave(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		token := r.Header.Get("Authorization")
		first := token == "Bearer 1" && strings.Contains(r.URL.Path, "/blobs/")
		if first {
			all.Done()
			all.Wait()
		}
		if token == "" || first {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="fake",scope="repository:team/app:pull"`, srv.URL))
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		serve(w, r)
	})
	mustFetch(t, newClient(t, st, f), "1")
	checkStored(t, st, f)
}

func TestNoToken(t *testing.T) {
	for name, tt := range map[string]struct {
		give     http.HandlerFunc
		cause    error
		mentions string
	}{
		"503":     {status(503), ErrUnavailable, "answered 503"},
		"401":     {status(401), ErrUnauthorized, "answered 401"},
		"no JSON": {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }, ErrUnavailable, "sent none"},
		"endless": {func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := w.Write([]byte(strings.Repeat(" ", 1<<16))); err != nil {
					return
				}
			}
		}, ErrUnavailable, "sent none"},
		"silent": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, ErrUnreachable, "does not answer"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.simple(100, "1")
			srv := tokens(t, f, tt.give, func(string) bool { return false })
			c := newClient(t, newStore(t), f)
			c.silence = 2 * time.Second
			if name == "silent" {
				c.silence = 300 * time.Millisecond
			}
			began := time.Now()
			_, err := fetchTag(t, c, "1")
			wantError(t, err, tt.cause, tt.mentions, f.host())
			if tt.cause != ErrUnauthorized {
				wantError(t, err, tt.cause, mustURL(t, srv.URL).Host)
			}
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// A registry that is spoken to over TLS may name another host for tokens, as
// Docker Hub does, but none without TLS: the login would go there in the clear.
func TestTokenServerWithoutTLS(t *testing.T) {
	for _, login := range []bool{true, false} {
		f := newFake(t)
		f.simple(100, "1")
		asked := atomic.Int32{}
		answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			fmt.Fprint(w, `{"token":"abc"}`)
		})
		clear, secret := httptest.NewServer(answer), httptest.NewTLSServer(answer)
		t.Cleanup(clear.Close)
		t.Cleanup(secret.Close)
		redirecting := httptest.NewTLSServer(http.RedirectHandler(clear.URL, http.StatusTemporaryRedirect))
		t.Cleanup(redirecting.Close)
		realm := ""
		f.misbehave(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
			if r.Header.Get("Authorization") == "Bearer abc" {
				serve(w, r)
				return
			}
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="x"`, realm))
			w.WriteHeader(http.StatusUnauthorized)
		})
		secure := httptest.NewTLSServer(f)
		t.Cleanup(secure.Close)
		fetch := func(to string) error {
			realm = to
			r := Registry{URL: secure.URL, Insecure: true}
			if login {
				r.Username, r.Password = "me", "secret"
			}
			_, err := fetchTag(t, newClientOf(t, newStore(t), r), "1")
			return err
		}
		wantError(t, fetch(clear.URL), ErrUnavailable, "from https to http") // regclient refuses it
		wantError(t, fetch(redirecting.URL), ErrUnavailable, clear.Listener.Addr().String(), "without TLS")
		if n := asked.Load(); n > 0 {
			t.Errorf("login %v: a token server without TLS was asked %d times", login, n)
		}
		if err := fetch(secret.URL); err != nil {
			t.Errorf("login %v: with TLS: %v", login, err)
		}
	}
}
