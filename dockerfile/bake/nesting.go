package bake

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// maxNesting bounds how deeply a file may be nested. The parsers call themselves
// for each bracket, and what fills the stack ends the process.
const maxNesting = 1000

// checkNesting refuses a file that is nested more deeply than that.
func checkNesting(f File) error {
	tooDeep := func(line int) error {
		return fmt.Errorf("%s:%d: more than %d brackets within each other", f.Name, line, maxNesting)
	}
	depth := 0
	if strings.HasSuffix(f.Name, ".json") {
		inString := false
		for i := 0; i < len(f.Text); i++ {
			switch c := f.Text[i]; {
			case inString && c == '\\':
				i++
			case c == '"':
				inString = !inString
			case inString:
			case c == '[', c == '{':
				if depth++; depth > maxNesting {
					return tooDeep(1 + bytes.Count(f.Text[:i], []byte("\n")))
				}
			case c == ']', c == '}':
				depth--
			}
		}
		return nil
	}
	tokens, _ := hclsyntax.LexConfig(f.Text, f.Name, hcl.InitialPos) // what is wrong the parser says
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
			if depth++; depth > maxNesting {
				return tooDeep(t.Range.Start.Line)
			}
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenTemplateSeqEnd:
			depth--
		}
	}
	return nil
}
