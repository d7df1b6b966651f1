package oracle

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// A generator writes random Dockerfiles: mostly such that BuildKit accepts
// them, and full of what is easy to get wrong.
type generator struct {
	*rand.Rand
	b      strings.Builder
	stages []string
	escape string
	eol    string
}

// Generate returns the Dockerfile for a seed, and the names of its stages.
func Generate(seed uint64) (file []byte, stages []string) {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 1)), escape: `\`, eol: "\n"}
	g.file()
	return []byte(g.b.String()), g.stages
}

func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

func (g *generator) pick(from ...string) string { return from[g.IntN(len(from))] }

func (g *generator) line(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	// Break lines at spaces, with comments and blank lines between.
	if g.chance(15) {
		between := g.escape + g.pick("", " ", "\t") + g.eol + g.pick("", "", "# comment"+g.eol, g.eol, "  # FROM x"+g.eol+g.eol)
		if i := strings.Index(s, " "); i > 0 && i+1 < len(s) {
			s = s[:i+1] + between + s[i+1:]
		}
	}
	g.b.WriteString(g.pick("", "", "", "", " ", "\t") + s + g.eol)
	if g.chance(10) {
		g.b.WriteString(g.pick("# comment", "", "# check=skip=all", "#", "  # syntax=foo") + g.eol)
	}
}

func (g *generator) file() {
	if g.chance(5) {
		g.b.WriteString("\ufeff")
	}
	if g.chance(15) {
		g.eol = "\r\n"
	}
	if g.chance(15) {
		g.b.WriteString("# syntax=docker/dockerfile:1" + g.eol)
	}
	if g.chance(15) {
		g.escape = "`"
		g.b.WriteString("# escape=`" + g.eol)
	}
	for range g.IntN(5) {
		g.globalArg()
	}
	for i := range 1 + g.IntN(6) {
		g.stage(i)
	}
}

var argNames = []string{"A", "B", "C", "TAG", "EMPTY", "TARGETARCH", "BUILDARCH", "TARGETSTAGE", "SOURCE_DATE_EPOCH"}

func (g *generator) arg() string {
	if g.chance(85) {
		return argNames[g.IntN(5)]
	}
	return argNames[g.IntN(len(argNames))]
}

func (g *generator) globalArg() {
	g.line("%s", g.keyword("ARG")+" "+g.argument())
	if g.chance(15) {
		g.line("%s", g.keyword("ARG")+" "+g.argument()+" "+g.argument())
	}
}

func (g *generator) argument() string {
	name := g.arg()
	if name == "SOURCE_DATE_EPOCH" {
		return name + "=" + g.pick("", "0", "007", "+1", "context", "-3")
	}
	switch g.IntN(10) {
	case 0:
		return name
	case 1:
		return name + "="
	case 2:
		return name + `="` + g.word() + `"`
	case 3:
		return name + `='` + g.word() + `'`
	case 4:
		return name + "=" + g.word() + g.escape + g.pick("a", "$", `"`, g.escape)
	}
	return name + "=" + g.word()
}

// word returns a word with or without variables.
func (g *generator) word() string {
	s := g.pick("", "", "a", "debian", "b-1", "scratch", "v1.2.3")
	for range g.IntN(3) {
		s += g.variable(2)
	}
	return s
}

func (g *generator) variable(depth int) string {
	name := g.pick(g.arg(), g.arg(), "TARGETPLATFORM", "TARGETOS", "TARGETARCH", "TARGETVARIANT", "BUILDPLATFORM", "BUILDARCH", "BUILDVARIANT", "TARGETSTAGE", "NONE")
	if depth == 0 {
		return "x"
	}
	inner := func() string {
		if g.chance(30) {
			return g.variable(depth - 1)
		}
		return g.pick("", "d", "e-f", "1.2", "latest")
	}
	pattern := func() string {
		return g.pick("a*", "*", "?", "d", "*.", "v1", "*d", "amd", g.escape+"*", g.escape+"/", ".", "**", "[a-z]", `"d"`, "'e'", inner())
	}
	switch g.IntN(14) {
	case 0, 1, 2:
		return "$" + name
	case 3, 4, 5:
		return "${" + name + "}"
	case 6:
		return "${" + name + g.pick("-", ":-") + inner() + "}"
	case 7:
		return "${" + name + g.pick("+", ":+") + inner() + "}"
	case 8:
		return "${" + name + ":-" + inner() + "}"
	case 9:
		return "${" + name + g.pick("#", "##") + pattern() + "}"
	case 10:
		return "${" + name + g.pick("%", "%%") + pattern() + "}"
	case 11, 12:
		return "${" + name + g.pick("/", "//") + pattern() + "/" + inner() + "}"
	}
	if g.chance(20) {
		return "${" + name + g.pick("?", ":?") + "message}"
	}
	return "${TARGETOS:?message}"
}

func (g *generator) keyword(s string) string {
	if g.chance(15) {
		return strings.ToLower(s)
	}
	return s
}

