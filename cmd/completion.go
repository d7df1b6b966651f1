package cmd

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

// The shells ask mirrorctl itself, by the flag that the cli package answers.
const (
	bashCompletion = `_mirrorctl() {
  local cur="${COMP_WORDS[COMP_CWORD]}"
  COMPREPLY=($(compgen -o default -W "$("${COMP_WORDS[@]:0:$COMP_CWORD}" $([[ "$cur" == -* ]] && printf -- "$cur") --generate-bash-completion 2>/dev/null)" -- "$cur"))
}
complete -o default -F _mirrorctl mirrorctl
`
	zshCompletion = `#compdef mirrorctl
_mirrorctl() {
  local -a opts
  local cur=${words[-1]}
  if [[ "$cur" == -* ]]; then
    opts=("${(@f)$(${words[@]:0:#words[@]-1} ${cur} --generate-bash-completion 2>/dev/null)}")
  else
    opts=("${(@f)$(${words[@]:0:#words[@]-1} --generate-bash-completion 2>/dev/null)}")
  fi
  if [[ -n "${opts[1]}" ]]; then
    compadd -- ${opts%%:*}
  fi
  _files
}
compdef _mirrorctl mirrorctl
`
)

func (p *program) completionCommand() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print the completion script of a shell",
		ArgsUsage: "bash|zsh|fish",
		Description: "   source <(mirrorctl completion bash)\n" +
			"   mirrorctl completion fish > ~/.config/fish/completions/mirrorctl.fish",
		Action: func(c *cli.Context) error {
			var script string
			if c.NArg() != 1 {
				return usageErrorf("completion takes one shell: bash, zsh or fish")
			}
			switch shell := c.Args().First(); shell {
			case "bash":
				script = bashCompletion
			case "zsh":
				script = zshCompletion
			case "fish":
				var err error
				if script, err = c.App.ToFishCompletion(); err != nil {
					return err
				}
				script = strings.ReplaceAll(script, "`", "") // they mark words in the help
			default:
				return usageErrorf("completion for %q is not known: bash, zsh or fish", shell)
			}
			_, err := fmt.Fprint(p.stdout, script)
			return err
		},
	}
}
