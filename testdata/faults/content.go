package faults

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Repository is the path of the only repository.
const Repository = "team/app"

// content is a manifest or a blob.
type content struct {
	name      string // that the table has for it
	mediaType string // "" for a blob
	bytes     []byte
	v1.Descriptor
}

// repository is what an upstream has.
type repository struct {
	all  []*content // in an order in which a registry takes them: what is listed first
	byID map[string]*content
	tags map[string]*content
}

func (r *repository) add(c *content, tags ...string) v1.Descriptor {
	c.Descriptor = v1.Descriptor{MediaType: c.mediaType, Digest: digest.FromBytes(c.bytes), Size: int64(len(c.bytes))}
	if c.mediaType == "" {
		c.Descriptor.MediaType = v1.MediaTypeImageLayer
	}
	if r.byID == nil {
		r.byID, r.tags = map[string]*content{}, map[string]*content{}
	}
	r.all = append(r.all, c)
	r.byID[c.Digest.String()] = c
	for _, tag := range tags {
		r.tags[tag] = c
	}
	return c.Descriptor
}

func (r *repository) blob(name string, data []byte) v1.Descriptor {
	return r.add(&content{name: name, bytes: data})
}

// layer adds n bytes that depend on the name alone.
func (r *repository) layer(name string, n int) v1.Descriptor {
	data := make([]byte, n)
	seed := int64(0)
	for _, c := range name {
		seed = seed*31 + int64(c)
	}
	rand.New(rand.NewSource(seed)).Read(data)
	return r.blob(name, data)
}

func (r *repository) config(name, architecture string) v1.Descriptor {
	d := r.blob(name, fmt.Appendf(nil, `{"os":"linux","architecture":%q}`, architecture))
	d.MediaType = v1.MediaTypeImageConfig
	return d
}

func (r *repository) manifest(name string, config v1.Descriptor, layers []v1.Descriptor, tags ...string) v1.Descriptor {
	return r.encode(name, v1.MediaTypeImageManifest, v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, Config: config, Layers: layers,
	}, tags...)
}

func (r *repository) index(name string, manifests []v1.Descriptor, tags ...string) v1.Descriptor {
	return r.encode(name, v1.MediaTypeImageIndex, v1.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: manifests,
	}, tags...)
}

func (r *repository) encode(name, mediaType string, v any, tags ...string) v1.Descriptor {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // a type of the specification
	}
	return r.add(&content{name: name, mediaType: mediaType, bytes: data}, tags...)
}

// text adds a manifest as it is written.
func (r *repository) text(name, mediaType, format string, args ...any) v1.Descriptor {
	return r.add(&content{name: name, mediaType: mediaType, bytes: fmt.Appendf(nil, format, args...)}, name)
}

func on(d v1.Descriptor, architecture string) v1.Descriptor {
	d.Platform = &v1.Platform{OS: "linux", Architecture: architecture}
	return d
}

// layerSize is that of the layer that most faults hit.
const layerSize = 200_000

// newRepository makes the content. The image base is in the store before
// anything breaks: nothing may happen to it. The image new differs from it in
// one layer, so that it is known what of it comes in which order: index, amd64,
// layer. Each other tag is an image that is odd by itself.
func newRepository() *repository {
	r := &repository{}
	config := r.config("config", "amd64")
	shared := r.layer("shared", 5000)
	arm := on(r.manifest("arm64", r.config("config-arm64", "arm64"), []v1.Descriptor{r.layer("layer-arm64", 5000)}), "arm64")
	old := on(r.manifest("old", config, []v1.Descriptor{shared}), "amd64")
	r.index("old-index", []v1.Descriptor{old, arm}, "base")
	layer := r.layer("layer", layerSize)
	r.index("index", []v1.Descriptor{on(r.manifest("amd64", config, []v1.Descriptor{shared, layer}), "amd64"), arm}, "new")

	var layers []v1.Descriptor
	for i := range 8 {
		layers = append(layers, r.layer(fmt.Sprint("part", i), 2000+i))
	}
	r.manifest("many", config, layers, "many")
	r.manifest("zero", config, []v1.Descriptor{r.blob("nothing", nil)}, "zero")
	return r
}

