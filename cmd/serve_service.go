package cmd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/signal"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"mirrorctl/cmd/systemd"
	"mirrorctl/serve"
	"mirrorctl/serve/access"
	"mirrorctl/serve/certs"
	"mirrorctl/serve/limit"
	"mirrorctl/serve/metrics"
	"mirrorctl/serve/page"
	"mirrorctl/store"
	"mirrorctl/upstream"
)

// service is a running serve. What stands around the registry is built anew when
// the configuration or a file of it changes; all else stays.
type service struct {
	*program
	store    *store.Store
	registry *serve.Handler
	limiter  *limit.Limiter
	lines    *lineBuffer  // to standard error
	options  serveOptions // of the one goroutine that follows changes
	metrics  *metrics.Metrics
	stopping context.Context                   // ends when it stops
	refused  [access.RefusalCount]atomic.Int64 // by guards that have been replaced
	loaded   atomic.Pointer[loaded]
	guard    atomic.Pointer[access.Guard]
	handler  atomic.Pointer[http.Handler]
}

// newService returns a service for a store. missing is nil without pull-through.
func (p *program) newService(ctx context.Context, st *store.Store, o serveOptions, missing *upstream.PullThrough) (*service, error) {
	s := &service{program: p, store: st, limiter: limit.New(o.limits), lines: newLineBuffer(p.stderr), stopping: ctx, options: o}
	s.loaded.Store(&loaded{time.Now(), true})
	s.metrics = s.newMetrics(missing)
	opts := o.registry
	opts.Observer = s.metrics
	opts.Page = page.New(ctx, page.Options{
		Store: st, PullThrough: o.through.Registries, Aliases: opts.Aliases, Log: p.log, Admin: s.admin(o.given["admin"].values),
		Pending: func(repo store.Repository, reference string) store.Usage { return s.registry.Usage(repo, reference) },
	})
	if missing != nil {
		opts.Missing = missing
		opts.MayFetch = func(r *http.Request) (bool, string) { return s.guard.Load().MayFetch(r) }
	}
	var err error
	if s.registry, err = serve.New(st, opts); err != nil {
		return nil, usageErrorf("%w", err)
	}
	return s, s.build(o)
}

// admin returns what lets users remove pins on the page; nil for nobody.
func (s *service) admin(users []string) func(http.ResponseWriter, *http.Request) (string, bool) {
	if len(users) == 0 {
		return nil
	}
	return func(w http.ResponseWriter, r *http.Request) (string, bool) {
		user, ok := s.guard.Load().Login(w, r)
		if ok && !slices.Contains(users, user) {
			http.Error(w, user+" may not remove pins: serve --admin says who may.", http.StatusForbidden)
			return "", false
		}
		return user, ok
	}
}

// build puts the handlers together, and from here on uses them.
func (s *service) build(o serveOptions) error {
	guard, err := access.New(o.rules)
	if err != nil {
		return usageErrorf("%w", err)
	}
	site := guard.Read(s.registry)
	if o.text("admin-listen") == "" {
		site = s.status(site, guard.Read(s.metrics.Handler()))
	}
	logged, err := serve.AccessLog(site, s.accessLog(o), s.lines)
	if err != nil {
		return usageErrorf("%w", err)
	}
	handler := guard.Client(logged)
	if old := s.guard.Swap(guard); old != nil {
		for _, why := range access.Refusals() {
			s.refused[why].Add(old.Refused(why))
		}
	}
	s.handler.Store(&handler)
	s.limiter.Set(o.limits)
	s.options = o
	return nil
}

func (s *service) tls() *tls.Config {
	if s.options.pair == nil {
		return nil
	}
	return certs.Config(s.options.pair.Get)
}

