package cmd

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"mirrorctl/lockfile/stricttoml"
)

func (p *program) configCommand() *cli.Command {
	return &cli.Command{
		Name:      "config",
		Usage:     "check or show the configuration",
		ArgsUsage: "check|show",
		Description: "check reads the configuration, the environment and the flags of serve, with the files\n" +
			"that they name, and tells all mistakes at once. show prints each setting and where it\n" +
			"comes from; passwords are left out.\n\n" +
			"   mirrorctl config check && systemctl reload mirrorctl\n" +
			"   mirrorctl config show --listen :5000",
		Flags:  append(serveFlags(), &cli.BoolFlag{Name: "json", Usage: "with show, print an array of objects: key, value, from"}),
		Action: p.configure,
	}
}

func (p *program) configure(c *cli.Context) error {
	switch {
	case c.NArg() == 1 && c.Args().First() == "check":
		return p.configCheck(c)
	case c.NArg() == 1 && c.Args().First() == "show":
		return p.configShow(c)
	}
	return usageErrorf("config takes check or show; see mirrorctl config --help")
}

func (p *program) configCheck(c *cli.Context) error {
	_, err := p.serveOptions(c, p.config)
	_, upstreamErr := p.upstreamOptions() // opens the files of registries
	if err := errors.Join(err, upstreamErr); err != nil {
		return err
	}
	if p.config.Path == "" {
		p.say("no configuration file; flags and environment are in order")
	} else {
		p.say("%s is in order", p.config.Path)
	}
	return nil
}

// shown is a line of config show.
type shown struct {
	Key   string `json:"key"`
	Value any    `json:"value"` // a string, or an array of them
	From  string `json:"from"`  // --listen, MIRRORCTL_LISTEN, mirrorctl.toml:3 or default
}

func (p *program) configShow(c *cli.Context) error {
	lines, entries, err := p.configEntries()
	if err != nil {
		return err
	}
	var all []shown
	known := map[string]bool{}
	add := func(key string, values any, from string) {
		known[key] = true
		all = append(all, shown{key, values, from})
	}
	dir, err := p.storeDir(c)
	if err != nil {
		return err
	}
	add("store", dir, globalFrom(c, p, "store", "MIRRORCTL_STORE", lines))
	add("log_level", cmp.Or(c.String("log-level"), p.config.LogLevel, "warn"), globalFrom(c, p, "log-level", "MIRRORCTL_LOG_LEVEL", lines))
	add("log_format", p.logFormat, globalFrom(c, p, "log-format", "MIRRORCTL_LOG_FORMAT", lines))
	var errs []error
	for _, s := range serveSettings {
		g, err := p.setting(c, p.config, s)
		errs = append(errs, err)
		key := "serve." + s.key()
		from := g.by
		switch {
		case from == "":
			from = "default"
		case from == key:
			from = lines[key]
		}
		switch {
		case s.many:
			add(key, append([]string{}, g.values...), from)
		case len(g.values) > 0:
			add(key, g.values[0], from)
		default:
			add(key, s.shown, from)
		}
	}
	for _, e := range entries {
		if !known[e.Key] {
			add(e.Key, printableValue(e), lines[e.Key])
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if c.Bool("json") {
		enc := json.NewEncoder(p.stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(all)
	}
	t := newTable(p.stdout, "KEY", "VALUE", "FROM")
	for _, line := range all {
		value := line.Value
		if list, ok := value.([]string); ok {
			value = strings.Join(list, ", ")
		}
		t.row(line.Key, fmt.Sprint(value), line.From)
	}
	return t.flush()
}

// configEntries returns what the configuration file says, and where.
func (p *program) configEntries() (lines map[string]string, entries []stricttoml.Entry, err error) {
	lines = map[string]string{}
	if p.config.Path == "" {
		return lines, nil, nil
	}
	data, err := readLimited(p.config.Path)
	if err != nil {
		return nil, nil, err
	}
	doc, err := stricttoml.Parse(p.config.Path, data)
	if err != nil {
		return nil, nil, err
	}
	entries = doc.Entries()
	for _, e := range entries {
		lines[e.Key] = fmt.Sprintf("%s:%d", p.config.Path, e.Line)
	}
	return lines, entries, nil
}

// globalFrom is where a setting of all commands comes from.
func globalFrom(c *cli.Context, p *program, flag, variable string, lines map[string]string) string {
	key := strings.ReplaceAll(flag, "-", "_")
	switch value := c.String(flag); {
	case value != "" && p.getenv(variable) == value:
		return variable
	case value != "":
		return "--" + flag
	case lines[key] != "":
		return lines[key]
	}
	return "default"
}

// printableValue is the value of an entry, if it is no password.
func printableValue(e stricttoml.Entry) any {
	if e.Key == "password" || strings.HasSuffix(e.Key, ".password") {
		return "(secret)"
	}
	if list, ok := e.Value.([]any); ok {
		texts := []string{}
		for _, v := range list {
			texts = append(texts, fmt.Sprint(v))
		}
		return texts
	}
	return fmt.Sprint(e.Value)
}
