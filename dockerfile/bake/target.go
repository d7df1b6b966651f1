package bake

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"mirrorctl/dockerfile"
)

// config is what the files say.
type config struct {
	blocks
	renamed map[string][]string // a block with a matrix: the targets it makes
	files   []File
}

// blocks is what the parser fills in. It takes no other fields.
type blocks struct {
	Groups  []*group  `hcl:"group,block" cty:"group"`
	Targets []*target `hcl:"target,block" cty:"target"`
}

type group struct {
	Name    string   `hcl:"name,label" cty:"name"`
	Targets []string `hcl:"targets,optional" cty:"targets"`

	Rest hcl.Body `hcl:",remain"`
}

// Merge is how the parser joins blocks of one name.
func (g *group) Merge(other *group) { g.Targets = append(g.Targets, other.Targets...) }

// A target has the attributes that decide about images, and some that people
// refer to in these. The others are not evaluated.
type target struct {
	Name             string             `hcl:"name,label" cty:"name"`
	Inherits         []string           `hcl:"inherits,optional" cty:"inherits"`
	Context          *string            `hcl:"context,optional" cty:"context"`
	Contexts         map[string]string  `hcl:"contexts,optional" cty:"contexts"`
	Dockerfile       *string            `hcl:"dockerfile,optional" cty:"dockerfile"`
	DockerfileInline *string            `hcl:"dockerfile-inline,optional" cty:"dockerfile-inline"`
	Args             map[string]*string `hcl:"args,optional" cty:"args"`
	Labels           map[string]*string `hcl:"labels,optional" cty:"labels"`
	Tags             []string           `hcl:"tags,optional" cty:"tags"`
	Target           *string            `hcl:"target,optional" cty:"target"`
	Platforms        []string           `hcl:"platforms,optional" cty:"platforms"`

	Rest hcl.Body `hcl:",remain"`

	// Where the block is, and where the Dockerfile in it begins.
	file       string
	line       int
	inlineLine int
}

// SetBlockSource is how the parser tells where a target is.
func (t *target) SetBlockSource(block *hcl.Block) {
	t.file, t.line = block.DefRange.Filename, block.DefRange.Start.Line
	content, _, _ := block.Body.PartialContent(&hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: "dockerfile-inline"}}})
	if content == nil || t.DockerfileInline == nil || content.Attributes["dockerfile-inline"] == nil {
		return
	}
	// In a heredoc the lines are those of the file, and begin below its sign.
	r := content.Attributes["dockerfile-inline"].Expr.Range()
	if n := strings.Count(*t.DockerfileInline, "\n"); n > 0 && r.End.Line-r.Start.Line == n+1 {
		t.inlineLine = r.Start.Line + 1
	}
}

// Merge lets what other says go before what t says: with two blocks of one
// name, and with what a target inherits.
func (t *target) Merge(other *target) {
	t.Inherits = append(t.Inherits, other.Inherits...)
	set := func(to **string, from *string) {
		if from != nil {
			*to = from
		}
	}
	set(&t.Context, other.Context)
	set(&t.Dockerfile, other.Dockerfile)
	set(&t.Target, other.Target)
	if other.DockerfileInline != nil {
		t.DockerfileInline, t.inlineLine = other.DockerfileInline, other.inlineLine
	}
	for k, v := range other.Args {
		if v == nil {
			continue
		}
		if t.Args == nil {
			t.Args = map[string]*string{}
		}
		t.Args[k] = v
	}
	for k, v := range other.Contexts {
		if t.Contexts == nil {
			t.Contexts = map[string]string{}
		}
		t.Contexts[k] = v
	}
	if other.Platforms != nil {
		t.Platforms = other.Platforms
	}
	if other.file != "" {
		t.file, t.line = other.file, other.line
	}
}

func (t *target) errorf(format string, args ...any) error {
	return fmt.Errorf("%s:%d: target %s: %w", t.file, t.line, t.Name, fmt.Errorf(format, args...))
}

// GetEvalContexts is how the parser learns of a matrix: the target is there
// once for each combination of its values, with variables that have them.
func (t *target) GetEvalContexts(ectx *hcl.EvalContext, block *hcl.Block, loadDeps func(hcl.Expression) hcl.Diagnostics) ([]*hcl.EvalContext, error) {
	attr, err := attribute(block, "matrix")
	if attr == nil || err != nil {
		return []*hcl.EvalContext{ectx}, err
	}
	if diags := loadDeps(attr.Expr); diags.HasErrors() {
		return nil, diags
	}
	value, diags := attr.Expr.Value(ectx)
	if diags.HasErrors() {
		return nil, diags
	}
	if !value.IsWhollyKnown() || value.IsNull() || !value.Type().IsMapType() && !value.Type().IsObjectType() {
		return nil, fmt.Errorf("matrix must be a map of lists")
	}
	combinations := []map[string]cty.Value{{}}
	lists := value.AsValueMap()
	for _, name := range slices.Sorted(maps.Keys(lists)) {
		list := lists[name]
		if list.IsNull() || !list.CanIterateElements() {
			return nil, fmt.Errorf("matrix: %s must be a list", name)
		}
		var more []map[string]cty.Value
		for _, v := range list.AsValueSlice() {
			for _, c := range combinations {
				with := maps.Clone(c)
				with[name] = v
				more = append(more, with)
			}
		}
		if combinations = more; len(combinations) > maxMatrix {
			return nil, fmt.Errorf("matrix: more than %d targets", maxMatrix)
		}
	}
	var all []*hcl.EvalContext
	for _, c := range combinations {
		child := ectx.NewChild()
		child.Variables = c
		all = append(all, child)
	}
	return all, nil
}

