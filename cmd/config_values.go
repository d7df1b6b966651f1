package cmd

import (
	"errors"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"mirrorctl/lockfile/stricttoml"
	"mirrorctl/serve"
)

// maxJobs is far more than any network can use.
const maxJobs = 256

// maxConnections is more than any registry would like.
const maxConnections = 64

// minTimeout is less than any busy registry needs, and maxTimeout more than
// anybody who waits has patience.
const (
	minTimeout = time.Second
	maxTimeout = time.Hour
)

// configReader reads the tables of a configuration; mistakes go into the
// document. No message shows a value that may hold a password, and that is any
// address: people put user:password@ there.
type configReader struct {
	folder string // of the file, absolute; relative paths start here
}

func (c *config) read(root *stricttoml.Table, folder string) {
	r := configReader{folder}
	c.Store = r.path(root, "store")
	if jobs, ok := root.Int("jobs"); ok {
		if jobs < 1 || jobs > maxJobs {
			root.Errorf(stricttoml.Key{"jobs"}, "jobs must be from 1 to %d", maxJobs)
		}
		c.Jobs = int(jobs)
	}
	if n, ok := root.Int("connections"); ok {
		if n < 1 || n > maxConnections {
			root.Errorf(stricttoml.Key{"connections"}, "connections must be from 1 to %d", maxConnections)
		}
		c.Connections = int(n)
	}
	if text, ok := root.String("timeout"); ok {
		timeout, err := time.ParseDuration(text)
		if err != nil || timeout < minTimeout || timeout > maxTimeout {
			root.Errorf(stricttoml.Key{"timeout"}, "timeout %q: must be from 1s to 1h", text)
		}
		c.Timeout = timeout
	}
	c.LogLevel = r.choice(root, "log_level", "debug", "info", "warn", "error")
	c.LogFormat = r.choice(root, "log_format", "text", "json")
	c.MirrorHosts = r.mirrorHosts(root)

	server := root.Table("serve")
	c.Serve = serveConfig{Aliases: r.aliases(server.Table("aliases")), Hosts: r.hosts(server.Table("hosts"))}
	for _, s := range serveSettings {
		if values := s.read(server, folder); values != nil {
			if c.Serve.Values == nil {
				c.Serve.Values = map[string][]string{}
			}
			c.Serve.Values[s.key()] = values
		}
	}
	server.Done()

	registries := root.Table("registry")
	for _, key := range registries.Keys() {
		table := registries.Table(key)
		if table == nil {
			continue // not a table, and told so
		}
		conf := r.registry(table)
		name, err := serve.RegistryName(key)
		if err != nil {
			registries.Errorf(stricttoml.Key{key}, "%v", err)
			continue
		}
		if _, twice := c.Registries[name]; twice {
			registries.Errorf(stricttoml.Key{key}, "registry %s is configured twice", name)
		}
		if c.Registries == nil {
			c.Registries = map[string]registryConfig{}
		}
		c.Registries[name] = conf
	}
	root.Done()
}

// mirrorHosts reads the addresses of this mirror.
func (configReader) mirrorHosts(root *stricttoml.Table) []string {
	list, _ := root.Strings("mirror_hosts")
	var hosts []string
	for i, text := range list {
		at := stricttoml.Key{"mirror_hosts", strconv.Itoa(i)}
		host, err := serve.RegistryName(text)
		switch {
		case err != nil:
			root.Errorf(at, "mirror_hosts: %q is not an address as image names have it: a host, with a dot in it or :port after it", text)
		case host == "docker.io":
			root.Errorf(at, "mirror_hosts: %s is Docker Hub and no mirror", text)
		default:
			hosts = append(hosts, host)
		}
	}
	return hosts
}

func (r configReader) registry(t *stricttoml.Table) registryConfig {
	conf := registryConfig{
		URL:          r.url(t),
		PasswordFile: r.path(t, "password_file"),
		CA:           r.path(t, "ca"),
	}
	if mirrors, ok := t.Strings("mirrors"); ok {
		for i, mirror := range mirrors {
			address, err := httpURL(mirror)
			if err != nil {
				t.Errorf(stricttoml.Key{"mirrors", strconv.Itoa(i)}, "mirrors: %v", err)
			}
			conf.Mirrors = append(conf.Mirrors, address)
		}
	}
	conf.Username = r.filled(t, "username")
	conf.Password = secret(r.filled(t, "password"))
	conf.Insecure, _ = t.Bool("insecure")

	hasPassword := t.Has("password") || t.Has("password_file")
	switch {
	case t.Has("password") && t.Has("password_file"):
		t.Errorf(stricttoml.Key{"password_file"}, "password and password_file: only one of them")
	case t.Has("username") && !hasPassword:
		t.Errorf(stricttoml.Key{"username"}, "username without password or password_file")
	case hasPassword && !t.Has("username"):
		t.Errorf(nil, "password without username")
	}
	t.Done()
	return conf
}

