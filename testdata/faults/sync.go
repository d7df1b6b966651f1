package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// begin makes the folder of a run with a store that has the image base.
func (r *run) begin(base string) error {
	if err := os.RemoveAll(r.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		return err
	}
	if err := os.CopyFS(filepath.Join(r.dir, "store"), os.DirFS(filepath.Join(base, "store"))); err != nil {
		return err
	}
	if r.Have > 0 {
		layer := r.content("layer")
		return os.WriteFile(r.partial(layer), layer.bytes[:r.Have], 0o644)
	}
	return nil
}

func (r *run) partial(c *content) string {
	return filepath.Join(r.dir, "store", "ingest", "sha256-"+c.Digest.Encoded())
}

func (r *run) whole(c *content) string {
	return filepath.Join(r.dir, "store", "blobs", "sha256", c.Digest.Encoded())
}

func (r *run) content(name string) *content {
	for _, repository := range []*repository{r.good, r.odd} {
		for _, c := range repository.all {
			if c.name == name {
				return c
			}
		}
	}
	panic("no content " + name)
}

// image is the tag of the run's image.
func (r *run) image() string {
	if r.Image == "" {
		return "new"
	}
	return r.Image
}

// healed is the tag whose content the image has when the fault has gone: what is
// odd by itself has been pushed anew.
func (r *run) healed() string {
	if r.good.tags[r.image()] == nil && r.Code != 0 {
		return "new"
	}
	return r.image()
}

// reach lists what an image is made of, each once, manifests first.
func (r *run) reach(tag string) []*content {
	root := r.good.tags[tag]
	if root == nil {
		root = r.odd.tags[tag]
	}
	var all []*content
	queue := []*content{root}
	for len(queue) > 0 {
		c := queue[0]
		queue = queue[1:]
		if c == nil || slices.Contains(all, c) {
			continue
		}
		all = append(all, c)
		var doc struct {
			Manifests, Layers []v1.Descriptor
			Config            v1.Descriptor
		}
		if c.mediaType == "" || json.Unmarshal(c.bytes, &doc) != nil {
			continue
		}
		for _, d := range append(append(doc.Manifests, doc.Config), doc.Layers...) {
			one := r.good.byID[d.Digest.String()]
			if one == nil {
				one = r.odd.byID[d.Digest.String()]
			}
			queue = append(queue, one)
		}
	}
	return all
}

// sync runs the case as a sync, looks at what it has left, and runs it again
// when the fault has gone.
func (r *run) sync(ctx context.Context, base string) {
	if err := r.begin(base); err != nil {
		r.wrong(other, "%v", err)
		return
	}
	r.proxy = r.newProxy()
	defer r.proxy.close()
	r.configure(r.Registry, r.Impatient)
	r.proxy.breaks(r.Fault, r.On)
	code, text := r.syncImage(ctx, r.image())
	asked := r.proxy.forget()
	r.checkMessage(code, text)
	r.checkStore(ctx, code == 0, r.image())
	r.checkLeft(asked)

	r.configure(nil, false)
	wanted, size := r.missing()
	if r.healed() != r.image() {
		r.proxy.retag(r.image(), r.healed())
	}
	code, text = r.syncImage(ctx, r.image())
	asked = r.proxy.forget()
	if code != 0 {
		r.wrong(lost, "the next run ends with %d: %s", code, text)
		return
	}
	r.checkTransfer(asked, wanted, size)
	r.checkStore(ctx, true, r.healed())
}

// noise is what no message for people should have in it.
var noise = regexp.MustCompile(`(?i)unexpected EOF|\bEOF\b|invalid character|json:|net/http|context deadline|context canceled|goroutine|%!|<nil>|struct|Go value|unmarshal|x509:|tls:|http2|dial tcp|read tcp|write tcp|parse "`)

