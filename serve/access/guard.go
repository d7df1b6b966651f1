package access

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"mirrorctl/serve"
)

// challenge asks for a login (RFC 7617).
const challenge = `Basic realm="mirrorctl", charset="UTF-8"`

// Guard applies [Rules]. It is safe for concurrent use.
type Guard struct {
	rules   Rules
	refused [RefusalCount]atomic.Int64
}

// Refusal is why somebody was refused.
type Refusal int

const (
	RefusedNetwork Refusal = iota // the client's network may not use the mirror
	RefusedLogin                  // no login, or a wrong one
	RefusedFetch                  // the client may not cause a download
	RefusalCount                  // how many there are
)

// Refusals are all of them.
func Refusals() []Refusal { return []Refusal{RefusedNetwork, RefusedLogin, RefusedFetch} }

func (r Refusal) String() string { return [...]string{"network", "login", "fetch"}[r] }

// New returns a guard. The error is one of the rules.
func New(rules Rules) (*Guard, error) {
	if err := rules.Check(); err != nil {
		return nil, err
	}
	return &Guard{rules: rules}, nil
}

// Refused is how often somebody was refused, by reason.
func (g *Guard) Refused(why Refusal) int64 { return g.refused[why].Load() }

// Client returns a handler whose requests have the address of the client as their
// RemoteAddr: what a trusted proxy says of it in X-Forwarded-For, the last address
// there that is not itself one of a trusted proxy. A request id is taken from a
// trusted proxy, too, and from nobody else.
func (g *Guard) Client(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !g.rules.Proxies.has(peer(r)) {
			if r.Header["X-Request-Id"] != nil {
				delete(r.Header, "X-Request-Id")
			}
			next.ServeHTTP(w, r)
			return
		}
		if client := g.forwarded(r.Header["X-Forwarded-For"]); client != "" {
			shallow := *r
			shallow.RemoteAddr = client
			r = &shallow
		}
		next.ServeHTTP(w, r)
	})
}

// peer is the address that a request comes from; invalid for a Unix socket.
func peer(r *http.Request) netip.Addr {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr().Unmap().WithZone("")
}

func (n Networks) has(a netip.Addr) bool {
	if !a.IsValid() {
		return n.Unix
	}
	return len(n.Prefixes) > 0 && contains(n.Prefixes, a)
}

// forwarded returns the client that the headers name, as address and port 0. What
// stands left of an address that is no proxy's, anybody may have written.
func (g *Guard) forwarded(headers []string) string {
	hops := strings.Split(strings.Join(headers, ","), ",")
	var client netip.Addr
	for i := len(hops) - 1; i >= 0; i-- {
		hop := strings.TrimSpace(hops[i])
		a, err := netip.ParseAddr(strings.Trim(hop, "[]"))
		if err != nil {
			at, err := netip.ParseAddrPort(hop) // as some proxies write it
			if err != nil {
				break
			}
			a = at.Addr()
		}
		client = a.Unmap().WithZone("")
		if !contains(g.rules.Proxies.Prefixes, client) {
			break
		}
	}
	if !client.IsValid() {
		return ""
	}
	return netip.AddrPortFrom(client, 0).String()
}

// Read returns a handler that answers those who may use the mirror with next. Others
// get 403, or 401 if they should log in. A wrong login is refused where none is
// needed, too.
func (g *Guard) Read(next http.Handler) http.Handler {
	if len(g.rules.Allow) == 0 && g.rules.Users == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A Unix socket has the permissions of its file.
		if a := peer(r); len(g.rules.Allow) > 0 && a.IsValid() && !contains(g.rules.Allow, a) {
			g.refused[RefusedNetwork].Add(1)
			serve.WriteError(w, r, http.StatusForbidden, "DENIED", "this mirror does not answer your network")
			return
		}
		if g.rules.Users != nil && (g.rules.Login == LoginRead || r.Header["Authorization"] != nil) {
			if _, err := g.user(r); err != nil {
				g.refuseLogin(w, r, err)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

var (
	errNoLogin    = errors.New("log in to use this mirror")
	errWrongLogin = errors.New("user or password is wrong")
)

func (g *Guard) refuseLogin(w http.ResponseWriter, r *http.Request, err error) {
	g.refused[RefusedLogin].Add(1)
	if !errors.Is(err, errNoLogin) && !errors.Is(err, errWrongLogin) {
		w.Header().Set("Retry-After", "1")
		serve.WriteError(w, r, http.StatusServiceUnavailable, "UNAVAILABLE", "too many logins at a time: try again later")
		return
	}
	w.Header().Set("WWW-Authenticate", challenge)
	serve.WriteError(w, r, http.StatusUnauthorized, "UNAUTHORIZED", err.Error())
}

// user returns who has logged in.
func (g *Guard) user(r *http.Request) (string, error) {
	user, password, ok := r.BasicAuth()
	if !ok {
		return "", errNoLogin
	}
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	switch right, err := g.rules.Users.Check(ctx, user, password); {
	case err != nil:
		return "", err
	case !right:
		return "", errWrongLogin
	}
	return user, nil
}

// User returns who has logged in with a request that [Guard.Read] has let through,
// false if nobody has: it is for what only some users may do.
func (g *Guard) User(r *http.Request) (string, bool) {
	if g.rules.Users == nil {
		return "", false
	}
	user, err := g.user(r)
	return user, err == nil
}

// Login returns who has logged in. Where nobody has, it answers with the question
// for a login. The rules have to have users.
func (g *Guard) Login(w http.ResponseWriter, r *http.Request) (user string, ok bool) {
	user, err := g.user(r)
	if err != nil {
		g.refuseLogin(w, r, err)
		return "", false
	}
	return user, true
}

// MayFetch says whether a request may cause a download: it is for
// serve.Options.MayFetch. A login may change it where the challenge is not empty.
func (g *Guard) MayFetch(r *http.Request) (ok bool, ask string) {
	if len(g.rules.Fetchers) == 0 && g.rules.Login != LoginFetch {
		return true, ""
	}
	user, loggedIn := g.User(r)
	if len(g.rules.Fetchers) == 0 && loggedIn {
		return true, ""
	}
	a := peer(r)
	login := len(g.rules.Fetchers) == 0
	for _, f := range g.rules.Fetchers {
		switch {
		case f.Network.IsValid():
			ok = ok || f.Network.Contains(a)
		default:
			ok = ok || loggedIn && user == f.User
			login = true
		}
	}
	if ok {
		return true, ""
	}
	g.refused[RefusedFetch].Add(1)
	if login && !loggedIn {
		ask = challenge
	}
	return false, ask
}
