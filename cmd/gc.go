package cmd

import (
	"github.com/urfave/cli/v2"

	"mirrorctl/store"
)

func (p *program) gcCommand() *cli.Command {
	return &cli.Command{
		Name:  "gc",
		Usage: "drop content that no pinned image needs",
		Description: "Drops what interrupted syncs and moved pins left behind. It is safe while sync and\n" +
			"serve run: what a running sync needs stays. rm frees what it drops by itself.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "orphans", Usage: "also drop files that the index does not know, as the loss of the index or of power leaves them"},
			&cli.DurationFlag{Name: "partials-older-than", Value: store.PartialAge, Usage: "also drop partial downloads that nobody has touched for `DURATION`"},
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usageErrorf("gc takes no arguments; see mirrorctl gc --help")
			}
			return p.withExistingStore(c, func(st *store.Store) error {
				if c.Bool("orphans") {
					if err := st.FindOrphans(c.Context); err != nil {
						return err
					}
				}
				freed, err := st.Collect(c.Context, c.Duration("partials-older-than"))
				if err != nil {
					return err
				}
				p.say("freed %s in %s", size(freed.Bytes), plural(freed.Blobs, "file", "files"))
				return nil
			})
		},
	}
}
