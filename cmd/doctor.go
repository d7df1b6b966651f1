package cmd

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"mirrorctl/cmd/client"
	"mirrorctl/lockfile"
	"mirrorctl/serve"
)

func (p *program) doctorCommand() *cli.Command {
	return &cli.Command{
		Name:      "doctor",
		Usage:     "prove that docker, podman, containerd and others really use this mirror",
		ArgsUsage: "[NAME...]",
		Description: "Lets each client pull an image that no registry has, under a name that was thought\n" +
			"of a moment ago: only a mirror can answer for it. A client that does not use the\n" +
			"mirror fails, and the likely cause and what to do are printed. What was pulled is\n" +
			"removed again. NAME is one of mirrorctl client --list; without it every client is\n" +
			"taken that is installed here. It runs where the client is; the store need not be\n" +
			"there, nor an image in it.\n\n" +
			"   mirrorctl doctor docker --mirror buildbox:5000\n" +
			"   mirrorctl doctor --mirror buildbox:5000 --registry docker.io,ghcr.io\n" +
			"   mirrorctl doctor kaniko --mirror buildbox:5000 --wait 5m",
		Flags: append(mirrorFlags("ask for images of `REGISTRY`; several with commas (default: those in the lock and the store, else docker.io)"),
			&cli.StringFlag{Name: "username", Usage: "the mirror wants a login, of `NAME`"},
			&cli.StringFlag{Name: "password-file", Usage: "take its password from `FILE`"},
			&cli.DurationFlag{Name: "timeout", Value: time.Minute, Usage: "give each pull `DURATION`"},
			&cli.DurationFlag{Name: "wait", Usage: "start no client, but print the image's name and wait `DURATION` for somebody to pull it, wherever that is"},
			&cli.BoolFlag{Name: "json", Usage: "print an array of objects: client, registry, ok, cause, hint, requests"},
		),
		BashComplete: p.completeWords(clientNames()...),
		Action:       p.doctor,
	}
}

// diagnosis is what doctor found out about a client and a registry, or about
// the mirror itself.
type diagnosis struct {
	Client   string                 `json:"client"`             // or mirror
	Registry string                 `json:"registry,omitempty"` // of the probe
	OK       bool                   `json:"ok"`
	Skipped  bool                   `json:"skipped,omitempty"` // nobody asked for this client, and it does not run here
	Cause    string                 `json:"cause"`             // what was seen
	Hint     string                 `json:"hint,omitempty"`    // what to do, a step a line
	Requests []serve.WatchedRequest `json:"requests"`          // that the mirror saw
}

func (d diagnosis) print(w io.Writer) error {
	word := "FAILED"
	switch {
	case d.OK:
		word = "ok"
	case d.Skipped:
		word = "skipped"
	}
	subject := d.Client
	if d.Registry != "" && !d.Skipped {
		subject += ", " + d.Registry
	}
	_, err := fmt.Fprintf(w, "%-8s%s: %s\n", word, subject, d.Cause)
	if !d.OK && !d.Skipped {
		for _, r := range d.Requests {
			_, e := fmt.Fprintf(w, "        the mirror was asked: %s %s: %d (%s, at %s)\n", r.Method, r.Path, r.Status, r.Agent, r.Host)
			err = cmp.Or(err, e)
		}
	}
	if d.Hint != "" {
		_, e := fmt.Fprintf(w, "        %s\n", strings.ReplaceAll(d.Hint, "\n", "\n        "))
		err = cmp.Or(err, e)
	}
	return err
}

func (p *program) doctor(c *cli.Context) error {
	names := c.Args().Slice()
	for _, name := range names {
		if err := knownClient(name); err != nil {
			return err
		}
		if !hasExam(name) && c.Duration("wait") == 0 {
			return usageErrorf("%s cannot be started here: mirrorctl doctor %s --wait 5m prints the name of an image to pull with it, and says what the mirror saw", name, name)
		}
	}
	switch {
	case c.Duration("timeout") <= 0 || c.Duration("wait") < 0:
		return usageErrorf("--timeout and --wait are more than 0")
	case c.String("password-file") != "" && c.String("username") == "":
		return usageErrorf("--password-file without --username")
	}
	mirror, err := p.mirror(c)
	if err != nil {
		return err
	}
	if slices.Contains(mirror.Registries, client.All) {
		mirror.Registries = []string{"docker.io"}
	}
	d := &doctor{program: p, mirror: mirror, timeout: c.Duration("timeout"), wait: c.Duration("wait"), http: watchClient(mirror.CA)}
	if !c.Bool("json") {
		d.print = p.stdout
	}
	err = d.all(c.Context, names)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		enc := json.NewEncoder(p.stdout)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		if err := enc.Encode(d.found); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(d.found, func(one diagnosis) bool { return !one.OK && !one.Skipped }) {
		return &codedError{exitFailure, errSaid}
	}
	return nil
}