func (g *generator) image() string {
	return g.pick("debian", "debian:12", "golang:1.26", "busybox", "alpine:3", "node", "ghcr.io/owner/app:v1", "localhost:5000/x",
		"owner/app", "debian:12@sha256:"+strings.Repeat("a", 64), "index.docker.io/library/ubuntu:24.04", "0", "1", "scratch", "later", "s0", "s1:latest")
}

func (g *generator) anyStage() string {
	if len(g.stages) == 0 {
		return g.image()
	}
	return g.stages[g.IntN(len(g.stages))]
}

func (g *generator) stage(i int) {
	base := g.image()
	switch g.IntN(10) {
	case 0, 1, 2:
		base = g.anyStage()
	case 3, 4:
		base = g.pick("debian", "debian:1", "ghcr.io/owner/app:", "x", "") + g.variable(2)
	case 5:
		base = "base-" + g.variable(1)
	case 6:
		base = g.pick("${", "x${", "x:1${") + g.arg() + g.pick("}", ":-debian}", "-debian}")
	case 7:
		base = g.pick(`"`+base+`"`, "'"+base+"'", base)
		if g.chance(5) {
			base = strings.ToUpper(base)
		}
	}
	from := g.keyword("FROM")
	if g.chance(15) {
		// Always with a slash: a bare system or architecture makes BuildKit
		// fill in the rest from the machine it runs on.
		from += " --platform=" + g.pick("linux/amd64", "linux/arm/v7", "$BUILDPLATFORM", "$TARGETPLATFORM", "linux/$TARGETARCH", "linux/${A:-s390x}", "linux/arm64/v8", "windows/amd64")
	}
	from += " " + base
	own := ""
	if g.chance(75) {
		own = g.pick(fmt.Sprintf("s%d", i), fmt.Sprintf("S%d", i), "build", "Build", "base-amd64", "base-arm64", "later", "debian", "scratch")
		if g.chance(90) {
			own = fmt.Sprintf(g.pick("s%d", "s%d", "S%d"), i)
		}
		from += " " + g.pick("AS", "as", "As") + " " + own
	}
	g.line("%s", from)
	for range g.IntN(5) {
		g.instruction(i)
	}
	if own != "" {
		g.stages = append(g.stages, own)
	}
}

func (g *generator) source(i int) string {
	s := g.image()
	switch g.IntN(10) {
	case 0, 1, 2, 3:
		s = g.anyStage()
	case 4:
		if i > 0 {
			s = fmt.Sprint(g.IntN(i))
		}
	case 5:
		if len(g.stages) > 0 {
			s = strings.ToUpper(g.anyStage())
		}
	}
	if g.chance(3) {
		s = g.pick("+0", "00", "1", "2", "9", "-1", "$A", `"debian"`, "de"+g.escape+"bian", "Scratch")
	}
	return s
}

func (g *generator) mount(i int) string {
	m := g.pick("type=bind,", "type=cache,", "type=tmpfs,", "", "", "TYPE=Bind,")
	if g.chance(2) {
		m = "type=$T,"
	}
	if g.chance(75) {
		m += g.pick("from=", "from=", "From=") + g.source(i) + ","
	}
	return "--mount=" + m + g.pick("target=", "dst=") + "/" + g.pick("x", "y", "$A/z", "x,rw")
}

func (g *generator) instruction(i int) {
	s := g.command(i)
	if g.chance(15) && !strings.Contains(s, g.eol) {
		s = g.keyword("ONBUILD") + " " + s
	}
	g.line("%s", s)
}

func (g *generator) command(i int) string {
	switch g.IntN(14) {
	case 0, 1, 2:
		return g.keyword("COPY") + " --from=" + g.source(i) + " /a /b"
	case 3:
		return g.keyword("COPY") + " --link --from=" + g.source(i) + ` ["/a", "/b"]`
	case 4, 5:
		return g.keyword("RUN") + " " + g.mount(i) + " true"
	case 6:
		return g.keyword("RUN") + " " + g.mount(i) + " " + g.mount(i) + ` ["true"]`
	case 7:
		return g.keyword("RUN") + " " + g.mount(i) + " <<EOF" + g.eol + "FROM nothing" + g.eol + "COPY --from=nothing a b" + g.eol + "EOF"
	case 8:
		return "COPY --from=" + g.source(i) + " <<one <<-two /x/" + g.eol + "FROM nothing" + g.eol + "one" + g.eol + "\tFROM nothing" + g.eol + "\ttwo"
	case 9:
		return "ADD " + g.pick("https://example.org/x", "a") + " /x"
	case 10:
		return "ARG " + g.arg() + "=" + g.pick("1", "x", "debian")
	case 11:
		return "RUN --mount=type=ssh " + g.pick("true", "echo --from=nothing")
	case 12:
		return "COPY a b"
	}
	return g.pick("ENV A=b", "RUN echo FROM x", "WORKDIR /x", "LABEL a=b", "RUN --mount=target=/x true", "CMD true", "USER 1")
}
