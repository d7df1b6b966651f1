package cmd

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/containerd/platforms"
	"github.com/urfave/cli/v2"

	"mirrorctl/serve"
	"mirrorctl/serve/access"
	"mirrorctl/serve/certs"
	"mirrorctl/serve/limit"
	"mirrorctl/upstream"
)

// serveOptions are the settings of serve, read and checked, with the files that
// they name.
type serveOptions struct {
	given    map[string]given // by name of the setting
	rules    access.Rules
	limits   limit.Limits
	pair     *certs.Pair // nil without TLS
	through  upstream.PullThroughOptions
	registry serve.Options
}

// text returns the only value of a setting, empty if there is none.
func (o serveOptions) text(name string) string {
	if values := o.given[name].values; len(values) > 0 {
		return values[0]
	}
	return ""
}

// serveOptions reads the settings. The error joins all mistakes.
func (p *program) serveOptions(c *cli.Context, conf config) (serveOptions, error) {
	o := serveOptions{given: map[string]given{}}
	var errs []error
	for _, s := range serveSettings {
		g, err := p.setting(c, conf, s)
		o.given[s.name] = g
		errs = append(errs, err)
	}
	if errors.Join(errs...) != nil {
		return o, errors.Join(errs...)
	}
	o.registry = serve.Options{
		DefaultRegistry: o.text("default-registry"),
		Aliases:         conf.Serve.Aliases,
		Hosts:           conf.Serve.Hosts,
		Log:             p.log,
	}
	var err error
	errs = append(errs, o.readThrough(), o.readTLS(), o.readAccess())
	o.limits, err = o.readLimits()
	return o, errors.Join(append(errs, err)...)
}

// readThrough reads what may be fetched; without registries nothing is.
func (o *serveOptions) readThrough() error {
	o.through.Registries = o.given["pull-through"].values
	for _, text := range o.given["platforms"].values {
		platform, err := platforms.Parse(text)
		if err != nil {
			return err
		}
		o.through.Platforms = append(o.through.Platforms, platform)
	}
	if by := o.given["platforms"].by; by == "--platform" && len(o.through.Registries) == 0 {
		return usageErrorf("--platform limits what --pull-through fetches; without it all that is pinned is served")
	}
	return nil
}

func (o *serveOptions) readTLS() error {
	cert, key := o.text("tls-cert"), o.text("tls-key")
	switch {
	case cert == "" && key == "":
		return nil
	case cert == "":
		return usageErrorf("%s without --tls-cert", o.given["tls-key"].by)
	case key == "":
		return usageErrorf("%s without --tls-key", o.given["tls-cert"].by)
	}
	var err error
	if o.pair, err = certs.OpenPair(cert, key); err != nil {
		return fmt.Errorf("%w; mirrorctl cert makes a pair", err)
	}
	return nil
}

func (o *serveOptions) readAccess() error {
	o.rules = access.Rules{}
	var errs []error
	if path := o.text("htpasswd"); path != "" {
		text, err := readLimited(path)
		if err == nil {
			o.rules.Users, err = access.ParseUsers(path, text)
		}
		if err != nil {
			return fmt.Errorf("htpasswd: %w", err)
		}
		o.rules.Login = access.LoginFetch
	}
	if admin := o.given["admin"]; len(admin.values) > 0 && o.rules.Users == nil {
		errs = append(errs, usageErrorf("%s without --htpasswd: nobody can log in", admin.by))
	}
	o.rules.Login = access.Login(cmp.Or(o.text("require-login"), string(o.rules.Login)))
	networks := func(name string) (all []netip.Prefix) {
		for _, text := range o.given[name].values {
			if name == "trusted-proxy" && text == "unix" {
				o.rules.Proxies.Unix = true
				continue
			}
			p, err := access.ParseNetwork(text)
			errs = append(errs, err)
			all = append(all, p)
		}
		return all
	}
	o.rules.Allow = networks("allow")
	o.rules.Proxies.Prefixes = networks("trusted-proxy")
	for _, text := range o.given["pull-through-for"].values {
		f, err := access.ParseFetcher(text)
		errs = append(errs, err)
		o.rules.Fetchers = append(o.rules.Fetchers, f)
	}
	if err := o.rules.Check(); err != nil {
		errs = append(errs, &codedError{exitUsage, err})
	}
	return errors.Join(errs...)
}

func (o *serveOptions) readLimits() (l limit.Limits, err error) {
	l.Exempt = o.rules.Proxies.Prefixes
	var errs [3]error
	l.Connections, errs[0] = strconv.Atoi(o.text("max-connections"))
	l.PerClient, errs[1] = strconv.Atoi(o.text("max-connections-per-client"))
	l.MinRate, errs[2] = bytesOf(o.text("min-rate"))
	return l, errors.Join(errs[:]...)
}

// grace is how long downloads may go on after a stop, as [serve.Server] takes it.
func (o serveOptions) grace() time.Duration {
	grace, err := time.ParseDuration(o.text("grace"))
	if err != nil || grace == 0 {
		return -1 // the server takes 0 for its default
	}
	return grace
}

// scrub is how often the store is hashed again; 0 is never.
func (o serveOptions) scrub() time.Duration {
	period, _ := time.ParseDuration(o.text("scrub")) // checked; empty is never
	return period
}

// accessLog is the format of the access log.
func (p *program) accessLog(o serveOptions) serve.LogFormat {
	if p.quiet {
		return serve.LogOff
	}
	return serve.LogFormat(cmp.Or(o.text("access-log"), p.logFormat))
}

// files are those that are read again when they change.
func (o serveOptions) files() []string {
	var files []string
	for _, s := range serveSettings {
		if s.path && o.text(s.name) != "" {
			files = append(files, o.text(s.name))
		}
	}
	return files
}

// fixed names the settings that are other than before and wait for a restart.
func (o serveOptions) fixed(before serveOptions) []string {
	var names []string
	for _, s := range serveSettings {
		if !s.live && !slices.Equal(o.given[s.name].values, before.given[s.name].values) {
			names = append(names, s.key())
		}
	}
	return names
}
