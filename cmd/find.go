package cmd

import (
	"encoding/json"
	"errors"

	"github.com/urfave/cli/v2"
)

func (p *program) findCommand() *cli.Command {
	return &cli.Command{
		Name:      "find",
		Usage:     "list the images that builds need",
		ArgsUsage: "[PATH...]",
		Description: "Lists every image that the builds in the given files need: in FROM, COPY --from,\n" +
			"RUN --mount=from= and # syntax=. Folders are searched for Dockerfiles (Dockerfile,\n" +
			"Dockerfile.*, *.Dockerfile, Containerfile), Compose files (compose.yaml,\n" +
			"docker-compose.yml) and Bake files (docker-bake.hcl, docker-bake.json); of the last\n" +
			"two it takes all services and targets, as they are built, and the images that\n" +
			"services run. - is a Dockerfile on standard input. It needs no network and no store;\n" +
			"what the ONBUILD instructions in an image need takes --remote.\n\n" +
			"   mirrorctl find\n" +
			"   mirrorctl find --all-stages --json services/ | jq -r .name | sort -u",
		Flags: append(discoverFlags(),
			&cli.BoolFlag{Name: "remote", Usage: "also find what ONBUILD instructions in base images need: reads their configurations, from the store or upstream"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object a line: name, file, line, stage, kind; unreachable, context, via, build, args"}),
		Action: p.find,
	}
}

func (p *program) find(c *cli.Context) error {
	find := p.discoverRemote
	if !c.Bool("remote") {
		find = func(c *cli.Context, paths []string) (discovery, error) { return p.discover(c, paths, nil) }
	}
	found, err := find(c, c.Args().Slice())
	if err != nil {
		return err
	}
	p.warn(found)
	if err := p.printUses(c, found.uses, false); err != nil {
		return err
	}
	if len(found.failed) > 0 {
		return &codedError{code: failedFilesCode(found), err: errors.Join(found.failed...)}
	}
	return nil
}

// warn says what did not keep a file from being looked through.
func (p *program) warn(found discovery) {
	for _, warning := range found.warnings {
		p.say("warning: %s", warning)
	}
}

// printUses prints where images are needed, as a table or with --json; the
// table with the variables that led there, if they are asked for.
func (p *program) printUses(c *cli.Context, uses []use, args bool) error {
	if c.Bool("json") {
		enc := json.NewEncoder(p.stdout)
		enc.SetEscapeHTML(false)
		for _, u := range uses {
			if err := enc.Encode(u); err != nil {
				return err
			}
		}
		return nil
	}
	t := newTable(p.stdout, "NAME", "FILE", "STAGE", "KIND")
	for _, u := range oneLineEach(uses) {
		where := u.where()
		if args && len(u.Args) > 0 {
			where += " (ARG " + u.args() + ")"
		}
		t.row(u.Name, where, u.Stage, u.detail())
	}
	return t.flush()
}

// oneLineEach joins, for people, the uses that are one line of one file: in
// several builds of it, and in that which no other file describes.
func oneLineEach(uses []use) []use {
	var out []use
	type seenAs struct {
		place
		args string
	}
	at := map[seenAs]int{}
	for _, u := range uses {
		key := seenAs{u.place, u.args()}
		key.Via, key.Build = "", ""
		i, seen := at[key]
		switch {
		case !seen:
			at[key] = len(out)
			out = append(out, u)
		case u.Via == "" || out[i].Via == "":
			out[i].Via, out[i].Build = "", ""
		case out[i].Via == u.Via && out[i].Build != u.Build:
			out[i].Build += ", " + u.Build
		}
	}
	return out
}

// failedFilesCode is the exit code when some files could not be read.
func failedFilesCode(found discovery) int {
	if len(found.files) > 0 {
		return exitSome
	}
	return exitFailure
}
