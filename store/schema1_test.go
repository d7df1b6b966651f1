package store

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/docker/libtrust"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// sign returns a schema 1 manifest with n signatures, as docker made them.
func sign(payload string, n int) []byte {
	js, err := libtrust.NewJSONSignature([]byte(payload))
	for range n {
		var key libtrust.PrivateKey
		if err == nil {
			key, err = libtrust.GenerateECP256PrivateKey()
		}
		if err == nil {
			err = js.Sign(key)
		}
	}
	var content []byte
	if err == nil {
		content, err = js.PrettySignature("signatures")
	}
	if err != nil {
		panic(err)
	}
	return content
}

const (
	emptyLayer    = "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4"
	schema1Pretty = "{\n   \"schemaVersion\": 1,\n   \"name\": \"library/old\",\n   \"architecture\": \"arm\",\n" +
		"   \"fsLayers\": [\n      {\n         \"blobSum\": \"" + emptyLayer + "\"\n      }\n   ]\n}"
)

func TestSignedPayload(t *testing.T) {
	for name, payload := range map[string]string{
		"pretty":    schema1Pretty,
		"compact":   `{"schemaVersion":1}`,
		"tabs":      "{\n\t\"schemaVersion\": 1\n}",
		"new line":  schema1Pretty + "\n",
		"space":     "{ \"a\" : [ ] \r\n } ",
		"escapes":   `{"a":"},\"signatures\":[","b":"\u007d"}`,
		"not ASCII": `{"a":"Ünïcödé € 漢 }"}`,
	} {
		for n := range 3 {
			content := sign(payload, n+1)
			if got, err := signedPayload(content); err != nil || string(got) != payload {
				t.Errorf("%s, %d signatures: %q, %v", name, n+1, got, err)
			}
			if got, err := signedPayload(append(content, " \n"...)); err != nil || string(got) != payload {
				t.Errorf("%s, white space at the end: %q, %v", name, got, err)
			}
		}
	}
}

// protect is the protected header of a signature.
func protect(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

func TestSignedPayloadRefuses(t *testing.T) {
	const begin = `{"schemaVersion":1`
	header := func(length int, tail string) string {
		return protect(fmt.Sprintf(`{"formatLength":%d,"formatTail":%q}`, length, protect(tail)))
	}
	signed := func(headers ...string) string {
		var all []string
		for _, h := range headers {
			all = append(all, fmt.Sprintf(`{"protected":%q}`, h))
		}
		return begin + `,"signatures":[` + strings.Join(all, ",") + `]}`
	}
	good := header(len(begin), "}")
	if _, err := signedPayload([]byte(signed(good, good))); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"no JSON":                     "hello",
		"nothing":                     "",
		"no object":                   "[1]",
		"no signatures":               begin + "}",
		"empty list of signatures":    signed(),
		"signatures are no list":      begin + `,"signatures":{}}`,
		"a signature is no object":    begin + `,"signatures":[1]}`,
		"no header":                   begin + `,"signatures":[{}]}`,
		"header is no base64":         signed("!"),
		"header with padding":         signed(good + "="),
		"header is no JSON":           signed(protect("hello")),
		"header without length":       signed(protect(`{"formatTail":"fQ"}`)),
		"header with two lengths":     signed(protect(fmt.Sprintf(`{"formatLength":%d,"FormatLength":%d,"formatTail":"fQ"}`, len(begin), len(begin)))),
		"length is no whole number":   signed(protect(`{"formatLength":18.5,"formatTail":"fQ"}`)),
		"length is a string":          signed(protect(`{"formatLength":"18","formatTail":"fQ"}`)),
		"length beyond numbers":       signed(protect(`{"formatLength":99999999999999999999,"formatTail":"fQ"}`)),
		"negative length":             signed(header(-1, "}")),
		"no length":                   signed(header(0, "}")),
		"length too small":            signed(header(len(begin)-1, "}")),
		"length too large":            signed(header(len(begin)+1, "}")),
		"length of all":               signed(header(len(signed(good)), "}")),
		"length beyond the end":       signed(header(1<<40, "}")),
		"tail is no base64":           signed(protect(fmt.Sprintf(`{"formatLength":%d,"formatTail":"}"}`, len(begin)))),
		"no tail":                     signed(header(len(begin), "")),
		"tail of white space":         signed(header(len(begin), "\n")),
		"tail closes twice":           signed(header(len(begin), "}}")),
		"tail with a member":          signed(header(len(begin), `,"a":1}`)),
		"tail with odd space":         signed(header(len(begin), "\u00a0}")),
		"signatures of other lengths": signed(good, header(len(begin)+1, "}")),
		"signatures of other tails":   signed(good, header(len(begin), "\n}")),
		"a member after them":         strings.TrimSuffix(signed(good), "}") + `,"a":1}`,
		"the same twice":              strings.TrimSuffix(signed(good), "}") + `,"signatures":[]}`,
		"the same in capitals":        strings.TrimSuffix(signed(good), "}") + `,"SIGNATURES":[]}`,
		"something behind the end":    signed(good) + "x",
		"in an object within":         `{"schemaVersion":1,"a":` + signed(header(23+len(begin), "}")) + `}`,
	} {
		if got, err := signedPayload([]byte(content)); err == nil {
			t.Errorf("%s: payload %q", name, got)
		}
	}
}