// all examines the mirror and then the clients, all that are installed if none
// is named.
func (d *doctor) all(ctx context.Context, names []string) error {
	if ok, err := d.examineMirror(ctx); err != nil || !ok {
		return err
	}
	if d.wait > 0 {
		if len(names) == 0 {
			names = []string{"any client"}
		}
		return d.each(ctx, names, d.waitFor)
	}
	if len(names) > 0 {
		return d.each(ctx, names, d.examine)
	}
	for _, known := range client.Clients() {
		if hasExam(known.Name) {
			if _, err := exec.LookPath(exams[known.Name].program()); err == nil {
				names = append(names, known.Name)
			}
		}
	}
	if len(names) == 0 {
		return errors.New("no client is installed here that could be examined; --wait 5m prints the name of an image to pull anywhere")
	}
	d.unasked = true
	return d.each(ctx, names, d.examine)
}

func (d *doctor) each(ctx context.Context, names []string, examine func(context.Context, string, serve.Probe) (diagnosis, error)) error {
	for _, name := range names {
		for _, registry := range d.mirror.Registries {
			one, err := examine(ctx, name, serve.NewProbe(registry))
			if err == nil {
				one.Client, one.Registry = name, registry
				err = d.report(one)
			}
			if err != nil {
				return err
			}
			if one.Skipped {
				break // it does not run for another registry either
			}
		}
	}
	return nil
}

func (d *doctor) report(one diagnosis) error {
	if one.Requests == nil {
		one.Requests = []serve.WatchedRequest{}
	}
	d.found = append(d.found, one)
	if d.print == nil {
		return nil
	}
	return one.print(d.print)
}

// doctor is one run of the command.
type doctor struct {
	*program
	mirror  client.Mirror
	http    httpDoer
	timeout time.Duration
	wait    time.Duration
	unasked bool      // the clients are those that were found here
	print   io.Writer // nil for JSON
	found   []diagnosis
}

// examine lets a client pull a probe.
func (d *doctor) examine(ctx context.Context, name string, probe serve.Probe) (diagnosis, error) {
	one := exams[name]
	if _, err := exec.LookPath(one.program()); err != nil {
		return diagnosis{Cause: one.program() + " is not installed here", Hint: "run mirrorctl doctor " + name + " on the machine of the client, with --mirror " + d.mirrorURL()}, nil
	}
	dir, err := os.MkdirTemp("", "mirrorctl-doctor-")
	if err != nil {
		return diagnosis{}, err
	}
	defer os.RemoveAll(dir) // in the folder for temporary files
	x := &exam{probe: probe, dir: dir, mirror: d.mirror, timeout: d.timeout}
	if one.alive != nil {
		if _, err := x.run(ctx, one.alive...); err != nil {
			return diagnosis{Skipped: d.unasked, Cause: "does not answer: " + err.Error()}, ctx.Err()
		}
	}
	if _, err := d.watch(ctx, probe); err != nil {
		return diagnosis{}, err
	}
	proof, err := one.pull(ctx, x)
	x.cleanUp()
	if err != nil && one.view != nil {
		if view := one.view(ctx, x); view != "" {
			err = fmt.Errorf("%w; %s", err, view)
		}
	}
	if ctx.Err() != nil {
		return diagnosis{}, ctx.Err()
	}
	seen, watchErr := d.watch(ctx, probe)
	if watchErr != nil {
		return diagnosis{}, watchErr
	}
	found := d.judge(name, probe, proof, err, seen.Requests)
	found.Requests = seen.Requests
	return found, nil
}

// waitFor prints the name of a probe and waits for a client to have pulled it.
func (d *doctor) waitFor(ctx context.Context, name string, probe serve.Probe) (diagnosis, error) {
	d.program.say("pull this with %s, or build FROM it, within %s: %s", name, d.wait, probe.Name())
	end := time.Now().Add(d.wait)
	for {
		seen, err := d.watch(ctx, probe)
		if err != nil {
			return diagnosis{}, err
		}
		if slices.ContainsFunc(seen.Requests, fetchedLayer) {
			return diagnosis{OK: true, Cause: "pulled the probe from the mirror: " + requestSummary(seen.Requests), Requests: seen.Requests}, nil
		}
		if time.Now().After(end) {
			cause, hint := d.unfinished(name, probe, seen.Requests)
			return diagnosis{Cause: cause, Hint: hint, Requests: seen.Requests}, nil
		}
		select {
		case <-time.After(min(200*time.Millisecond, d.wait/4+time.Millisecond)):
		case <-ctx.Done():
			return diagnosis{}, ctx.Err()
		}
	}
}

// fetchedLayer reports whether a request has brought a client a blob, which it
// asks for when it has the manifests.
func fetchedLayer(r serve.WatchedRequest) bool {
	return r.Method == "GET" && strings.Contains(r.Path, "/blobs/") && (r.Status == 200 || r.Status == 206)
}

// mirrorFlags are those that say which mirror a client is to use.
func mirrorFlags(registry string) []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "mirror", Usage: "the mirror's `ADDRESS`: host:port, or http://... or https://... (default: the first of mirror_hosts, else this machine's name and serve's port)"},
		&cli.StringSliceFlag{Name: "registry", Usage: registry},
		&cli.StringFlag{Name: "ca", Usage: "PEM `FILE` of the private authority of an https mirror"},
		&cli.StringFlag{Name: "lockfile", Value: lockfile.DefaultName, Usage: "look for registries in `FILE`"},
	}
}
