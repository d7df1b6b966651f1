package cmd

import (
	"fmt"
	"net/url"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"mirrorctl/serve"
)

var configMistake = regexp.MustCompile(`^mirrorctl\.toml:(\d+):(\d+): .`)

// FuzzParseConfig holds that every mistake has a line and a column of the file,
// that no password shows, and that what is accepted is what a mirror can be made
// of: paths are absolute, addresses are such and have no login in them, names of
// registries are canonical, numbers are in their bounds.
func FuzzParseConfig(f *testing.F) {
	f.Add("jobs = 1\n", "")
	folder := f.TempDir()
	f.Fuzz(func(t *testing.T, text, password string) {
		data := []byte(text)
		if password != "" {
			data = fmt.Appendf(data, "\n[registry.\"secret.example\"]\nusername = \"u\"\npassword = %s\n", strconv.Quote(password))
		}
		c, err := parseConfig("mirrorctl.toml", folder, data)
		if err != nil {
			if !reflect.DeepEqual(c, config{}) {
				t.Errorf("a configuration beside an error: %+v", c)
			}
			checkMistakes(t, string(data), err)
			return
		}
		again, err := parseConfig("mirrorctl.toml", folder, data)
		if err != nil || !reflect.DeepEqual(c, again) {
			t.Errorf("read again: %+v, %v", again, err)
		}
		checkConfig(t, c)
		shown := fmt.Sprintf("%v %+v %#v", c, c, c)
		for name, r := range c.Registries {
			if r.Password != "" {
				r.Password = "hunter2"
				c.Registries[name] = r
			}
		}
		if without := fmt.Sprintf("%v %+v %#v", c, c, c); shown != without {
			t.Errorf("with other passwords it shows %s, and was %s", without, shown)
		}
	})
}

func checkMistakes(t *testing.T, text string, err error) {
	t.Helper()
	lines := strings.Split(text, "\n")
	all := strings.Split(err.Error(), "\n")
	for i, mistake := range all {
		m := configMistake.FindStringSubmatch(mistake)
		if m == nil {
			if i == len(all)-1 && i > 0 && strings.HasPrefix(mistake, "mirrorctl.toml: and ") {
				continue
			}
			t.Fatalf("no line and column, or nothing said: %q", err)
		}
		line, _ := strconv.Atoi(m[1])
		column, _ := strconv.Atoi(m[2])
		if line < 1 || line > len(lines) || column < 1 || column > len(lines[line-1])+1 {
			t.Errorf("%q of %d lines, and %q", mistake, len(lines), lines[min(max(line, 1), len(lines))-1])
		}
	}
}

func checkConfig(t *testing.T, c config) {
	t.Helper()
	if c.Jobs < 0 || c.Jobs > maxJobs || c.Connections < 0 || c.Connections > maxConnections {
		t.Errorf("%d jobs, %d connections", c.Jobs, c.Connections)
	}
	absolute := func(path string) {
		if path != "" && (!filepath.IsAbs(path) || filepath.Clean(path) != path) {
			t.Errorf("path %q", path)
		}
	}
	canonical := func(names ...string) {
		for _, name := range names {
			if again, err := serve.RegistryName(name); err != nil || again != name {
				t.Errorf("registry %q, %v", name, err)
			}
		}
	}
	address := func(text string) {
		u, err := url.Parse(text)
		again, againErr := httpURL(text)
		if err != nil || againErr != nil || again != text || u.User != nil || u.Host == "" {
			t.Errorf("address %q, %v, %v", text, err, againErr)
		}
	}
	absolute(c.Store)
	canonical(c.MirrorHosts...)
	canonical(c.Serve.Values["pull_through"]...)
	for name, r := range c.Registries {
		canonical(name)
		absolute(r.PasswordFile)
		absolute(r.CA)
		for _, mirror := range r.Mirrors {
			address(mirror)
		}
		if folder, ok := strings.CutPrefix(r.URL, "ocidir://"); ok {
			absolute(filepath.FromSlash(folder))
		} else if r.URL != "" {
			address(r.URL)
		}
		if (r.Username == "") != (r.Password == "" && r.PasswordFile == "") || r.Password != "" && r.PasswordFile != "" {
			t.Errorf("half a login for %s", name)
		}
	}
	if _, err := serve.New(nil, serve.Options{DefaultRegistry: c.Serve.one("default_registry"), Aliases: c.Serve.Aliases, Hosts: c.Serve.Hosts}); err != nil {
		t.Errorf("no mirror can be made of it: %v", err)
	}
}
