package cmd

import (
	"encoding/json"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"mirrorctl/store"
)

func (p *program) historyCommand() *cli.Command {
	return &cli.Command{
		Name:      "history",
		Usage:     "show what happened to pins, and why",
		ArgsUsage: "[IMAGE...]",
		Description: "Shows when images were pinned, moved by --update or removed, and by whom: sync or\n" +
			"add for which lock, rm, gc, pull-through, or the page. The latest is last.\n\n" +
			"   mirrorctl history ubuntu:20.04",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object a line: at, action, name, digest, note"},
			&cli.IntFlag{Name: "last", Aliases: []string{"n"}, Usage: "show the last `N`; 0 is all", Value: 100},
		},
		BashComplete: p.completeImages,
		Action:       p.history,
	}
}

// eventJSON is how history --json shows an event.
type eventJSON struct {
	At     time.Time     `json:"at"`
	Action string        `json:"action"`
	Name   string        `json:"name"`
	Digest digest.Digest `json:"digest"`
	Note   string        `json:"note,omitempty"`
}

func (p *program) history(c *cli.Context) error {
	names, err := parseNames(c.Args().Slice())
	if err != nil {
		return err
	}
	n := c.Int("last")
	if n < 0 {
		return usageErrorf("--last %d: must be 0 or more", n)
	}
	if n == 0 {
		n = -1
	}
	return p.withStoreReadOnly(c, func(st *store.Store) error {
		var of []store.Pin
		for _, name := range names {
			repo, ref := store.Locate(canonical(name))
			of = append(of, store.Pin{Repository: repo, Reference: ref})
		}
		events, err := st.History(c.Context, n, of...)
		if err != nil {
			return err
		}
		enc := json.NewEncoder(p.stdout)
		t := newTable(p.stdout, "WHEN", "WHAT", "NAME", "DIGEST", "BY")
		for i := range events {
			e := events[len(events)-1-i]
			if c.Bool("json") {
				if err := enc.Encode(eventJSON{e.At, e.Action, e.Name(), e.Digest, e.Note}); err != nil {
					return err
				}
				continue
			}
			t.row(e.At.Local().Format("2006-01-02 15:04"), e.Action, e.Name(), short(e.Digest), e.Note)
		}
		if len(events) == 0 {
			p.say("nothing has happened to %s", map[bool]string{true: "these images", false: "any image"}[len(names) > 0])
		}
		return t.flush()
	})
}
