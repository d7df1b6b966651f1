package cmd

import (
	"encoding/json"
	"errors"

	"github.com/urfave/cli/v2"
)

func (p *program) findCommand() *cli.Command {
	return &cli.Command{
		Name:      "find",
		Usage:     "list the images that Dockerfiles need",
		ArgsUsage: "[PATH...]",
		Description: "Lists every image that a build of the given Dockerfiles needs: in FROM, COPY\n" +
			"--from, RUN --mount=from= and # syntax=. Folders are searched for Dockerfile,\n" +
			"Dockerfile.*, *.Dockerfile and Containerfile; - is standard input. It needs no\n" +
			"network and no store.\n\n" +
			"   mirrorctl find\n" +
			"   mirrorctl find --all-stages --json services/ | jq -r .name | sort -u",
		Flags: append(discoverFlags(),
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object a line: name, file, line, stage, kind"}),
		Action: p.find,
	}
}

func (p *program) find(c *cli.Context) error {
	found, err := p.discover(c, c.Args().Slice())
	if err != nil {
		return err
	}
	if c.Bool("json") {
		enc := json.NewEncoder(p.stdout)
		enc.SetEscapeHTML(false)
		for _, u := range found.uses {
			if err := enc.Encode(u); err != nil {
				return err
			}
		}
	} else {
		t := newTable(p.stdout, "NAME", "FILE", "STAGE", "KIND")
		for _, u := range found.uses {
			kind := u.Kind
			if u.Unreachable {
				kind += " (unreachable)"
			}
			t.row(u.Name, u.where(), u.Stage, kind)
		}
		if err := t.flush(); err != nil {
			return err
		}
	}
	if len(found.failed) > 0 {
		return &codedError{code: failedFilesCode(found), err: errors.Join(found.failed...)}
	}
	return nil
}

// failedFilesCode is the exit code when some files could not be read.
func failedFilesCode(found discovery) int {
	if len(found.files) > 0 {
		return exitSome
	}
	return exitFailure
}
