// Package access says who may use a mirror: which networks, who has to log in, and
// who may cause a download.
//
// A [Guard] is three handlers around another, because each has its place: [Guard.Client]
// outside of the access log, which shows the client's address; [Guard.Read] inside,
// so that refusals are logged; and [Guard.MayFetch] is asked where something turns
// out to be missing, and nowhere else.
package access

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Login is what needs a login.
type Login string

const (
	LoginNone  Login = "none"         // nothing
	LoginFetch Login = "pull-through" // what causes a download
	LoginRead  Login = "read"         // everything
)

// ParseLogin reads a Login.
func ParseLogin(s string) (Login, error) {
	if l := Login(s); slices.Contains([]Login{LoginNone, LoginFetch, LoginRead}, l) {
		return l, nil
	}
	return "", errors.New("must be none, pull-through or read")
}

// Rules are who may do what. The zero value lets everybody do everything.
type Rules struct {
	Allow   []netip.Prefix // networks of clients that may use the mirror; none is all
	Proxies Networks       // whose word on who the client is, is taken
	Users   *Users         // who can log in; nil is nobody
	Login   Login          // "" is LoginNone

	// Fetchers are those that may cause a download, of those who may read. None
	// is everybody, or with LoginFetch everybody who has logged in.
	Fetchers []Fetcher
}

// Networks are networks of peers, and maybe the Unix sockets.
type Networks struct {
	Prefixes []netip.Prefix
	Unix     bool
}

// Fetcher is a network or a user.
type Fetcher struct {
	Network netip.Prefix
	User    string // if the network is not valid
}

// ParseNetwork reads a network in CIDR notation, or an address.
func ParseNetwork(s string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		if p != p.Masked() {
			return netip.Prefix{}, fmt.Errorf("%s has bits beyond its length: is %s meant?", s, p.Masked())
		}
		return p, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, errors.New("must be a network, such as 10.0.0.0/8, or an address")
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// ParseFetcher reads a network or, if it is none, the name of a user.
func ParseFetcher(s string) (Fetcher, error) {
	if p, err := ParseNetwork(s); err == nil {
		return Fetcher{Network: p}, nil
	}
	if s == "" || strings.ContainsAny(s, ":/ ") {
		return Fetcher{}, errors.New("must be a network, such as 10.0.0.0/8, or a user")
	}
	return Fetcher{User: s}, nil
}

func contains(all []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(all, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Check reports rules that cannot be followed.
func (r *Rules) Check() error {
	var errs []error
	if r.Users == nil && r.Login != "" && r.Login != LoginNone {
		errs = append(errs, fmt.Errorf("a login for %s needs users, in an htpasswd file", r.Login))
	}
	for _, f := range r.Fetchers {
		if f.Network.IsValid() {
			continue
		}
		if r.Users == nil || !r.Users.Has(f.User) {
			errs = append(errs, fmt.Errorf("%s, who may cause downloads, is no user of the htpasswd file", f.User))
		}
	}
	return errors.Join(errs...)
}
