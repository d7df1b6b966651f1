package cmd

import (
	"strings"

	"github.com/urfave/cli/v2"
)

// permute moves a command's flags before its other arguments, because people
// write mirrorctl sync ./Dockerfile --locked and the cli package takes flags only
// in front. What stands behind -- stays as it is.
func permute(app *cli.App, args []string) []string {
	if len(args) == 0 {
		return args
	}
	// The global flags come first, then the command's name.
	at := 1
	for at < len(args) && strings.HasPrefix(args[at], "-") {
		if args[at] == "--" {
			return args
		}
		if takesValue(app.Flags, args[at]) {
			at++
		}
		at++
	}
	if at >= len(args) {
		return args
	}
	command := app.Command(args[at])
	if command == nil {
		return args
	}
	var global, flags, rest []string
	for i := at + 1; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			rest = append(rest, args[i:]...)
			break
		}
		if !strings.HasPrefix(arg, "-") || arg == "-" {
			rest = append(rest, arg)
			continue
		}
		to, known := &flags, command.Flags
		if !hasFlag(command.Flags, arg) && hasFlag(app.Flags, arg) {
			to, known = &global, app.Flags // mirrorctl ls --store x
		}
		*to = append(*to, arg)
		if takesValue(known, arg) && i+1 < len(args) {
			i++
			*to = append(*to, args[i])
		}
	}
	out := append([]string{}, args[:at]...)
	out = append(out, global...)
	out = append(out, args[at])
	out = append(out, flags...)
	return append(out, rest...)
}

// flagName returns the name in -x, --name and --name=value.
func flagName(arg string) (name string, hasValue bool) {
	name, _, hasValue = strings.Cut(strings.TrimLeft(arg, "-"), "=")
	return name, hasValue
}

func findFlag(flags []cli.Flag, arg string) cli.Flag {
	name, _ := flagName(arg)
	for _, f := range flags {
		for _, n := range f.Names() {
			if n == name {
				return f
			}
		}
	}
	return nil
}

func hasFlag(flags []cli.Flag, arg string) bool { return findFlag(flags, arg) != nil }

// takesValue reports whether the argument is a flag whose value is the next argument.
func takesValue(flags []cli.Flag, arg string) bool {
	if _, has := flagName(arg); has {
		return false
	}
	switch f := findFlag(flags, arg).(type) {
	case nil, *cli.BoolFlag:
		return false
	case *cli.GenericFlag:
		b, ok := f.Value.(interface{ IsBoolFlag() bool })
		return !ok || !b.IsBoolFlag()
	}
	return true
}