// url reads a registry's own address.
func (r configReader) url(t *stricttoml.Table) string {
	text, ok := t.String("url")
	if !ok {
		return ""
	}
	const scheme = "ocidir://"
	if folder, isDir := strings.CutPrefix(text, scheme); isDir {
		if folder == "" {
			t.Errorf(stricttoml.Key{"url"}, "url: ocidir:// needs a path")
			return ""
		}
		return scheme + filepath.ToSlash(r.absolute(folder))
	}
	address, err := httpURL(text)
	if err != nil {
		t.Errorf(stricttoml.Key{"url"}, "url: %v, or ocidir://path", err)
	}
	return address
}

// aliases reads the dotless names for registries.
func (r configReader) aliases(t *stricttoml.Table) map[string]string {
	var aliases map[string]string
	for _, alias := range t.Keys() {
		if err := serve.CheckAlias(alias); err != nil {
			t.Errorf(stricttoml.Key{alias}, "%v", err)
		}
		if name := r.registryName(t, alias); name != "" {
			if aliases == nil {
				aliases = map[string]string{}
			}
			aliases[alias] = name
		}
	}
	return aliases
}

// hosts reads the names of this mirror that stand for registries.
func (r configReader) hosts(t *stricttoml.Table) map[string]string {
	var hosts map[string]string
	for _, key := range t.Keys() {
		host, err := serve.VirtualHost(key)
		if err != nil {
			t.Errorf(stricttoml.Key{key}, "%v", err)
		} else if _, twice := hosts[host]; twice {
			t.Errorf(stricttoml.Key{key}, "host %s is configured twice", host)
		}
		if name := r.registryName(t, key); name != "" {
			if hosts == nil {
				hosts = map[string]string{}
			}
			hosts[host] = name
		}
	}
	return hosts
}

func (configReader) registryName(t *stricttoml.Table, key string) string {
	text, ok := t.String(key)
	if !ok {
		return ""
	}
	name, err := serve.RegistryName(text)
	if err != nil {
		t.Errorf(stricttoml.Key{key}, "%s: %v", key, err)
	}
	return name
}

// filled reads a string that says something.
func (configReader) filled(t *stricttoml.Table, key string) string {
	text, ok := t.String(key)
	if ok && text == "" {
		t.Errorf(stricttoml.Key{key}, "%s is empty", key)
	}
	return text
}

func (configReader) choice(t *stricttoml.Table, key string, words ...string) string {
	text, ok := t.String(key)
	if ok && !slices.Contains(words, text) {
		t.Errorf(stricttoml.Key{key}, "%s must be one of %s", key, strings.Join(words, ", "))
	}
	return text
}

// path reads a path of the file system and makes it absolute.
func (r configReader) path(t *stricttoml.Table, key string) string {
	text := r.filled(t, key)
	if text == "" {
		return ""
	}
	if text == "~" || strings.HasPrefix(text, "~/") {
		t.Errorf(stricttoml.Key{key}, "%s: ~ is not expanded here, write the path in full", key)
	}
	return r.absolute(text)
}

func (r configReader) absolute(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(r.folder, path)
}

// httpURL checks the address of a registry and cuts slashes off its end.
func httpURL(text string) (string, error) {
	// The errors of url.Parse quote the text, so none of them is passed on.
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Opaque != "":
		return "", errors.New("must be http://host[:port][/prefix] or https://")
	case u.User != nil:
		return "", errors.New("no user or password in an address: use username and password, instead of http(s)://host[:port][/prefix]")
	case u.RawQuery != "" || u.ForceQuery || strings.Contains(text, "#"):
		return "", errors.New("no query or fragment in an address: http(s)://host[:port][/prefix]")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "", errors.New("port out of range in http(s)://host[:port][/prefix]")
		}
	}
	return strings.TrimRight(u.String(), "/"), nil
}