// maxMatrix bounds the targets that one block may make.
const maxMatrix = 10000

// GetName is how the parser learns the name of a target in a matrix.
func (t *target) GetName(ectx *hcl.EvalContext, block *hcl.Block, loadDeps func(hcl.Expression) hcl.Diagnostics) (string, error) {
	attr, err := attribute(block, "name")
	if attr == nil || err != nil {
		return block.Labels[0], err
	}
	if matrix, err := attribute(block, "matrix"); matrix == nil || err != nil {
		return "", fmt.Errorf("name requires matrix")
	}
	if diags := loadDeps(attr.Expr); diags.HasErrors() {
		return "", diags
	}
	value, diags := attr.Expr.Value(ectx)
	if diags.HasErrors() {
		return "", diags
	}
	value, err = convert.Convert(value, cty.String)
	if err != nil || value.IsNull() || !value.IsKnown() {
		return "", fmt.Errorf("name must be a string")
	}
	return value.AsString(), nil
}

func attribute(block *hcl.Block, name string) (*hcl.Attribute, error) {
	content, _, diags := block.Body.PartialContent(&hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: name}}})
	if diags.HasErrors() {
		return nil, diags
	}
	return content.Attributes[name], nil
}

func (c *config) target(name string) *target {
	i := slices.IndexFunc(c.Targets, func(t *target) bool { return t.Name == name })
	if i < 0 {
		return nil
	}
	return c.Targets[i]
}

// addServices makes targets of the services of Compose files, for those in the
// Bake files to inherit from; and what a service says goes before a target that
// has its name. buildx allows no dot in a name.
func (c *config) addServices(services []dockerfile.Build, folder string) {
	for _, b := range services {
		context, file := b.Context, b.Dockerfile
		if rel, err := filepath.Rel(context, file); err == nil && b.Remote == "" && file != "" {
			file = rel
		}
		if rel, err := filepath.Rel(folder, context); err == nil && b.Remote == "" {
			context = rel
		}
		s := &target{
			Name:     strings.ReplaceAll(b.Name, ".", "_"),
			Context:  &context,
			Contexts: map[string]string{},
			Args:     map[string]*string{},
		}
		if file != "" {
			s.Dockerfile = &file
		}
		if len(b.Text) > 0 {
			text := string(b.Text)
			s.DockerfileInline = &text
		}
		if b.Options.Target != "" {
			s.Target = &b.Options.Target
		}
		for k, v := range b.Options.Contexts {
			if name, ok := strings.CutPrefix(v, "service:"); ok {
				v = "target:" + name
			}
			s.Contexts[k] = v
		}
		for k, v := range b.Options.BuildArgs {
			if b.Unknown[k] == "" {
				s.Args[k] = &v
			}
		}
		for _, p := range b.Options.Platforms {
			s.Platforms = append(s.Platforms, platforms.FormatAll(p))
		}
		if t := c.target(s.Name); t != nil {
			s.Merge(t)
			*t = *s
		} else {
			c.Targets = append(c.Targets, s)
		}
	}
}

// wanted returns the targets that a person can build; see Load.
func (c *config) wanted() []*target {
	template, listed := map[string]bool{}, map[string]bool{"default": true}
	for _, t := range c.Targets {
		for _, name := range t.Inherits {
			template[name] = true
		}
		if strings.HasPrefix(t.Name, "_") {
			template[t.Name] = true
		}
		for _, v := range t.Contexts {
			if name, ok := strings.CutPrefix(v, "target:"); ok {
				listed[name] = true
			}
		}
	}
	for _, g := range c.Groups {
		for _, name := range g.Targets {
			listed[name] = true
			for _, made := range c.renamed[name] {
				listed[made] = true
			}
		}
	}
	var all []*target
	for _, t := range c.Targets {
		if listed[t.Name] || !template[t.Name] {
			all = append(all, t)
		}
	}
	return all
}

// resolve returns a target together with what it inherits, in order. What
// inherits from itself gets nothing from that, as in buildx. done has the targets
// resolved so far, and nil for those on the way.
func (c *config) resolve(t *target, done map[*target]*target) (*target, error) {
	done[t] = nil
	whole := &target{Name: t.Name}
	for _, name := range t.Inherits {
		base := c.target(name)
		if base == nil {
			return nil, t.errorf("it inherits from %q, which is no target in %s, nor a service of a Compose file that is read with it", name, c.names())
		}
		resolved, seen := done[base]
		if !seen {
			var err error
			if resolved, err = c.resolve(base, done); err != nil {
				return nil, err
			}
		}
		if resolved != nil {
			whole.Merge(resolved)
			whole.Inherits = nil // all of it is in whole, and each could double it
		}
	}
	whole.Merge(t)
	whole.Inherits = nil
	done[t] = whole
	return whole, nil
}

func (c *config) names() string {
	var names []string
	for _, f := range c.files {
		names = append(names, f.Name)
	}
	return strings.Join(names, " or ")
}
