package cmd

import (
	"cmp"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"mirrorctl/cmd/client"
	"mirrorctl/lockfile"
	"mirrorctl/serve"
	"mirrorctl/store"
)

func (p *program) clientCommand() *cli.Command {
	return &cli.Command{
		Name:      "client",
		Usage:     "print what makes docker, BuildKit, containerd, podman and others use this mirror",
		ArgsUsage: "NAME",
		Description: "Prints files with where they belong and what to restart. With --write they are\n" +
			"merged into what is there, with a backup; no daemon is touched. --list shows the\n" +
			"names.\n\n" +
			"   mirrorctl client docker --mirror buildbox:5000\n" +
			"   mirrorctl client podman --mirror buildbox:5000 --registry docker.io,ghcr.io --write\n" +
			"   mirrorctl client containerd --mirror https://mirror.corp --ca corp.pem --dry-run",
		Flags: append(mirrorFlags("take the images of `REGISTRY` from the mirror; several with commas; '*' is all, where the client can (default: those in the lock and the store, else docker.io)"),
			&cli.BoolFlag{Name: "list", Usage: "list the clients"},
			&cli.StringFlag{Name: "username", Usage: "the mirror wants a login, of `NAME`"},
			&cli.StringFlag{Name: "password-file", Usage: "with --write, for clients that keep the password in their own file: take it from `FILE`"},
			&cli.BoolFlag{Name: "no-fallback", Usage: "ask no registry when the mirror has no answer, where the client can be told so"},
			&cli.BoolFlag{Name: "write", Usage: "merge the files into what is there"},
			&cli.BoolFlag{Name: "dry-run", Usage: "show as a diff what --write would change"},
			&cli.StringFlag{Name: "root", Value: "/", Usage: "write below `DIR`, for images of machines"},
			&cli.BoolFlag{Name: "json", Usage: "print an array of objects: path, mode, content, note"},
		),
		BashComplete: p.completeWords(clientNames()...),
		Action:       p.client,
	}
}

func (p *program) client(c *cli.Context) error {
	if c.Bool("list") {
		t := newTable(p.stdout)
		for _, known := range client.Clients() {
			t.row(known.Name, known.About)
		}
		return t.flush()
	}
	if c.NArg() != 1 {
		return usageErrorf("client takes one name; mirrorctl client --list shows them")
	}
	name := c.Args().First()
	if err := knownClient(name); err != nil {
		return err
	}
	change := c.Bool("write") || c.Bool("dry-run")
	switch {
	case change && c.Bool("json"):
		return usageErrorf("--json prints, so it does not go with --write and --dry-run")
	case c.String("password-file") != "" && c.String("username") == "":
		return usageErrorf("--password-file without --username")
	case c.String("password-file") != "" && !change:
		return usageErrorf("--password-file is for --write: a password is never printed")
	}
	mirror, err := p.mirror(c)
	if err != nil {
		return err
	}
	config, err := client.Build(name, mirror)
	if err != nil {
		return usageErrorf("%w", err)
	}
	if change {
		err = p.writeClient(c, name, mirror, config)
	} else {
		err = p.printClient(c, config)
	}
	if err != nil {
		return err
	}
	if def := p.config.Serve.one("default_registry"); def != "" && def != "docker.io" && slices.Contains([]string{"docker", "gitlab-runner", "kaniko"}, name) {
		p.say("warning: %s asks for Docker Hub's images without saying so, and this mirror's default_registry is %s", name, def)
	}
	return nil
}

func clientNames() []string {
	var names []string
	for _, known := range client.Clients() {
		names = append(names, known.Name)
	}
	return names
}

func knownClient(name string) error {
	names := clientNames()
	if slices.Contains(names, name) {
		return nil
	}
	if near := nearest(name, names); near != "" {
		return usageErrorf("client %q is not known; did you mean %s?", name, near)
	}
	return usageErrorf("client %q is not known; mirrorctl client --list shows those that are", name)
}

// mirror puts together what flags, configuration, lock and store say.
func (p *program) mirror(c *cli.Context) (client.Mirror, error) {
	var m client.Mirror
	var err error
	if m.Address, m.TLS, err = p.mirrorAddress(c); err != nil {
		return m, err
	}
	if file := c.String("ca"); file != "" {
		if !m.TLS {
			return m, usageErrorf("--ca is for a mirror with https; write --mirror https://%s", m.Address)
		}
		text, err := (registryConfig{CA: file}).authorities()
		if err != nil {
			return m, err
		}
		m.CA = certificates(text)
	}
	m.Username = c.String("username")
	if strings.ContainsAny(m.Username, ":\r\n") {
		return m, usageErrorf("--username: no colon or line end is allowed; the password is not given here")
	}
	if file := c.String("password-file"); file != "" {
		if m.Password, err = (registryConfig{PasswordFile: file}).password(); err != nil {
			return m, err
		}
	}
	m.NoFallback = c.Bool("no-fallback")
	m.Aliases = p.config.Serve.Aliases
	m.DockerConfig = cmp.Or(p.getenv("DOCKER_CONFIG"), filepath.Join(cmp.Or(p.getenv("HOME"), "/root"), ".docker"))
	if m.DockerConfig, err = filepath.Abs(m.DockerConfig); err != nil {
		return m, err
	}
	m.Registries, err = p.mirroredRegistries(c)
	return m, err
}

// certificates are those of a PEM file, and nothing else of it: a key that stands
// beside them is not for everybody.
func certificates(text []byte) []byte {
	var all []byte
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			all = append(all, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})...)
		}
	}
	return all
}