func TestParseSchema1(t *testing.T) {
	layers := `"fsLayers":[{"blobSum":"` + emptyLayer + `"},{"blobSum":"` + emptyLayer + `"}]`
	for _, tt := range []struct{ name, mediaType, text, want string }{
		{"unsigned", MediaTypeSchema1, `{"schemaVersion":1,"architecture":"arm",` + layers + `}`, "linux/arm 2"},
		{"signed", MediaTypeSchema1Signed, string(sign(schema1Pretty, 1)), "linux/arm 1 signed"},
		{"no architecture", MediaTypeSchema1, `{"schemaVersion":1,` + layers + `}`, " 2"},
		{"no layers", MediaTypeSchema1, `{"schemaVersion":1}`, " 0"},
		{"signed, but not", MediaTypeSchema1Signed, schema1Pretty, "no signatures"},
		{"schema 2", MediaTypeSchema1, `{"schemaVersion":2,` + layers + `}`, "schema 2"},
		{"no schema", MediaTypeSchema1, `{` + layers + `}`, "schema 0"},
		{"schema 2 within", MediaTypeSchema1, `{"schemaVersion":1,"config":{},` + layers + `}`, "schema 1 but came"},
		{"an index within", MediaTypeSchema1, `{"schemaVersion":1,"manifests":[{}],` + layers + `}`, "both"},
		{"another media type", MediaTypeSchema1, `{"schemaVersion":1,"mediaType":"a/b"}`, `"a/b"`},
		{"layers twice", MediaTypeSchema1, `{"schemaVersion":1,` + layers + `,"FSLayers":[]}`, "twice"},
		{"a digest that is none", MediaTypeSchema1, `{"schemaVersion":1,"fsLayers":[{"blobSum":"tarsum.v1+sha256:00"}]}`, "bad layer"},
		{"no digest", MediaTypeSchema1, `{"schemaVersion":1,"fsLayers":[{}]}`, "bad layer"},
		{"layers that are none", MediaTypeSchema1, `{"schemaVersion":1,"fsLayers":7}`, "cannot unmarshal"},
	} {
		graph, err := ParseManifest(tt.mediaType, []byte(tt.text))
		got := fmt.Sprintf("%s %d", FormatPlatform(graph.Platform), len(graph.Children))
		if graph.Signed != nil {
			got += " signed"
			if graph.Signed.Digest != digest.FromString(tt.text) || graph.Signed.Size != int64(len(tt.text)) {
				t.Errorf("%s: signed is %+v", tt.name, graph.Signed)
			}
		}
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, tt.want) || err == nil && got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
		for _, child := range graph.Children {
			if child.Size != SizeUnknown || child.Kind != KindLayer || child.Digest != emptyLayer {
				t.Errorf("%s: child %+v", tt.name, child)
			}
		}
	}
	// Elsewhere such a size is none.
	text := `{"schemaVersion":2,"config":{"digest":"` + emptyLayer + `","size":-1}}`
	if _, err := ParseManifest(v1.MediaTypeImageManifest, []byte(text)); err == nil {
		t.Error("a size of -1 in schema 2 was accepted")
	}
}

// What comes out of a signed manifest is what libtrust, which clients and
// registries read it with, takes for its payload.
func FuzzSignedPayload(f *testing.F) {
	f.Add(string(sign(schema1Pretty, 1)))
	f.Add(string(sign(`{"a":1}`, 2)))
	f.Add(schema1Pretty)
	for _, text := range []string{`{"formatLength":-9,"formatTail":"fQ"}`, `{"formatLength":6,"formatTail":"fQ"}`, `{"formatLength":6,"formatTail":"Cn0"}`} {
		f.Add(`{"a":1,"signatures":[{"protected":"` + protect(text) + `"}]}`)
	}
	f.Fuzz(func(t *testing.T, text string) {
		payload, err := signedPayload([]byte(text))
		if err != nil {
			return
		}
		if graph, err := ParseManifest(MediaTypeSchema1Signed, []byte(text)); err == nil {
			unsigned, err := ParseManifest(MediaTypeSchema1, payload)
			if err != nil || len(unsigned.Children) != len(graph.Children) || FormatPlatform(unsigned.Platform) != FormatPlatform(graph.Platform) {
				t.Errorf("signed it says %+v, unsigned %+v, %v", graph, unsigned, err)
			}
		}
		js, err := libtrust.ParsePrettySignature([]byte(text), "signatures")
		if err != nil {
			return // stricter in what this package does not look at
		}
		want, err := js.Payload()
		if err != nil || string(payload) != string(want) {
			t.Errorf("payload %q, libtrust has %q, %v", payload, want, err)
		}
	})
}