// newOddRepository makes images that registries refuse, but can be made to send.
func newOddRepository() *repository {
	r := &repository{}
	config := r.config("config", "amd64")
	shared := r.layer("shared", 5000)
	listed, err := json.Marshal([]v1.Descriptor{config, shared})
	if err != nil {
		panic(err) // a type of the specification
	}
	of := strings.Trim(string(listed), "[]") // config, layer
	configJSON, layerJSON, _ := strings.Cut(of, "},{")
	configJSON, layerJSON = configJSON+"}", "{"+layerJSON
	const image, index = v1.MediaTypeImageManifest, v1.MediaTypeImageIndex
	r.text("keys-unsorted", image, "{\n\t\"layers\":[%s],\n \"unknown\": {\"z\":1,\"a\":2},\r\n\"config\":%s, \"schemaVersion\":2 }\n", layerJSON, configJSON)
	r.text("keys-twice", image, `{"schemaVersion":2,"config":%s,"layers":[],"layers":[%s]}`, configJSON, layerJSON)
	r.text("keys-twice-in-case", image, `{"schemaVersion":2,"config":%s,"layers":[],"Layers":[%s]}`, configJSON, layerJSON)
	r.text("both", index, `{"schemaVersion":2,"mediaType":%q,"manifests":[%s],"config":%[3]s,"layers":[]}`, index, layerJSON, configJSON)
	r.text("other-type-within", image, `{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[]}`, index, configJSON)
	r.text("no-json", image, "hello, world")
	r.text("cut-json", image, `{"schemaVersion":2,"config":%s,"layers":[`, configJSON)
	r.text("array", image, `["manifest"]`)
	r.text("null", image, `null`)
	r.text("empty", image, ``)
	r.text("no-config", image, `{"schemaVersion":2,"layers":[%s]}`, layerJSON)
	r.text("layers-no-list", image, `{"schemaVersion":2,"config":%s,"layers":"none"}`, configJSON)
	r.text("nested-json", image, `{"schemaVersion":2,"config":%s,"layers":[],"x":%s%s}`, configJSON, strings.Repeat("[", 20_000), strings.Repeat("]", 20_000))
	sized := func(name, size string) {
		r.text(name, image, `{"schemaVersion":2,"config":%s,"layers":[{"mediaType":%q,"digest":%q,"size":%s}]}`, configJSON, v1.MediaTypeImageLayer, shared.Digest, size)
	}
	sized("size-negative", "-1")
	sized("size-huge", "4611686018427387904")
	sized("size-beyond", "99999999999999999999")
	sized("size-fraction", "5000.5")
	sized("size-text", `"5000"`)
	sized("size-missing", "0")
	r.text("digest-none", image, `{"schemaVersion":2,"config":%s,"layers":[{"mediaType":%q,"digest":"../../etc/passwd","size":1}]}`, configJSON, v1.MediaTypeImageLayer)
	r.text("digest-short", image, `{"schemaVersion":2,"config":%s,"layers":[{"mediaType":%q,"digest":"sha256:00","size":1}]}`, configJSON, v1.MediaTypeImageLayer)
	r.text("digest-md5", image, `{"schemaVersion":2,"config":%s,"layers":[{"mediaType":%q,"digest":"md5:d41d8cd98f00b204e9800998ecf8427e","size":1}]}`, configJSON, v1.MediaTypeImageLayer)
	r.text("schema1", "application/vnd.docker.distribution.manifest.v1+prettyjws", `{"schemaVersion":1,"name":"team/app","tag":"x","fsLayers":[],"history":[]}`)

	padded := func(name string, size int) {
		text := fmt.Sprintf(`{"schemaVersion":2,"config":%s,"layers":[%s]}`, configJSON, layerJSON)
		r.text(name, image, "%s", text+strings.Repeat(" ", size-len(text)))
	}
	padded("4MiB", 4<<20)
	padded("4MiB-and-1", 4<<20+1)

	deep := r.manifest("bottom", config, []v1.Descriptor{shared})
	for i := range 10_000 {
		var tags []string
		if i == 9_999 {
			tags = []string{"deep"}
		}
		deep = r.index(fmt.Sprint("level", i), []v1.Descriptor{deep}, tags...)
	}
	// No index has its own digest in it; one can be sent for what it lists.
	self := digest.FromString("itself")
	r.text("self", index, `{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%[1]q,"digest":%q,"size":%d}]}`, index, self, 233)
	r.byID[self.String()] = r.tags["self"]

	wide := make([]v1.Descriptor, 10_001)
	for i := range wide {
		wide[i] = v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: digest.FromString(fmt.Sprint(i)), Size: 1}
	}
	r.manifest("wide", config, wide, "wide")
	r.index("repeated", []v1.Descriptor{r.byName("bottom"), r.byName("bottom"), r.byName("bottom")}, "repeated")
	return r
}

func (r *repository) byName(name string) v1.Descriptor {
	for _, c := range r.all {
		if c.name == name {
			return c.Descriptor
		}
	}
	panic("no content " + name)
}

// find returns what a reference means.
func (r *repository) find(kind, reference string) *content {
	c := r.byID[reference]
	if kind == "manifests" && r.tags[reference] != nil {
		c = r.tags[reference]
	}
	if c == nil || (kind == "manifests") != (c.mediaType != "") {
		return nil
	}
	return c
}

// ServeHTTP answers as a registry with the referrers API and nothing to refer.
func (r *repository) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	kind, reference := split(q.URL.Path)
	c := r.find(kind, reference)
	switch {
	case q.URL.Path == "/v2/":
	case kind == "referrers":
		w.Header().Set("Content-Type", v1.MediaTypeImageIndex)
		_, _ = fmt.Fprintf(w, `{"schemaVersion":2,"mediaType":%q,"manifests":[]}`, v1.MediaTypeImageIndex)
	case c == nil:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`))
	default:
		w.Header().Set("Content-Type", "application/octet-stream")
		if c.mediaType != "" {
			w.Header().Set("Content-Type", c.mediaType)
		}
		w.Header().Set("Docker-Content-Digest", c.Digest.String())
		if len(c.bytes) == 0 { // of which ServeContent says nothing
			w.Header().Set("Content-Length", "0")
		}
		http.ServeContent(w, q, "", time.Time{}, bytes.NewReader(c.bytes))
	}
}

// split returns what kind of content a path of the registry API is of, and which.
func split(path string) (kind, reference string) {
	rest, ok := strings.CutPrefix(path, "/v2/"+Repository+"/")
	if !ok {
		return "", ""
	}
	kind, reference, _ = strings.Cut(rest, "/")
	return kind, reference
}