// mirrorAddress is the mirror's host and port, and whether it speaks TLS.
func (p *program) mirrorAddress(c *cli.Context) (address string, tls bool, err error) {
	text := c.String("mirror")
	if text == "" {
		if text, err = p.ownAddress(); err != nil {
			return "", false, err
		}
	}
	if !strings.Contains(text, "://") {
		if host, _, err := net.SplitHostPort(text); err != nil || host == "" {
			return "", false, usageErrorf("--mirror must be host:port, or http://host or https://host")
		}
		scheme := "http://"
		if c.String("ca") != "" {
			scheme = "https://"
		}
		text = scheme + text
	}
	// The errors of url.Parse quote the text, which may hold a password.
	u, err := url.Parse(text)
	if _, wrong := httpURL(text); err != nil || wrong != nil {
		return "", false, usageErrorf("--mirror %w", wrong)
	}
	if strings.Trim(u.Path, "/") != "" {
		return "", false, usageErrorf("--mirror: an address without a path, because clients put /v2/ in different places")
	}
	address, tls = strings.ToLower(u.Host), u.Scheme == "https"
	if u.Port() == "" && !strings.ContainsAny(address, ".:") {
		// A name alone would be no registry in the name of an image.
		address += map[bool]string{false: ":80", true: ":443"}[tls]
	}
	if _, err := serve.RegistryName(address); err != nil {
		return "", false, usageErrorf("--mirror: %w", err)
	}
	return address, tls, nil
}

// ownAddress is where clients find the mirror of this machine.
func (p *program) ownAddress() (string, error) {
	if len(p.config.MirrorHosts) > 0 {
		return p.config.MirrorHosts[0], nil
	}
	listen, _, _ := strings.Cut(p.getenv("MIRRORCTL_LISTEN"), ",")
	listen = cmp.Or(listen, p.config.Serve.one("listen"), defaultListen)
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", usageErrorf("the address that serve listens on, %s, must be HOST:PORT", listen)
	}
	ip := net.ParseIP(host)
	if host == "localhost" || ip != nil && ip.IsLoopback() {
		p.say("serve listens on %s, which no other machine reaches; another address is given with --mirror", listen)
	}
	if host != "" && (ip == nil || !ip.IsUnspecified()) {
		return listen, nil
	}
	if host, err = os.Hostname(); err != nil {
		return "", fmt.Errorf("the name of this machine: %w; give the mirror's address with --mirror", err)
	}
	return net.JoinHostPort(strings.ToLower(host), port), nil
}

// mirroredRegistries are those whose images the mirror has or is to have.
func (p *program) mirroredRegistries(c *cli.Context) ([]string, error) {
	var all []string
	for _, text := range c.StringSlice("registry") {
		name := strings.TrimSpace(text)
		if name != client.All {
			var err error
			if name, err = serve.RegistryName(name); err != nil {
				return nil, usageErrorf("--registry: %w", err)
			}
		}
		if !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	if all != nil {
		return all, nil
	}
	lock, err := lockfile.Read(c.String("lockfile"))
	if err != nil && (!errors.Is(err, fs.ErrNotExist) || c.IsSet("lockfile")) {
		return nil, err
	}
	for _, image := range lock.Images {
		registry, _, _ := strings.Cut(image.Name, "/")
		all = append(all, registry)
	}
	dir, err := p.storeDir(c)
	if err != nil {
		return nil, err
	}
	// A client is seldom on the machine of the store.
	switch st, err := store.OpenReadOnly(c.Context, dir); {
	case err == nil:
		pinned, err := st.Registries(c.Context)
		if err = errors.Join(err, st.Close()); err != nil {
			return nil, err
		}
		all = append(all, pinned...)
	case !errors.Is(err, store.ErrNoStore):
		return nil, fmt.Errorf("%w; say which registries with --registry", storeError(err))
	}
	slices.Sort(all)
	if all = slices.Compact(all); len(all) == 0 {
		all = []string{"docker.io"}
	}
	return all, nil
}

// fileJSON is how client --json shows a file.
type fileJSON struct {
	Path    string `json:"path"`
	Mode    string `json:"mode,omitempty"` // octal, of a file in place
	Content string `json:"content"`
	Note    string `json:"note,omitempty"`
}

// printClient prints the files. What is no data goes into comments, or where the
// file is JSON and alone, so that it can be redirected, to standard error.
func (p *program) printClient(c *cli.Context, config client.Config) error {
	if c.Bool("json") {
		files := []fileJSON{}
		for _, f := range config.Files {
			mode := ""
			if f.Mode != 0 {
				mode = fmt.Sprintf("%04o", f.Mode)
			}
			files = append(files, fileJSON{f.Path, mode, f.Content, f.Note})
		}
		for _, note := range config.Notes {
			p.say("%s", note)
		}
		enc := json.NewEncoder(p.stdout)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(files)
	}
	if len(config.Files) == 1 && strings.HasSuffix(config.Files[0].Path, ".json") {
		f := config.Files[0]
		p.say("%s: %s", f.Path, f.Note)
		for _, note := range config.Notes {
			p.say("%s", note)
		}
		_, err := fmt.Fprint(p.stdout, f.Content)
		return err
	}
	var b strings.Builder
	for i, f := range config.Files {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "# --- %s", f.Path)
		if f.Mode.Perm()&0o077 == 0 && f.Mode != 0 {
			fmt.Fprintf(&b, " (mode %04o)", f.Mode)
		}
		b.WriteString("\n")
		if f.Note != "" {
			fmt.Fprintf(&b, "# %s\n", f.Note)
		}
		b.WriteString(f.Content)
	}
	if len(config.Notes) > 0 {
		b.WriteString("\n")
	}
	for _, note := range config.Notes {
		fmt.Fprintf(&b, "# %s\n", note)
	}
	_, err := fmt.Fprint(p.stdout, b.String())
	return err
}