// checkMessage looks at what sync has said.
func (r *run) checkMessage(code int, text string) {
	if code != r.Code {
		r.wrong(message, "exit code %d, want %d", code, r.Code)
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	prefix := "mirrorctl: " + name(r.image()) + ": "
	var said []string
	for _, line := range lines {
		switch rest, ok := strings.CutPrefix(line, prefix); {
		case strings.HasPrefix(line, "mirrorctl: 1 image: "), ok && strings.HasPrefix(rest, "fetching sha256:"):
		case ok && r.Code == 0 && strings.HasPrefix(rest, "pinned sha256:"):
		case ok:
			said = append(said, rest)
		case r.Warns != "" && strings.Contains(line, " level=WARN ") && strings.Contains(line, r.Warns):
		default:
			r.wrong(message, "unasked for: %s", line)
		}
	}
	r.said = r.symbolic(strings.Join(said, "\n"))
	if r.Says != "" && strings.Count(text, " (Dockerfile:1); ") != 1 {
		r.wrong(message, "it does not say who needs the image, or what to do: %s", text)
	}
	r.said = strings.Replace(r.said, " (Dockerfile:1)", "", 1)
	if !matches(r.Says, r.said) {
		r.wrong(message, "it says\n\t%s\nwant\n\t%s", r.said, r.Says)
	}
	if found := noise.FindString(r.said); found != "" {
		r.wrong(message, "%q is no message for people: %s", found, r.said)
	}
	if len(r.said) > 300 {
		r.wrong(message, "%d bytes are too much to read", len(r.said))
	}
}

// symbolic has the names of the table in the place of digests and addresses.
func (r *run) symbolic(text string) string {
	for _, repository := range []*repository{r.good, r.odd} {
		for id, c := range repository.byID {
			if strings.Contains(text, id) {
				text = strings.ReplaceAll(text, id, "$"+c.name)
			}
		}
	}
	return strings.ReplaceAll(text, r.proxy.address(), "$PROXY")
}

// matches compares with a text in which "..." is anything.
func matches(want, got string) bool {
	parts := strings.Split(want, "...")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile("^" + strings.Join(parts, "(?s:.*)") + "$").MatchString(got)
}

// checkStore looks whether the store is whole, and has the image or nothing of it
// that can be seen.
func (r *run) checkStore(ctx context.Context, pinned bool, content string) {
	code, _, text := r.call(ctx, "verify")
	if code != 0 || !strings.HasSuffix(strings.TrimSpace(text), " 0 damaged") {
		r.wrong(corrupt, "verify ends with %d: %s", code, text)
	}
	_, list, text := r.call(ctx, "ls", "--json")
	var got, want []string
	for _, line := range strings.Split(strings.TrimSpace(list), "\n") {
		var pin struct {
			Name, Digest string
			Arriving     any
		}
		if err := json.Unmarshal([]byte(line), &pin); err != nil {
			r.wrong(other, "ls: %v: %s%s", err, list, text)
		}
		if pin.Arriving == nil {
			got = append(got, pin.Name+" "+pin.Digest)
		}
	}
	want = append(want, name("base")+" "+r.good.tags["base"].Digest.String())
	if pinned {
		want = append(want, name(r.image())+" "+r.reach(content)[0].Digest.String())
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		r.wrong(lost, "ls has %q, want %q", got, want)
	}
	if lock, _ := os.ReadFile(filepath.Join(r.dir, "mirror.lock")); strings.Contains(string(lock), name(r.image())) != pinned {
		r.wrong(other, "mirror.lock has\n%s", lock)
	}
	whole := r.reach("base")
	if pinned {
		whole = append(whole, r.reach(content)...)
	}
	for _, c := range whole {
		if data, err := os.ReadFile(r.whole(c)); err != nil || !bytes.Equal(data, c.bytes) {
			r.wrong(lost, "%s is not in the store as it is upstream: %v", c.name, err)
		}
	}
	files, _ := filepath.Glob(filepath.Join(r.dir, "store", "blobs", "*", "*"))
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil || digest.FromBytes(data).Encoded() != filepath.Base(file) {
			r.wrong(corrupt, "%s: %v", file, err)
		}
	}
}

// checkLeft compares what is in the store with the table.
func (r *run) checkLeft(asked []request) {
	if r.Left == "*" || r.Code == 0 {
		return
	}
	base := r.reach("base")
	var left []string
	for _, c := range r.reach(r.image()) {
		if _, err := os.Stat(r.whole(c)); err == nil {
			if !slices.Contains(base, c) {
				left = append(left, c.name)
			}
		} else if info, err := os.Stat(r.partial(c)); err == nil && info.Size() > 0 {
			left = append(left, fmt.Sprintf("%s:%d", c.name, info.Size()))
		}
	}
	if got := strings.Join(left, " "); !matches(r.Left, got) {
		r.wrong(other, "left in the store: %q, want %q; requests: %v", got, r.Left, asked)
	}
}

// missing is what the next run has to ask for, and of how many bytes.
func (r *run) missing() (requests []string, bytes int64) {
	for _, c := range r.reach(r.healed()) {
		if _, err := os.Stat(r.whole(c)); err == nil || c.Size == 0 {
			continue
		}
		missing := request{what: c.name}
		if info, err := os.Stat(r.partial(c)); err == nil {
			missing.from = info.Size()
		}
		if missing.from < c.Size {
			requests = append(requests, missing.String())
			bytes += c.Size - missing.from
		}
	}
	slices.Sort(requests)
	return requests, bytes
}

// checkTransfer compares requests with what was missing, as far as it is content.
func (r *run) checkTransfer(asked []request, want []string, wantBytes int64) {
	var got []string
	var sum int64
	for _, q := range asked {
		switch q.what {
		case "resolve", "lookup", "referrers":
			continue
		}
		got = append(got, q.String())
		sum += q.bytes
	}
	slices.Sort(got)
	if !slices.Equal(got, want) || sum != wantBytes {
		r.wrong(other, "the next run asked for %q, %d bytes; missing were %q, %d bytes", got, sum, want, wantBytes)
	}
	r.next = fmt.Sprintf("%d requests for %d bytes, %d others", len(got), sum, len(asked)-len(got))
	if r.Code == 0 && len(asked) > 0 {
		r.wrong(other, "all is locked and stored, and it asked for %v", asked)
	}
}
