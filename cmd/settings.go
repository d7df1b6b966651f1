package cmd

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"mirrorctl/lockfile/stricttoml"
	"mirrorctl/serve"
	"mirrorctl/serve/access"
)

// setting is what a flag of serve, an environment variable or a key of [serve] says,
// in this order: --max-connections, MIRRORCTL_MAX_CONNECTIONS, max_connections.
type setting struct {
	name   string
	usage  string
	def    string // empty if there is none, or if it depends on other things
	shown  string // that default in words
	many   bool   // several values: the flag several times, the variable with commas, an array in the file
	number bool   // in the file
	path   bool   // relative to the file, if it is from one
	live   bool   // a running serve takes another value over

	// parse checks a value and returns it in its usual form.
	parse func(string) (string, error)
}

const defaultListen = "127.0.0.1:5000"

// serveSettings are all settings of serve, in the order of its help. The tables
// [serve.aliases] and [serve.hosts] are besides.
var serveSettings = []setting{
	{name: "listen", many: true, def: defaultListen, parse: parseListen, usage: "listen on `HOST:PORT`, or unix:/PATH; several times for several"},
	{name: "admin-listen", parse: parseListen, shown: "the addresses of --listen", usage: "answer /metrics, /healthz and /readyz on `HOST:PORT` or unix:/PATH, in plain HTTP, and nowhere else"},
	{name: "tls-cert", path: true, parse: filled, usage: "speak https with the certificate, and the chain above it, in `FILE`; it is read again when it changes"},
	{name: "tls-key", path: true, parse: filled, usage: "the key of the certificate, in `FILE`"},
	{name: "htpasswd", path: true, live: true, parse: filled, usage: "users who can log in, in `FILE` as htpasswd -B writes it; it is read again when it changes"},
	{name: "require-login", live: true, parse: parseLogin, shown: "pull-through with --htpasswd, else none", usage: "what needs a login, `WHAT`: none, pull-through or read"},
	{name: "admin", many: true, parse: filled, usage: "let `USER` of --htpasswd remove pins on the page; several times for several"},
	{name: "allow", many: true, live: true, parse: parseNetwork, shown: "everybody", usage: "answer only clients of `NETWORK`"},
	{name: "pull-through-for", many: true, live: true, parse: parseFetcher, shown: "who may read, after the login if one is required", usage: "let only `WHO`, a network or a user, cause downloads"},
	{name: "trusted-proxy", many: true, live: true, parse: parseProxy, usage: "take the client's address from X-Forwarded-For of `NETWORK`, or of unix sockets with unix"},
	{name: "max-connections", number: true, live: true, def: "8192", parse: parseCount, usage: "have at most `N` connections; 0 is any number"},
	{name: "max-connections-per-client", number: true, live: true, def: "1024", parse: parseCount, usage: "have at most `N` connections with one client address; 0 is any number"},
	{name: "min-rate", live: true, def: "1KiB", parse: parseSize, usage: "cut off clients that take less than `SIZE` a second of their answer; 0 is none"},
	{name: "access-log", live: true, parse: parseAccessLog, shown: "as --log-format", usage: "log requests to standard error in `FORMAT`: off, text or json"},
	{name: "default-registry", def: "docker.io", parse: serve.RegistryName, usage: "the `REGISTRY` of names without one"},
	{name: "pull-through", many: true, parse: serve.RegistryName, usage: "fetch what is missing from `REGISTRY`, and pin it"},
	{name: "platforms", many: true, parse: parsePlatform, shown: "all platforms", usage: "with --pull-through, fetch only `OS/ARCH` without being asked"},
	{name: "scrub", parse: parseDuration, shown: "never", usage: "hash the whole store again in every `DURATION`, such as 24h, and serve nothing damaged"},
	{name: "grace", def: "30s", parse: parseDuration, usage: "`DURATION` that downloads in flight may go on after a stop"},
}

// key is that of the configuration.
func (s setting) key() string { return strings.ReplaceAll(s.name, "-", "_") }

// flagName is that of the flag.
func (s setting) flagName() string {
	if s.name == "platforms" {
		return "platform" // which is given once for each
	}
	return s.name
}

func (s setting) variable() string {
	return "MIRRORCTL_" + strings.ToUpper(strings.ReplaceAll(s.flagName(), "-", "_"))
}

func (s setting) flag() cli.Flag {
	usage := s.usage
	if def := s.def + s.shown; def != "" {
		usage += " (default: " + def + ")"
	}
	if s.many {
		return &cli.StringSliceFlag{Name: s.flagName(), Usage: usage}
	}
	return &cli.StringFlag{Name: s.flagName(), Usage: usage}
}

// given is what a setting is set to, and by what.
type given struct {
	values []string
	by     string // --listen, MIRRORCTL_LISTEN, serve.listen; empty for a default
}

