package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// A server is a running registry, or what stands for one, with the images.
type server struct {
	*process
	name    string
	address string
}

func (s *server) url(repository, kind, reference string) string {
	return "http://" + s.address + "/v2/" + repository + "/" + kind + "/" + reference
}

// A contender is a registry that may be installed.
type contender struct {
	name    string
	program string
	// config returns the command's arguments, and writes the configuration into
	// dir, where the content goes too.
	config func(dir, address string) ([]string, error)
}

var registries = []contender{
	{"olareg", "olareg", func(dir, address string) ([]string, error) {
		host, port, err := net.SplitHostPort(address)
		return []string{"serve", "--dir", dir, "--addr", host, "--port", port}, err
	}},
	{"zot", "zot", func(dir, address string) ([]string, error) {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		config, err := write(dir, "zot.json", `{"storage": {"rootDirectory": %q, "gc": false}, "http": {"address": %q, "port": %q}, "log": {"level": "error"}}`,
			filepath.Join(dir, "data"), host, port)
		return []string{"serve", config}, err
	}},
	{"distribution 3", "registry", func(dir, address string) ([]string, error) {
		config, err := write(dir, "config.yml", distributionConfig, address, filepath.Join(dir, "data"), "{}")
		return []string{"serve", config}, err
	}},
	{"distribution 2.8", "docker-registry", func(dir, address string) ([]string, error) {
		config, err := write(dir, "config.yml", distributionConfig, address, filepath.Join(dir, "data"), "{blobdescriptor: inmemory}")
		return []string{"serve", config}, err
	}},
}

const distributionConfig = `version: 0.1
log: {level: error, accesslog: {disabled: true}}
http: {addr: %q}
storage: {filesystem: {rootdirectory: %q}, cache: %s}
`

const nginxConfig = `daemon off;
pid nginx.pid;
error_log stderr;
worker_processes auto;
events { worker_connections 1024; }
http {
	access_log off;
	sendfile on;
	tcp_nopush on;
	keepalive_requests 1000000000;
	default_type application/vnd.oci.image.index.v1+json;
	client_body_temp_path body;
	proxy_temp_path proxy;
	fastcgi_temp_path fastcgi;
	uwsgi_temp_path uwsgi;
	scgi_temp_path scgi;
	server {
		listen %s;
		root %q;
	}
}
`

func write(dir, name, format string, args ...any) (string, error) {
	path := filepath.Join(dir, name)
	return path, errors.Join(os.MkdirAll(filepath.Dir(path), 0o777), os.WriteFile(path, fmt.Appendf(nil, format, args...), 0o666))
}

// servers starts mirrorctl, a bare handler, nginx and the registries that are
// installed, all with the images. stop ends them.
func (b *bench) servers(ctx context.Context, m *images) (all []*server, stop func(), err error) {
	stop = func() {
		for _, s := range all {
			s.stop()
		}
	}
	defer func() {
		if err != nil {
			stop()
		}
	}()
	add := func(name string, run func(dir, address string) (*process, error)) error {
		dir := filepath.Join(b.dir, strings.ReplaceAll(name, " ", "-"))
		address, err := freeAddress()
		if err == nil {
			err = os.MkdirAll(dir, 0o777)
		}
		if err != nil {
			return err
		}
		p, err := run(dir, address)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, &server{p, name, address})
		return nil
	}

	storeDir := filepath.Join(b.dir, "store")
	if err := b.fillStore(ctx, m, storeDir); err != nil {
		return nil, stop, err
	}
	for _, one := range []struct{ name, program, log string }{
		{"mirrorctl", b.mirrorctl, "off"},
		{"mirrorctl, access log", b.mirrorctl, "text"},
		{"mirrorctl before", b.before, "off"},
		{"mirrorctl before, access log", b.before, "text"},
	} {
		if one.program == "" {
			continue
		}
		err := add(one.name, func(dir, address string) (*process, error) {
			return start(ctx, dir, address, one.program, "--store", storeDir, "serve", "--listen", address, "--access-log", one.log)
		})
		if err != nil {
			return all, stop, err
		}
	}
	if err := add("bare handler", func(dir, address string) (*process, error) {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		return start(ctx, dir, address, self, bareCommand, address, all[0].address)
	}); err != nil {
		return all, stop, err
	}
	if nginx, ok := installed("nginx"); ok {
		if err := add("nginx", func(dir, address string) (*process, error) {
			// Its workers need to read this also when it is started as root.
			if err := errors.Join(os.Chmod(b.dir, 0o755), m.files(filepath.Join(dir, "root"))); err != nil {
				return nil, err
			}
			config, err := write(dir, "nginx.conf", nginxConfig, address, filepath.Join(dir, "root"))
			if err != nil {
				return nil, err
			}
			return start(ctx, dir, address, nginx, "-p", dir, "-c", config)
		}); err != nil {
			return all, stop, err
		}
	}
	for _, r := range registries {
		program, ok := installed(r.program)
		if !ok {
			continue
		}
		if err := add(r.name, func(dir, address string) (*process, error) {
			args, err := r.config(dir, address)
			if err != nil {
				return nil, err
			}
			p, err := start(ctx, dir, address, program, args...)
			if err == nil {
				if err = m.push(ctx, address); err != nil {
					p.stop()
				}
			}
			return p, err
		}); err != nil {
			return all, stop, err
		}
	}
	return all, stop, nil
}

// fillStore pins the images.
func (b *bench) fillStore(ctx context.Context, m *images, store string) error {
	dir := filepath.Join(b.dir, "project")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	source, err := m.source(ctx, dir)
	if err != nil {
		return err
	}
	defer source.Close()
	if _, err := write(dir, "mirrorctl.toml", "[registry.\"docker.io\"]\nurl = %q\n", source.URL); err != nil {
		return err
	}
	_, err = command(ctx, dir, b.mirrorctl, "--store", store, "add", indexRepository, largeRepository)
	return errors.Join(err, os.RemoveAll(dir))
}

// files writes the images as a web server serves them.
func (m *images) files(root string) error {
	text, err := m.index.RawManifest()
	if err != nil {
		return err
	}
	digest, err := m.index.Digest()
	if err != nil {
		return err
	}
	manifests, blobs := filepath.Join(root, "v2", indexRepository, "manifests"), filepath.Join(root, "v2", largeRepository, "blobs")
	return errors.Join(os.MkdirAll(manifests, 0o777), os.MkdirAll(blobs, 0o777),
		os.WriteFile(filepath.Join(manifests, "latest"), text, 0o666),
		os.WriteFile(filepath.Join(manifests, digest.String()), text, 0o666),
		os.Link(m.layer.path, filepath.Join(blobs, m.layer.digest.String())))
}
