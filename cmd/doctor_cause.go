package cmd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"regexp"
	"slices"
	"strings"

	"mirrorctl/cmd/client"
	"mirrorctl/serve"
)

// judge says from a client's result, and from what the mirror saw meanwhile,
// whether the client uses the mirror, and if not, why.
func (d *doctor) judge(name string, probe serve.Probe, proof string, err error, seen []serve.WatchedRequest) diagnosis {
	genuine := strings.Contains(proof, probe.Content()) || strings.Contains(proof, probe.Index().String())
	switch {
	case err == nil && genuine && slices.ContainsFunc(seen, answered):
		return diagnosis{OK: true, Cause: "uses the mirror: " + requestSummary(seen)}
	case err == nil && genuine:
		return diagnosis{
			Cause: "pulled the probe, but not from " + d.mirrorURL() + ": another mirrorctl answered",
			Hint:  d.writeHint(name, probe.Registry) + "\nor examine that other mirror with --mirror; where several stand behind one address, examine each",
		}
	case err == nil && strings.Contains(proof, "/mirrorctl/doctor-"+probe.Token):
		return diagnosis{
			Cause: "used the mirror, which took its request for " + probe.Name() + " for one of another registry",
			Hint:  "see the prefix, alias or host name in the client's configuration, and default_registry of the mirror's",
		}
	case err == nil:
		return diagnosis{Cause: fmt.Sprintf("pulled something else under the name %s", probe.Name()), Hint: "no registry can have this name: see what answers between the client and the mirror"}
	}
	cause, hint := d.cause(name, probe, err, seen)
	return diagnosis{Cause: cause, Hint: hint}
}

func answered(r serve.WatchedRequest) bool { return r.Status < 400 }

// requestSummary is what the mirror saw, in a few words.
func requestSummary(seen []serve.WatchedRequest) string {
	var agents []string
	for _, r := range seen {
		agent, _, _ := strings.Cut(r.Agent, "%20")
		if !slices.Contains(agents, agent) {
			agents = append(agents, agent)
		}
	}
	return fmt.Sprintf("it saw %s of %s", plural(len(seen), "request", "requests"), strings.Join(agents, ", "))
}

// refusals are the words of clients by which one knows the trouble of a mirror.
// Docker says what the mirror's was only in its daemon's log.
var refusals = []struct {
	words *regexp.Regexp
	cause string
	hint  func(d *doctor, name, registry string) string
}{
	{
		regexp.MustCompile(`x509|certificate`), "does not trust the mirror's certificate",
		func(d *doctor, name, registry string) string {
			if d.mirror.CA == nil {
				return "give the authority's file with --ca, to doctor and to mirrorctl client"
			}
			return d.writeHint(name, registry)
		},
	},
	{
		regexp.MustCompile(`(?i)unauthorized|authentication required|no basic auth`), "has no login that the mirror takes",
		func(d *doctor, name, registry string) string { return d.notes(name, registry) },
	},
	{
		regexp.MustCompile(`server gave HTTP response to HTTPS client|first record does not look like a TLS handshake|wrong version number`), "speaks TLS to a mirror that speaks plain HTTP",
		func(d *doctor, name, registry string) string { return d.writeHint(name, registry) },
	},
	{
		regexp.MustCompile(`HTTP request to an HTTPS server|malformed HTTP response`), "speaks plain HTTP to a mirror that speaks TLS",
		func(d *doctor, name, registry string) string { return d.writeHint(name, registry) },
	},
}

// cause explains a failed pull.
func (d *doctor) cause(name string, probe serve.Probe, err error, seen []serve.WatchedRequest) (cause, hint string) {
	if len(seen) > 0 {
		cause, hint = d.unfinished(name, probe, seen)
		return cause + ": " + err.Error(), hint
	}
	missing, checked := d.missing(name, probe.Registry)
	cause = "did not ask the mirror for " + probe.Name()
	said := err.Error()
	for _, r := range refusals {
		if r.words.MatchString(said) && strings.Contains(said, d.mirror.Address) {
			return fmt.Sprintf("%s: %s", r.cause, said), r.hint(d, name, probe.Registry)
		}
	}
	switch {
	case len(missing) > 0:
		return fmt.Sprintf("%s: %s; it says: %s", cause, strings.Join(missing, "; "), said), d.writeHint(name, probe.Registry)
	case !checked:
		return fmt.Sprintf("%s: it says: %s", cause, said), d.writeHint(name, probe.Registry)
	case d.mirror.Username != "":
		return fmt.Sprintf("%s: it says: %s", cause, said), "does it have the mirror's login?\n" + d.notes(name, probe.Registry)
	}
	return fmt.Sprintf("%s: it says: %s", cause, said), d.notes(name, probe.Registry)
}