// setting returns what a command line, the environment, a configuration or else the
// default say, in the usual form. The error joins the mistakes of all values.
func (p *program) setting(c *cli.Context, conf config, s setting) (given, error) {
	var texts []string
	var by string
	switch variable := p.getenv(s.variable()); {
	case c.IsSet(s.flagName()) && s.many:
		texts, by = c.StringSlice(s.flagName()), "--"+s.flagName()
	case c.IsSet(s.flagName()):
		texts, by = []string{c.String(s.flagName())}, "--"+s.flagName()
	case variable != "" && s.many:
		texts, by = strings.Split(variable, ","), s.variable()
	case variable != "":
		texts, by = []string{variable}, s.variable()
	case conf.Serve.Values[s.key()] != nil:
		return given{conf.Serve.Values[s.key()], "serve." + s.key()}, nil // checked already
	case s.def != "":
		return given{values: []string{s.def}}, nil
	}
	g := given{by: by}
	var errs []error
	for _, text := range texts {
		value, err := s.parse(strings.TrimSpace(text))
		if err != nil {
			errs = append(errs, usageErrorf("%s %s: %w", by, text, err))
		}
		g.values = append(g.values, value)
	}
	return g, errors.Join(errs...)
}

// read reads the setting from the table [serve].
func (s setting) read(t *stricttoml.Table, folder string) []string {
	var texts []string
	switch {
	case s.many:
		texts, _ = t.OneOrMore(s.key())
	case s.number:
		if n, ok := t.Int(s.key()); ok {
			texts = []string{strconv.FormatInt(n, 10)}
		}
	default:
		if text, ok := t.String(s.key()); ok {
			texts = []string{text}
		}
	}
	var values []string
	for i, text := range texts {
		value, err := s.parse(text)
		if err != nil {
			t.Errorf(stricttoml.Key{s.key(), strconv.Itoa(i)}, "%s: %v", s.key(), err)
		}
		if s.path && value != "" {
			value = configReader{folder}.absolute(value)
		}
		values = append(values, value)
	}
	return values
}

// The parsers. What they return shows the text only where it is no path.

func filled(s string) (string, error) {
	if s == "" {
		return "", errors.New("is empty")
	}
	if s == "~" || strings.HasPrefix(s, "~/") {
		return "", errors.New("~ is not expanded here, write the path in full")
	}
	return s, nil
}

// unixScheme begins the address of a Unix socket.
const unixScheme = "unix:"

func parseListen(s string) (string, error) {
	if path, ok := strings.CutPrefix(s, unixScheme); ok {
		if !filepath.IsAbs(path) {
			return "", errors.New("must be unix:/PATH")
		}
		return unixScheme + filepath.Clean(path), nil
	}
	_, port, err := net.SplitHostPort(s)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return "", errors.New("must be HOST:PORT, as 127.0.0.1:5000 or :5000, or unix:/PATH")
	}
	return s, nil
}

func parseLogin(s string) (string, error) {
	l, err := access.ParseLogin(s)
	return string(l), err
}

func parseNetwork(s string) (string, error) {
	p, err := access.ParseNetwork(s)
	return p.String(), err
}

func parseFetcher(s string) (string, error) {
	_, err := access.ParseFetcher(s)
	return s, err
}

func parseProxy(s string) (string, error) {
	if s == "unix" {
		return s, nil
	}
	return parseNetwork(s)
}

func parseCount(s string) (string, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return "", errors.New("must be a number, such as 1000")
	}
	return strconv.FormatUint(n, 10), nil
}

func parseSize(s string) (string, error) {
	if n, err := bytesOf(s); err != nil || n < 0 {
		return "", errors.New("must be a size, such as 16KiB or 1MB")
	}
	return s, nil
}

// bytesOf reads a size: 1kB is 1000 bytes, 1KiB is 1024.
func bytesOf(s string) (int64, error) {
	if strings.Contains(s, "i") {
		return units.RAMInBytes(s)
	}
	return units.FromHumanSize(s)
}

func parseAccessLog(s string) (string, error) {
	return oneOf(s, string(serve.LogOff), string(serve.LogText), string(serve.LogJSON))
}

func oneOf(s string, words ...string) (string, error) {
	if !slices.Contains(words, s) {
		return "", fmt.Errorf("must be one of %s", strings.Join(words, ", "))
	}
	return s, nil
}

func parsePlatform(s string) (string, error) {
	if _, err := platforms.Parse(s); err != nil {
		return "", errors.New("must be OS/ARCH, such as linux/arm64")
	}
	return s, nil
}

func parseDuration(s string) (string, error) {
	if d, err := time.ParseDuration(s); err != nil || d < 0 {
		return "", errors.New("must be a duration, such as 30s or 5m")
	}
	return s, nil
}