// who says who may use the mirror, if not everybody may do everything.
func (*service) who(o serveOptions) string {
	var rules []string
	if len(o.rules.Allow) > 0 {
		rules = append(rules, "only "+strings.Join(o.given["allow"].values, ", ")+" may read")
	}
	switch {
	case o.rules.Login == access.LoginRead:
		rules = append(rules, "reading needs a login")
	case o.rules.Users != nil:
		rules = append(rules, "reading needs no login")
	}
	if len(o.through.Registries) > 0 {
		switch {
		case len(o.rules.Fetchers) > 0:
			rules = append(rules, "only "+strings.Join(o.given["pull-through-for"].values, ", ")+" may cause downloads")
		case o.rules.Login == access.LoginFetch:
			rules = append(rules, "downloads need a login")
		}
	}
	return strings.Join(rules, "; ")
}

// lookAgain is how often the files of the configuration are looked at.
const lookAgain = 2 * time.Second

// follow takes changes over until ctx ends: of the files that settings name when
// they are seen, and of the configuration on SIGHUP.
func (s *service) follow(c *cli.Context, ctx context.Context) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	seen := signatures(s.options.files())
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangup:
			s.notify(systemd.Reloading()...)
			s.reload(c)
			s.notify("READY=1")
			seen = signatures(s.options.files())
		case <-tick.C:
			if now := signatures(s.options.files()); now != seen {
				seen = now
				s.reread()
			}
		}
	}
}

// signatures tell whether files have changed, also by way of a symbolic link, as
// Kubernetes replaces secrets.
func signatures(files []string) string {
	var all strings.Builder
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			fmt.Fprintf(&all, "%s: %v\n", file, err)
			continue
		}
		fmt.Fprintf(&all, "%s: %v %d %v\n", file, info.ModTime(), info.Size(), info.Sys())
	}
	return all.String()
}

// reread takes over what the files say now. Where that cannot be used, what was
// there before stays.
func (s *service) reread() {
	o := s.options
	err := o.readAccess()
	if err == nil {
		err = s.build(o)
	}
	if o.pair != nil {
		err = errors.Join(err, o.pair.Load())
	}
	s.reloaded(err, "certificate and users were read again")
}

// reload reads the configuration again.
func (s *service) reload(c *cli.Context) {
	conf, err := openConfig(c.String("config"), s.getenv)
	var o serveOptions
	if err == nil {
		o, err = s.serveOptions(c, conf)
	}
	if err == nil {
		s.keepFixed(&o, conf)
		err = s.build(o)
	}
	s.reloaded(err, "the configuration was read again")
}

// keepFixed keeps what cannot change while serving, and says so.
func (s *service) keepFixed(o *serveOptions, conf config) {
	names := o.fixed(s.options)
	if !reflect.DeepEqual(conf.Registries, s.config.Registries) {
		names = append(names, "registry")
	}
	if conf.Store != s.config.Store || conf.Jobs != s.config.Jobs || conf.LogLevel != s.config.LogLevel || conf.LogFormat != s.config.LogFormat {
		names = append(names, "what stands before [serve]")
	}
	if !maps.Equal(conf.Serve.Aliases, s.config.Serve.Aliases) || !maps.Equal(conf.Serve.Hosts, s.config.Serve.Hosts) {
		names = append(names, "aliases, hosts")
	}
	if len(names) > 0 {
		s.say("after a restart only: %s", strings.Join(names, ", "))
	}
	for _, setting := range serveSettings {
		if !setting.live {
			o.given[setting.name] = s.options.given[setting.name]
		}
	}
	o.through, o.registry = s.options.through, s.options.registry
	if pair := s.options.pair; pair != nil {
		if err := pair.Load(); err != nil {
			s.log.Error("the certificate stays as it was", "err", err)
		}
	}
	o.pair = s.options.pair
}

func (s *service) reloaded(err error, what string) {
	s.loaded.Store(&loaded{time.Now(), err == nil})
	if err == nil {
		s.say("%s", what)
		return
	}
	s.say("what was read last stays, because of this:")
	s.printError(err)
}
