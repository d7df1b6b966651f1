package cmd

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"mirrorctl/lockfile/stricttoml"
)

// config is the configuration file. A key that the file does not set has its
// zero value here: defaults are the business of who asks, after flag and
// environment.
type config struct {
	Path        string // of the file; empty if there is none
	Store       string // folder, absolute
	Jobs        int
	Connections int
	Timeout     time.Duration
	LogLevel    string // debug, info, warn or error
	LogFormat   string // text or json

	// MirrorHosts are the addresses under which this mirror is written in
	// image names: buildbox:5000.
	MirrorHosts []string

	Serve      serveConfig
	Registries map[string]registryConfig // by name: docker.io, ghcr.io
	// Warnings are for people: nothing is wrong enough to stop.
	Warnings []string
}

// serveConfig is the table [serve].
type serveConfig struct {
	Values  map[string][]string // of serveSettings by key, in their usual form
	Aliases map[string]string   // dotless name -> registry
	Hosts   map[string]string   // name of this mirror -> registry
}

// one returns the only value of a setting, empty if there is none.
func (s serveConfig) one(key string) string {
	if values := s.Values[key]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// registryConfig is a table [registry."ghcr.io"].
type registryConfig struct {
	URL          string   // http(s)://host[:port][/prefix] or ocidir:///folder (absolute), without slash at the end
	Mirrors      []string // http(s)://host[:port][/prefix], without slash at the end
	Username     string
	Password     secret
	PasswordFile string // absolute
	CA           string // PEM file, absolute
	Insecure     bool   // do not verify TLS certificates
}

// secret is a string that does not show itself when it is printed or logged.
type secret string

func (secret) String() string               { return "(secret)" }
func (secret) GoString() string             { return "(secret)" }
func (secret) MarshalText() ([]byte, error) { return []byte("(secret)"), nil }

// configName is the configuration that is taken from the current folder without
// being named.
const configName = "mirrorctl.toml"

// maxConfigSize bounds, in bytes, a configuration and the files it names.
const maxConfigSize = 1 << 20

// openConfig finds and loads the configuration. flag is the value of --config
// and getenv is os.Getenv. Without a file the config is zero.
func openConfig(flag string, getenv func(string) string) (config, error) {
	path, err := findConfig(flag, getenv)
	if err != nil || path == "" {
		return config{}, err
	}
	c, err := loadConfig(path)
	if err == nil && flag == "" && getenv("MIRRORCTL_CONFIG") == "" && path == configName {
		err = c.stayInside()
	}
	return c, err
}

// stayInside refuses files outside the folder of a configuration that nobody
// named. It may have come with a repository that somebody else wrote, and would
// send the content of any file here to an address of its choice as a password.
func (c *config) stayInside() error {
	folder, err := filepath.Abs(".")
	if err == nil {
		folder, err = filepath.EvalSymlinks(folder)
	}
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	var errs []error
	for name, r := range c.Registries {
		for key, file := range map[string]string{"password_file": r.PasswordFile, "ca": r.CA} {
			if file == "" {
				continue
			}
			if real, err := filepath.EvalSymlinks(file); err == nil {
				file = real
			}
			if rel, err := filepath.Rel(folder, file); err != nil || !filepath.IsLocal(rel) {
				errs = append(errs, fmt.Errorf("%s: %s of registry %q is outside this folder: name the configuration with --config %s if you trust it", c.Path, key, name, c.Path))
			}
		}
	}
	return errors.Join(errs...)
}

// findConfig returns the file to load: the one that the flag or else
// MIRRORCTL_CONFIG names, which then has to exist, else the first that exists of
// mirrorctl.toml here and mirrorctl/config.toml in the user's configuration
// folder; empty if there is none.
func findConfig(flag string, getenv func(string) string) (string, error) {
	named := []struct{ path, by string }{{flag, "--config"}, {getenv("MIRRORCTL_CONFIG"), "MIRRORCTL_CONFIG"}}
	for _, n := range named {
		if n.path == "" {
			continue
		}
		if _, err := os.Stat(n.path); err != nil {
			return "", fmt.Errorf("configuration named by %s: %w", n.by, err)
		}
		return n.path, nil
	}
	places := []string{configName}
	// A relative XDG_CONFIG_HOME is to be ignored, says its specification.
	if base := getenv("XDG_CONFIG_HOME"); filepath.IsAbs(base) {
		places = append(places, filepath.Join(base, "mirrorctl", "config.toml"))
	} else if home := getenv("HOME"); home != "" {
		places = append(places, filepath.Join(home, ".config", "mirrorctl", "config.toml"))
	}
	for _, path := range places {
		_, err := os.Stat(path)
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("configuration: %w", err)
		}
	}
	return "", nil
}

// loadConfig reads a configuration file.
func loadConfig(path string) (config, error) {
	data, err := readLimited(path)
	if err != nil {
		return config{}, fmt.Errorf("configuration: %w", err)
	}
	full, err := filepath.Abs(path)
	if err != nil {
		return config{}, fmt.Errorf("configuration: %w", err)
	}
	c, err := parseConfig(path, filepath.Dir(full), data)
	if err == nil {
		c.warnReadable()
	}
	return c, err
}

// parseConfig reads the text of the configuration file at path; relative paths in
// it start at folder. The error joins all mistakes, each with file, line and
// column. Files that it names are not opened: a command that needs no registry
// works without them.
func parseConfig(path, folder string, data []byte) (config, error) {
	doc, err := stricttoml.Parse(path, data)
	if err != nil {
		return config{}, err
	}
	c := config{Path: path}
	c.read(doc.Root(), folder)
	if err := doc.Err(); err != nil {
		return config{}, err
	}
	return c, nil
}

// warnReadable notes a file with passwords that everybody on the machine can
// read.
func (c *config) warnReadable() {
	info, err := os.Stat(c.Path)
	if err != nil || runtime.GOOS == "windows" || info.Mode().Perm()&0o004 == 0 {
		return
	}
	for _, r := range c.Registries {
		if r.Password != "" {
			c.Warnings = append(c.Warnings,
				fmt.Sprintf("%s holds a password and everybody can read it: chmod 600 %s, or use password_file", c.Path, c.Path))
			return
		}
	}
}

// password returns the password, from its file if it is in one; empty if there
// is none. One line end after it is not part of it.
func (r registryConfig) password() (string, error) {
	if r.PasswordFile == "" {
		return string(r.Password), nil
	}
	data, err := readLimited(r.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("password_file: %w", err)
	}
	data = bytes.TrimSuffix(data, []byte("\n"))
	password := string(bytes.TrimSuffix(data, []byte("\r")))
	if password == "" {
		return "", fmt.Errorf("password_file: %s is empty", r.PasswordFile)
	}
	if strings.ContainsAny(password, "\r\n") {
		return "", fmt.Errorf("password_file: %s has more than one line", r.PasswordFile)
	}
	return password, nil
}

// authorities returns the PEM certificates to trust besides the system's; nil if
// there are none.
func (r registryConfig) authorities() ([]byte, error) {
	if r.CA == "" {
		return nil, nil
	}
	data, err := readLimited(r.CA)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("ca: %s holds no PEM certificate", r.CA)
	}
	return data, nil
}

func readLimited(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close() // only read, so nothing can be lost
	data, err := io.ReadAll(io.LimitReader(file, maxConfigSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxConfigSize {
		return nil, fmt.Errorf("%s: larger than %d MiB", path, maxConfigSize>>20)
	}
	return data, nil
}
