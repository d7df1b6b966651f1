package cmd

import (
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"mirrorctl/store"
	"mirrorctl/upstream"
)

func (p *program) verifyCommand() *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "check the store by hashing everything again",
		ArgsUsage: "[IMAGE...]",
		Description: "Hashes every blob of the given images (default: the whole store) and checks that\n" +
			"nothing is missing. It exits with 5 if something is damaged and names the images\n" +
			"that it hurts. Damaged files are moved to damaged/ in the store, so that no serve\n" +
			"sends them any more. --repair fetches them again, by digest, from the registry or\n" +
			"its configured mirrors; so does the next sync.\n\n" +
			"   mirrorctl verify debian:bookworm\n" +
			"   mirrorctl verify --repair",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "repair", Usage: "fetch what is damaged from upstream"},
		},
		BashComplete: p.completeImages,
		Action:       p.verify,
	}
}

func (p *program) verify(c *cli.Context) error {
	names, err := parseNames(c.Args().Slice())
	if err != nil {
		return err
	}
	with := p.withStoreReadOnly
	if c.Bool("repair") {
		with = p.withExistingStore
	}
	return with(c, func(st *store.Store) error {
		var pins []store.Pin
		for _, name := range names {
			pin, err := p.findPin(c, st, canonical(name))
			if err != nil {
				return err
			}
			pins = append(pins, pin)
		}
		checked, err := st.Verify(c.Context, pins, nil)
		if err != nil {
			return err
		}
		p.say("%s, %s hashed, %d damaged", plural(checked.Blobs, "blob", "blobs"), size(checked.Bytes), len(checked.Damage))
		if len(checked.Damage) == 0 {
			return nil
		}
		if c.Bool("repair") {
			return p.repair(c, st, checked.Damage)
		}
		var failures []error
		for _, d := range checked.Damage {
			failures = append(failures, errors.New(damageText(d)))
		}
		failures = append(failures, errors.New("run mirrorctl verify --repair to fetch what is damaged"))
		return &codedError{code: exitIntegrity, err: errors.Join(failures...)}
	})
}

func damageText(d store.Damage) string {
	var images []string
	for _, pin := range d.Pins {
		images = append(images, pin.Name())
	}
	hurts := "no pinned image needs it"
	if len(images) > 0 {
		hurts = "needed by " + strings.Join(images, ", ")
	}
	text := fmt.Sprintf("%s: %s; %s", d.Digest, d.Problem, hurts)
	if d.Kept != nil {
		text += fmt.Sprintf("; it could not be moved out of service: %v", cause(d.Kept))
	}
	return text
}

// repair fetches damaged content again, from the registry of an image that needs it.
func (p *program) repair(c *cli.Context, st *store.Store, damage []store.Damage) error {
	client, err := p.newUpstream(st, 0)
	if err != nil {
		return err
	}
	defer p.closeUpstream(client)
	var failures []error
	for _, d := range damage {
		done, err := repairOne(c, st, client, d)
		if err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", damageText(d), err))
			continue
		}
		p.say("%s: %s", d.Digest, done)
	}
	if len(failures) > 0 {
		return &codedError{code: exitIntegrity, err: errors.Join(failures...)}
	}
	return nil
}

// repairOne says what it has done.
func repairOne(c *cli.Context, st *store.Store, client *upstream.Client, d store.Damage) (string, error) {
	if len(d.Pins) == 0 {
		if dropped, err := st.Forget(c.Context, d.Digest); err != nil || dropped {
			return "dropped, because no pinned image needs it", err
		}
		return "", errors.New("no image tells where to fetch it; mirrorctl gc may drop it")
	}
	var err error
	for _, pin := range d.Pins {
		if err = client.Repair(c.Context, pin.Repository, d.Descriptor); err == nil || c.Context.Err() != nil {
			break
		}
	}
	return "repaired", err
}