// unfinished explains a pull that has reached the mirror and not come to its end.
func (d *doctor) unfinished(name string, probe serve.Probe, seen []serve.WatchedRequest) (cause, hint string) {
	if len(seen) == 0 {
		if !slices.ContainsFunc(client.Clients(), func(c client.Client) bool { return c.Name == name }) {
			return "nobody asked the mirror for " + probe.Name(), "mirrorctl client NAME prints what makes a client use the mirror"
		}
		return "nobody asked the mirror for " + probe.Name(), d.writeHint(name, probe.Registry)
	}
	if !slices.ContainsFunc(seen, answered) {
		return "asked the mirror under a wrong name", "the registry in the path is wrong or not known to the mirror: see the prefix or alias in the client's configuration, and [serve] aliases and default_registry of the mirror's\n" + d.writeHint(name, probe.Registry)
	}
	return "asked the mirror, but did not finish the pull", "it reached the mirror, so its configuration is right; see its own log"
}

// writeHint is the command that configures a client.
func (d *doctor) writeHint(name, registry string) string {
	command := "mirrorctl client " + name + " --mirror " + d.mirrorURL() + " --registry " + registry
	if d.mirror.CA != nil {
		command += " --ca FILE"
	}
	if d.mirror.Username != "" {
		command += " --username " + d.mirror.Username
	}
	m := d.mirror
	m.Registries = []string{registry}
	config, err := client.Build(name, m)
	if err != nil {
		return err.Error()
	}
	if len(config.Files) == 0 || slices.ContainsFunc(config.Files, client.File.Snippet) {
		return "run " + command + ", and do what it says"
	}
	if m.Username != "" && slices.ContainsFunc(config.Files, func(f client.File) bool { return f.Secret }) {
		command += " --password-file FILE"
	}
	return "run " + command + " --write\n" + d.notes(name, registry)
}

// notes is what takes over a client's files.
func (d *doctor) notes(name, registry string) string {
	m := d.mirror
	m.Registries = []string{registry}
	config, err := client.Build(name, m)
	if err != nil {
		return err.Error()
	}
	var all []string
	add := func(note string) {
		if note != "" && !slices.Contains(all, note) {
			all = append(all, note)
		}
	}
	for _, f := range config.Files {
		add(f.Note)
	}
	for _, note := range config.Notes {
		add(note)
	}
	if len(all) == 0 {
		return "can it reach " + d.mirrorURL() + "?"
	}
	return strings.Join(all, "\n")
}

// missing says which files of a client on this machine do not name the mirror,
// and whether it has files that tell.
func (d *doctor) missing(name, registry string) (all []string, checked bool) {
	m := d.mirror
	m.Registries = []string{registry}
	config, err := client.Build(name, m)
	if err != nil {
		return []string{err.Error()}, true
	}
	all, checked = lacking(m, config)
	// Nobody else may be asked here.
	m.NoFallback = true
	if strict, err := client.Build(name, m); err == nil && len(all) > 0 {
		if without, _ := lacking(m, strict); len(without) == 0 {
			return nil, checked
		}
	}
	return all, checked
}

// lacking says which files of a configuration are not as they should be.
func lacking(m client.Mirror, config client.Config) (all []string, checked bool) {
	for _, f := range config.Files {
		if f.Snippet() {
			continue
		}
		checked = true
		old, err := readLimited(f.Path)
		if errors.Is(err, fs.ErrNotExist) {
			all = append(all, f.Path+" is not there")
			continue
		}
		if err != nil {
			all = append(all, f.Path+": "+cause(err).Error())
			continue
		}
		if f.Secret && m.Password == "" && bytes.Contains(old, []byte(m.Address)) {
			continue // but for the password, which is not known here
		}
		now, err := f.Merge(old)
		if err == nil && (bytes.Equal(now, old) || hasLines(string(old), string(now))) {
			continue
		}
		if other := otherPorts(string(old), m.Address); len(other) > 0 {
			all = append(all, fmt.Sprintf("%s names %s, and the mirror is at %s", f.Path, strings.Join(other, ", "), m.Address))
			continue
		}
		if err != nil {
			all = append(all, err.Error())
			continue
		}
		all = append(all, f.Path+" does not have what it needs")
	}
	return all, checked
}

// hasLines reports whether a text has all lines of another, as a file has that
// was written for more registries.
func hasLines(text, lines string) bool {
	have := map[string]bool{"": true}
	for line := range strings.Lines(text) {
		have[strings.TrimSpace(line)] = true
	}
	for line := range strings.Lines(lines) {
		if !have[strings.TrimSpace(line)] {
			return false
		}
	}
	return true
}

// otherPorts returns the addresses in a text that are the mirror's host with
// another port, if the mirror's own is not there.
func otherPorts(text, address string) []string {
	host, _, err := net.SplitHostPort(address)
	if err != nil || strings.Contains(text, address) {
		return nil
	}
	found := regexp.MustCompile(regexp.QuoteMeta(host)+`:\d+`).FindAllString(text, -1)
	slices.Sort(found)
	return slices.Compact(found)
}
