package cmd

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
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
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object a line: name, digest, media_type, size, platforms, pinned_at; for one that is being fetched: arriving"},
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

	Arriving *arrivingJSON `json:"arriving,omitempty"`
}

// arrivingJSON is how much is here of an image that a server pulls through. The
// totals grow while its manifests arrive.
type arrivingJSON struct {
	Blobs      int   `json:"blobs"`
	TotalBlobs int   `json:"total_blobs"`
	Bytes      int64 `json:"bytes"`
	TotalBytes int64 `json:"total_bytes"`
}

// arrivals lists the images that are pinned, but not here as a whole yet.
func arrivals(ctx context.Context, st *store.Store) ([]pinJSON, error) {
	all, err := st.Arrivals(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]pinJSON, len(all))
	for i, a := range all {
		n, err := st.Arrived(ctx, a)
		if err != nil {
			return nil, err
		}
		list[i] = pinJSON{
			Name: a.Name(), Digest: a.Digest.String(), MediaType: a.MediaType, Size: n.TotalBytes, Platforms: []string{}, PinnedAt: a.Since,
			Arriving: &arrivingJSON{n.Blobs, n.TotalBlobs, n.Bytes, n.TotalBytes},
		}
	}
	return list, nil
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
		arriving, err := arrivals(c.Context, st)
		if err != nil {
			return err
		}
		if c.Bool("json") {
			out := bufio.NewWriter(p.stdout)
			enc := json.NewEncoder(out)
			for _, pin := range pins {
				err := enc.Encode(pinJSON{
					Name: pin.Name(), Digest: pin.Digest.String(), MediaType: pin.MediaType, Size: pin.Size,
					Platforms: platformNames(pin.Platforms), PinnedAt: pin.PinnedAt,
				})
				if err != nil {
					return err
				}
			}
			for _, a := range arriving {
				if err := enc.Encode(a); err != nil {
					return err
				}
			}
			return out.Flush()
		}
		if len(pins)+len(arriving) == 0 {
			p.say("nothing is pinned yet; run mirrorctl sync in a folder with a Dockerfile, or mirrorctl add IMAGE")
		}
		shown := short
		if c.Bool("digests") {
			shown = digest.Digest.String
		}
		at := func(t time.Time) string { return t.Local().Format("2006-01-02 15:04") }
		t := newTable(p.stdout, "NAME", "DIGEST", "PLATFORMS", "SIZE", "PINNED")
		for _, pin := range pins {
			t.row(pin.Name(), shown(pin.Digest), strings.Join(platformNames(pin.Platforms), ","), size(pin.Size), at(pin.PinnedAt))
		}
		for _, a := range arriving {
			d := digest.Digest(a.Digest)
			t.row(a.Name, shown(d), fmt.Sprintf("fetching, %d of %d blobs", a.Arriving.Blobs, a.Arriving.TotalBlobs), size(a.Size), at(a.PinnedAt))
		}
		return t.flush()
	})
}
