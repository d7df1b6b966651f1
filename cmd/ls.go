package cmd

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"mirrorctl/store"
)

func (p *program) lsCommand() *cli.Command {
	return &cli.Command{
		Name:  "ls",
		Usage: "list the pinned images",
		Description: "   mirrorctl ls --digests\n" +
			"   mirrorctl ls --json | jq -r .name",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "digests", Usage: "show digests in full"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object a line: name, digest, media_type, size, platforms, pinned_at"},
		},
		Action: p.ls,
	}
}

// pinJSON is how ls --json shows a pin.
type pinJSON struct {
	Name      string    `json:"name"`
	Digest    string    `json:"digest"`
	MediaType string    `json:"media_type"`
	Size      int64     `json:"size"`
	Platforms []string  `json:"platforms"`
	PinnedAt  time.Time `json:"pinned_at"`
}

func (p *program) ls(c *cli.Context) error {
	if c.Args().Present() {
		return usageErrorf("ls takes no arguments; see mirrorctl ls --help")
	}
	return p.withStoreReadOnly(c, func(st *store.Store) error {
		pins, err := st.Pins(c.Context)
		if err != nil {
			return err
		}
		if c.Bool("json") {
			enc := json.NewEncoder(p.stdout)
			for _, pin := range pins {
				err := enc.Encode(pinJSON{
					Name: pin.Name(), Digest: pin.Digest.String(), MediaType: pin.MediaType, Size: pin.Size,
					Platforms: platformNames(pin.Platforms), PinnedAt: pin.PinnedAt,
				})
				if err != nil {
					return err
				}
			}
			return nil
		}
		if len(pins) == 0 {
			p.say("nothing is pinned yet; run mirrorctl sync in a folder with a Dockerfile, or mirrorctl add IMAGE")
		}
		t := newTable(p.stdout, "NAME", "DIGEST", "PLATFORMS", "SIZE", "PINNED")
		for _, pin := range pins {
			digest := short(pin.Digest)
			if c.Bool("digests") {
				digest = pin.Digest.String()
			}
			t.row(pin.Name(), digest, strings.Join(platformNames(pin.Platforms), ","), size(pin.Size), pin.PinnedAt.Local().Format("2006-01-02 15:04"))
		}
		return t.flush()
	})
}
