package cmd

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/urfave/cli/v2"
)

func (p *program) manCommand() *cli.Command {
	return &cli.Command{
		Name:        "man",
		Usage:       "print the manual page",
		Description: "   mirrorctl man > /usr/local/share/man/man1/mirrorctl.1",
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usageErrorf("man takes no arguments; see mirrorctl man --help")
			}
			_, err := fmt.Fprint(p.stdout, manual(c.App))
			return err
		},
	}
}

// manual is the help of all commands as a manual page, in the macros of man(7).
// The cli package makes one too, but without what commands say of themselves.
func manual(app *cli.App) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH MIRRORCTL 1 \"\" \"mirrorctl %s\"\n", roff(app.Version))
	fmt.Fprintf(&b, ".SH NAME\nmirrorctl \\- %s\n", roff(app.Usage))
	b.WriteString(".SH SYNOPSIS\n.B mirrorctl\n[\\fIoptions\\fR] \\fIcommand\\fR [\\fIoptions\\fR] [\\fIarguments\\fR]\n")
	b.WriteString(".SH DESCRIPTION\n" + paragraphs(app.Description))
	b.WriteString(".SH OPTIONS\n" + options(app.VisibleFlags()))
	b.WriteString(".SH COMMANDS\n")
	for _, c := range app.VisibleCommands() {
		fmt.Fprintf(&b, ".SS %s\n", roff(strings.TrimSpace("mirrorctl "+c.Name+" "+c.ArgsUsage)))
		b.WriteString(strings.ToUpper(c.Usage[:1]) + roff(c.Usage[1:]) + ".\n")
		if c.Description != "" {
			b.WriteString(".PP\n" + paragraphs(c.Description))
		}
		b.WriteString(options(c.VisibleFlags()))
	}
	b.WriteString(".SH EXIT STATUS\n")
	for _, s := range []struct {
		code    int
		meaning string
	}{
		{0, "All was done."},
		{exitFailure, "Nothing was done, or not what was asked for."},
		{exitUsage, "The command line is wrong."},
		{exitSome, "Some images failed, the rest are done."},
		{exitConflict, "The lock disagrees with the files (--locked) or with the store."},
		{exitIntegrity, "Content in the store is damaged."},
		{exitInterrupted, "Interrupted."},
	} {
		fmt.Fprintf(&b, ".TP\n%d\n%s\n", s.code, roff(s.meaning))
	}
	return b.String()
}

// paragraphs lays out a description: what is indented there are commands and
// tables, and stays as it is.
func paragraphs(text string) string {
	var b strings.Builder
	for i, block := range strings.Split(text, "\n\n") {
		if i > 0 {
			b.WriteString(".PP\n")
		}
		if strings.HasPrefix(block, "   ") {
			fmt.Fprintf(&b, ".nf\n%s\n.fi\n", roff(block))
		} else {
			b.WriteString(roff(block) + "\n")
		}
	}
	return b.String()
}

// argument is how usage texts mark the argument of a flag.
var argument = regexp.MustCompile("`([^`]*)`")

func options(flags []cli.Flag) string {
	var b strings.Builder
	for _, f := range flags {
		if f == cli.HelpFlag {
			continue
		}
		var names []string
		for _, name := range f.Names() {
			names = append(names, `\fB`+roff(strings.Repeat("-", min(2, len(name)))+name)+`\fR`)
		}
		usage := ""
		if doc, ok := f.(cli.DocGenerationFlag); ok {
			usage = doc.GetUsage()
		}
		value := ""
		if m := argument.FindStringSubmatch(usage); m != nil {
			value = ` \fI` + roff(m[1]) + `\fR`
		}
		fmt.Fprintf(&b, ".TP\n%s%s\n%s\n", strings.Join(names, ", "), value, roff(argument.ReplaceAllString(usage, "$1")))
	}
	return b.String()
}

// roff is a text in which nothing is a request or an escape (groff_char(7)).
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "~", `\(ti`, "^", `\(ha`).Replace(s)
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
