package cmd

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"mirrorctl/store"
)

// The shells ask mirrorctl itself, by the flag that the cli package answers.
const (
	//
	// Bash takes debian:12 for three words, unless the user has taken the colon
	// out of COMP_WORDBREAKS; so the line is split again here, and what stands
	// before the last colon is left out of the replies.
	bashCompletion = `_mirrorctl() {
  local words cur
  read -ra words <<< "${COMP_LINE:0:$COMP_POINT}"
  [[ "${COMP_LINE:0:$COMP_POINT}" == *[[:space:]] ]] && words+=("")
  cur="${words[-1]}"
  COMPREPLY=($(compgen -o default -W "$("${words[@]:0:${#words[@]}-1}" $([[ "$cur" == -* ]] && printf -- "$cur") --generate-bash-completion 2>/dev/null)" -- "$cur"))
  if [[ "$cur" == *:* && "$COMP_WORDBREAKS" == *:* ]]; then
    COMPREPLY=("${COMPREPLY[@]#"${cur%"${cur##*:}"}"}")
  fi
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

// completeImages offers the pinned images to a shell, as people type them. A
// store that cannot be read offers none: there is nobody to tell.
func (p *program) completeImages(c *cli.Context) {
	cli.DefaultCompleteWithFlags(c.Command)(c)
	var err error
	if p.config, err = openConfig(c.String("config"), p.getenv); err != nil {
		return
	}
	_ = p.withStoreReadOnly(c, func(st *store.Store) error {
		names, err := st.Names(c.Context, store.Repository{})
		for _, name := range names {
			fmt.Fprintln(p.stdout, printable(familiarPin(name)))
		}
		return err
	})
}

// completeWords offers words that are always the same.
func (p *program) completeWords(words ...string) cli.BashCompleteFunc {
	return func(c *cli.Context) {
		cli.DefaultCompleteWithFlags(c.Command)(c)
		for _, word := range words {
			fmt.Fprintln(p.stdout, word)
		}
	}
}

func (p *program) completionCommand() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print the completion script of a shell",
		ArgsUsage: "bash|zsh|fish",
		Description: "   source <(mirrorctl completion bash)\n" +
			"   mirrorctl completion fish > ~/.config/fish/completions/mirrorctl.fish",
		BashComplete: p.completeWords("bash", "zsh", "fish"),
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
