package dockerfile

import (
	"strings"
	"testing"
)

// TestReplace appends a digest to every reference that stands in a file.
func TestReplace(t *testing.T) {
	tests := []struct{ name, file, want, left string }{
		{"from", "FROM debian:12\n", "FROM debian:12@D\n", ""},
		{"as", "from  debian:12  as\tx # no comment\n", "", "error"},
		{"spacing and stage", "FROM   debian:12\tAS x\nRUN echo debian:12\n", "FROM   debian:12@D\tAS x\nRUN echo debian:12\n", ""},
		{"stage of the same name", "FROM debian AS debian\nFROM debian\n", "FROM debian@D AS debian\nFROM debian\n", ""},
		{"platform", "FROM --platform=linux/amd64 debian:12\n", "FROM --platform=linux/amd64 debian:12@D\n", ""},
		{"no newline at the end", "FROM debian:12", "FROM debian:12@D", ""},
		{"crlf", "# c\r\nFROM debian:12\r\nCOPY --from=busybox /a /b\r\n", "# c\r\nFROM debian:12@D\r\nCOPY --from=busybox@D /a /b\r\n", ""},
		{"bom", "\ufeffFROM debian:12\n", "\ufeffFROM debian:12@D\n", ""},
		{"continuation with a comment", "FROM \\\n# debian:12 it is\n  debian:12 \\\n  AS x\n", "FROM \\\n# debian:12 it is\n  debian:12@D \\\n  AS x\n", ""},
		{"mount", "FROM scratch\nRUN --mount=type=bind,from=busybox:1,target=/b busybox:1\n", "FROM scratch\nRUN --mount=type=bind,from=busybox:1@D,target=/b busybox:1\n", ""},
		{"mount at the end", "FROM scratch\nRUN --mount=target=/b,from=busybox:1 true\n", "FROM scratch\nRUN --mount=target=/b,from=busybox:1@D true\n", ""},
		{"prefix of another word", "FROM scratch\nCOPY --from=busybox:1 /busybox:11 /x\n", "FROM scratch\nCOPY --from=busybox:1@D /busybox:11 /x\n", ""},
		{"onbuild", "FROM debian AS a\nONBUILD COPY --from=busybox /x /y\nFROM a\n", "FROM debian@D AS a\nONBUILD COPY --from=busybox@D /x /y\nFROM a\n", ""},
		{"syntax", "# syntax = docker/dockerfile:1\nFROM debian\n", "# syntax = docker/dockerfile:1@D\nFROM debian@D\n", ""},
		{"variable", "ARG V=12\nFROM debian:$V\nCOPY --from=busybox / /\n", "ARG V=12\nFROM debian:$V\nCOPY --from=busybox@D / /\n", "debian:12"},
		{"two mounts", "FROM scratch\nRUN --mount=from=b,target=/a --mount=from=b,target=/c true\n", "FROM scratch\nRUN --mount=from=b@D,target=/a --mount=from=b@D,target=/c true\n", ""},
		{"variable that is the stage's name", "ARG IMG=hello\nFROM ${IMG} AS hello\nFROM hello\n", "ARG IMG=hello\nFROM ${IMG} AS hello\nFROM hello\n", "hello"},
		{"broken variable", "ARG IMG=hello\nFROM $IM\\\nG AS hello\n", "ARG IMG=hello\nFROM $IM\\\nG AS hello\n", "hello"},
		{"broken word", "FROM hel\\\nlo AS hello\n", "FROM hel\\\nlo AS hello\n", "hello"},
		{"the word in a flag", "FROM --platform=$TARGETPLATFORM linux/amd64 AS linux\n", "FROM --platform=$TARGETPLATFORM linux/amd64@D AS linux\n", ""},
		{"quoted", "FROM \"debian:12\" AS x\n", "FROM \"debian:12@D\" AS x\n", ""},
		{"mount and its command", "FROM scratch\nRUN --mount=from=tool:1,target=/b echo from=tool:1 --mount=from=tool:1\n", "FROM scratch\nRUN --mount=from=tool:1@D,target=/b echo from=tool:1 --mount=from=tool:1\n", ""},
		{"mount and its script", "FROM scratch\nRUN --mount=from=tool:1,target=/b <<EOF\necho ,from=tool:1\n--mount=from=tool:1\nEOF\n", "FROM scratch\nRUN --mount=from=tool:1@D,target=/b <<EOF\necho ,from=tool:1\n--mount=from=tool:1\nEOF\n", ""},
		{"mount of a path", "FROM scratch\nRUN --mount=from=b,target=/from=b,source=from=b true\n", "FROM scratch\nRUN --mount=from=b@D,target=/from=b,source=from=b true\n", ""},
		{"mount over lines", "FROM scratch\nRUN \\\n # from=b\n --mount=from=b,\\\ntarget=/x \\\n --mount=target=/y,FROM=b true from=b\n", "FROM scratch\nRUN \\\n # from=b\n --mount=from=b@D,\\\ntarget=/x \\\n --mount=target=/y,FROM=b@D true from=b\n", ""},
		{"quoted mount", "FROM scratch\nRUN --mount=\"from=b\" true\n", "FROM scratch\nRUN --mount=\"from=b@D\" true\n", ""},
		{"copy and its paths", "FROM scratch\nCOPY --from=b --chown=from=b from=b --from=b /\n", "FROM scratch\nCOPY --from=b@D --chown=from=b from=b --from=b /\n", ""},
		{"backtick", "# escape=`\nFROM `\n  debian:12 `\n  AS debian:12\n", "", "error"},
		{"backtick continues", "# escape=`\nFROM `\n  debian:12 `\n  AS debian\n", "# escape=`\nFROM `\n  debian:12@D `\n  AS debian\n", ""},
		{"twice", "FROM debian\nCOPY --from=busybox / /\nCOPY --from=busybox / /x\n", "FROM debian@D\nCOPY --from=busybox@D / /\nCOPY --from=busybox@D / /x\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			found, err := Find([]byte(tt.file), Options{})
			if err != nil {
				if tt.left != "error" {
					t.Fatal(err)
				}
				return
			}
			var all []Replacement
			for _, img := range found.Images {
				all = append(all, Replacement{img, img.Reference + "@D"})
			}
			got, left, err := Replace([]byte(tt.file), all)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
			var names []string
			for _, r := range left {
				names = append(names, r.Image.Reference)
			}
			if s := strings.Join(names, " "); s != tt.left {
				t.Errorf("left %q, want %q", s, tt.left)
			}
		})
	}
}
