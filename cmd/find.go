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
			"services run. - is a Dockerfile on standard input. It needs no network and no store.\n\n" +
			"   mirrorctl find\n" +
			"   mirrorctl find --all-stages --json services/ | jq -r .name | sort -u",
		Flags: append(discoverFlags(),
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object a line: name, file, line, stage, kind; unreachable, context, via, build"}),
		Action: p.find,
	}
}

func (p *program) find(c *cli.Context) error {
	found, err := p.discover(c, c.Args().Slice())
	if err != nil {
		return err
	}
	if err := p.printUses(c, found.uses); err != nil {
		return err
	}
	if len(found.failed) > 0 {
		return &codedError{code: failedFilesCode(found), err: errors.Join(found.failed...)}
	}
	return nil
}

// printUses prints where images are needed, as a table or with --json.
func (p *program) printUses(c *cli.Context, uses []use) error {
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
		t.row(u.Name, u.where(), u.Stage, u.detail())
	}
	return t.flush()
}

// oneLineEach joins, for people, the uses that are one line of one file: in
// several builds of it, and in that which no other file describes.
func oneLineEach(uses []use) []use {
	var out []use
	at := map[use]int{}
	for _, u := range uses {
		key := u
		key.Via, key.Build, key.named = "", "", nil
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
