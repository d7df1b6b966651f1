package cmd

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"mirrorctl/cmd/client"
	"mirrorctl/serve"
	"mirrorctl/serve/certs"
)

// The files of cert.
const (
	authorityCert, authorityKey = "ca.pem", "ca.key"
	serverCert, serverKey       = "server.pem", "server.key"
)

func (p *program) certCommand() *cli.Command {
	return &cli.Command{
		Name:      "cert",
		Usage:     "make a certificate for serve, from a private authority",
		ArgsUsage: "NAME...",
		Description: "For a mirror without a public name. Makes an authority, ca.pem and ca.key, unless it\n" +
			"is there, and from it server.pem and server.key for the names and addresses by which\n" +
			"clients call the mirror; then says how each client comes to trust ca.pem. Run it again\n" +
			"before the certificate ends: a running serve takes the new one over, and clients\n" +
			"notice nothing. Who has ca.key can be any server to these clients: keep it elsewhere.\n\n" +
			"   mirrorctl cert buildbox buildbox.lan 10.0.0.5 --dir certs\n" +
			"   mirrorctl serve --listen :5000 --tls-cert certs/server.pem --tls-key certs/server.key",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "dir", Value: ".", Usage: "put the files into `DIR`"},
			&cli.IntFlag{Name: "days", Value: 397, Usage: "let the server's certificate end after `N` days, at most 825"},
			&cli.StringFlag{Name: "port", Value: "5000", Usage: "the `PORT` of the mirror, for what is printed"},
		},
		Action: p.cert,
	}
}

func (p *program) cert(c *cli.Context) error {
	names := c.Args().Slice()
	if len(names) == 0 {
		return usageErrorf("cert takes the names and addresses of the mirror: mirrorctl cert buildbox 10.0.0.5")
	}
	for _, name := range names {
		if _, err := serve.VirtualHost(name); err != nil && net.ParseIP(name) == nil {
			return usageErrorf("%s: must be a host name or an address, without port", name)
		}
	}
	if days := c.Int("days"); days < 1 || days > 825 {
		return usageErrorf("--days must be from 1 to 825: some clients trust no longer ones")
	}
	dir := c.String("dir")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	authority, authorityPEM, err := p.authority(dir)
	if err != nil {
		return err
	}
	cert, key, err := authority.Issue(names, time.Duration(c.Int("days"))*24*time.Hour)
	if err != nil {
		return err
	}
	// The key first: serve takes a pair over only when both belong together.
	if err := errors.Join(
		putFile(filepath.Join(dir, serverKey), key, 0o600),
		putFile(filepath.Join(dir, serverCert), cert, 0o644),
	); err != nil {
		return err
	}
	p.say("%s and %s: for %s, until %s", filepath.Join(dir, serverCert), serverKey, strings.Join(names, ", "), certEnd(authority, c.Int("days")))
	return p.printTrust(net.JoinHostPort(names[0], c.String("port")), filepath.Join(dir, authorityCert), authorityPEM)
}

func certEnd(authority *certs.Authority, days int) string {
	end := time.Now().AddDate(0, 0, days)
	if authority.Expiry().Before(end) {
		end = authority.Expiry()
	}
	return end.Format(time.DateOnly)
}

// authority reads the authority of a folder, or makes one. It never replaces one:
// all clients would have to trust the new one.
func (p *program) authority(dir string) (*certs.Authority, []byte, error) {
	certFile, keyFile := filepath.Join(dir, authorityCert), filepath.Join(dir, authorityKey)
	certPEM, err := os.ReadFile(certFile)
	keyPEM, keyErr := os.ReadFile(keyFile)
	switch {
	case err == nil && errors.Is(keyErr, fs.ErrNotExist):
		return nil, nil, fmt.Errorf("%s is there, its key %s is not; bring the key, or give another --dir for another authority", certFile, authorityKey)
	case errors.Is(err, fs.ErrNotExist) && keyErr == nil:
		return nil, nil, fmt.Errorf("%s is there, its certificate %s is not; bring it, or give another --dir for another authority", keyFile, authorityCert)
	case err == nil && keyErr == nil:
		authority, err := certs.ReadAuthority(certPEM, keyPEM)
		if err != nil {
			return nil, nil, fmt.Errorf("%s, %s: %w; give another --dir for another authority", certFile, authorityKey, err)
		}
		p.say("%s: the authority that is there", certFile)
		return authority, certPEM, nil
	case !errors.Is(err, fs.ErrNotExist) || !errors.Is(keyErr, fs.ErrNotExist):
		return nil, nil, errors.Join(err, keyErr)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "this machine"
	}
	authority, err := certs.NewAuthority("mirrorctl on " + host + ", " + time.Now().Format(time.DateOnly))
	if err != nil {
		return nil, nil, err
	}
	if certPEM, keyPEM, err = authority.PEM(); err != nil {
		return nil, nil, err
	}
	if err := errors.Join(createFile(keyFile, keyPEM, 0o600), createFile(certFile, certPEM, 0o644)); err != nil {
		return nil, nil, err
	}
	p.say("%s and %s: a new authority, until %s", certFile, authorityKey, authority.Expiry().Format(time.DateOnly))
	return authority, certPEM, nil
}

// createFile writes a file that is not there.
func createFile(path string, text []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}

// putFile puts a file in the place of another, all at once.
func putFile(path string, text []byte, mode fs.FileMode) error {
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := createFile(fresh, text, mode); err != nil {
		return err
	}
	return os.Rename(fresh, path)
}

// printTrust says for each client where the authority goes.
func (p *program) printTrust(address, file string, authority []byte) error {
	mirror := client.Mirror{Address: address, TLS: true, CA: authority, Registries: []string{"docker.io"}, DockerConfig: "~/.docker"}
	t := newTable(p.stdout, "CLIENT", "TRUSTS THE MIRROR WITH")
	for _, known := range client.Clients() {
		config, err := client.Build(known.Name, mirror)
		if err != nil {
			continue // it has no way
		}
		where := "what mirrorctl client " + known.Name + " prints"
		for _, f := range config.Files {
			if f.Content == string(authority) && !f.Snippet() {
				where = f.Path
			}
		}
		t.row(known.Name, where)
	}
	t.row("others", "the system's authorities: /usr/local/share/ca-certificates/mirrorctl.crt, then update-ca-certificates")
	if err := t.flush(); err != nil {
		return err
	}
	p.say("on a client: mirrorctl client NAME --mirror https://%s --ca %s --write", address, file)
	return nil
}
