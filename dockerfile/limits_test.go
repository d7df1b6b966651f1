package dockerfile_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"mirrorctl/dockerfile"
)

// TestHostile gives Find what would overflow the stack, fill the memory or take
// hours, were nothing done about it. want is a part of the error, or empty for
// a file that is odd but fine.
func TestHostile(t *testing.T) {
	if testing.Short() {
		t.Skip("large inputs")
	}
	rep := strings.Repeat
	const mb = 1 << 20 / slower
	const many = mb / fewer // of what stays below the bounds, and takes its time
	tests := []struct {
		name string
		file func() string
		want string
	}{
		{"million lines of comment", func() string { return rep("# a\n", mb-1) + "FROM a" }, ""},
		{"million blank lines", func() string { return rep("\n", mb-1) + "FROM a" }, ""},
		{"million continuations", func() string { return "FROM a\nRUN a" + rep(" \\\na", many-2) }, ""},
		{"million lines of heredoc", func() string { return "FROM a\nRUN <<E\n" + rep("a\n", mb-3) + "E" }, ""},
		{"million instructions", func() string { return "FROM a\n" + rep("RUN a\n", many-1) }, ""},
		{"million stages", func() string { return rep("FROM a\n", many) }, ""},
		{"million stages in a chain", func() string {
			var b strings.Builder
			b.WriteString("FROM a AS s0\n")
			for i := range many / 2 {
				fmt.Fprintf(&b, "FROM s%x AS s%x\n", i, i+1)
			}
			return b.String()
		}, ""},
		{"chain of copies", func() string {
			var b strings.Builder
			b.WriteString("FROM a AS s0\n")
			for i := range many / 4 {
				fmt.Fprintf(&b, "FROM b AS s%x\nCOPY --from=s%x a a\n", i+1, i)
			}
			return b.String()
		}, ""},
		{"cycle of copies", func() string {
			var b strings.Builder
			for i := range many / 4 {
				fmt.Fprintf(&b, "FROM b AS s%x\nCOPY --from=s%x a a\n", i, (i+1)%(many/4))
			}
			return b.String()
		}, "needs itself"},
		{"all copy from all", func() string {
			var b strings.Builder
			for i := range 1000 / min(slower, 8) {
				fmt.Fprintf(&b, "FROM b AS s%x\n", i)
				for j := range i {
					fmt.Fprintf(&b, "COPY --from=s%x a a\n", j)
				}
			}
			return b.String()
		}, ""},
		{"triggers times stages", func() string {
			return "FROM a AS s\n" + rep("ONBUILD COPY --from=b a a\n", 10000/fewer) + rep("FROM s\n", 100000/fewer)
		}, ""},
		{"too many lines", func() string { return rep("\n", 1<<20) + "FROM a" }, "more than 1048576 lines"},
		{"too many bytes", func() string { return rep("# aaaaaaaaaaaaaaa\n", 1<<20) + "FROM a" }, "bytes"},
		{"long line", func() string { return "FROM a\nRUN " + rep("a", 64<<10) }, "line 2: a line may not be longer"},
		{"longest line", func() string { return "FROM a\nRUN " + rep("a", 64<<10-5) + "\n" }, ""},
		{"longest line at the end", func() string { return "FROM a\nRUN " + rep("a", 64<<10-5) }, ""},
		{"long name", func() string { return "FROM " + rep("a", 60000) }, "not an image name"},
		{"long name in pieces", func() string { return "FROM " + rep("aaaaaaa\\\n", many) }, "not an image name"},
		{"long instruction", func() string { return "FROM a\n" + rep("aaaaaaa\\\n", many-2) }, "unknown instruction"},
		{"nested onbuild", func() string { return "FROM a\n" + rep("ONBUILD \\\n", mb-2) + "RUN a" }, "line 2: too many nested"},
		{"nested onbuild in pieces", func() string { return "FROM a\n" + rep("ONB\\\n# a\n\nUILD \\\n", mb/5) }, "line 2: too many nested"},
		{"nested onbuild by other letters", func() string { return "FROM a\n" + rep("onbu\u0130ld \\\n", mb-2) }, "line 2: too many nested"},
		{"nested onbuild in a line", func() string { return "FROM a\n" + rep("ONBUILD ", 8000) }, "isn't allowed"},
		{"nested braces", func() string { return "FROM " + rep("${a:-\\\n", mb) }, "line 1: too many nested"},
		{"nested braces by backquote", func() string { return "# escape=`\nFROM " + rep("${a:-`\n", mb-1) }, "line 2: too many nested"},
		{"nested braces in pieces", func() string { return "FROM a\nRUN <<a " + rep("$\\\n{a:-", mb/2) }, "line 2: too many nested"},
		{"nested braces in a line", func() string { return "FROM " + rep("${a:-", 8000) + rep("}", 8000) }, "too much text"},
		{"nested braces around text", func() string {
			return "FROM a\nRUN <<a " + rep("${a:-", 500*slower) + rep("\\\naaaaaaaaaaaaa", mb-2)
		}, "line 2: too many nested"},
		{"laughs", func() string {
			var b strings.Builder
			b.WriteString("ARG a0=aaaaaaaaaa\n")
			for i := range 100 {
				fmt.Fprintf(&b, "ARG a%d=%s\n", i+1, rep(fmt.Sprintf("$a%d", i), 10))
			}
			return b.String() + "FROM $a100"
		}, "line 4: ARG a3: the variables in this line expand to too much text"},
		{"laughs in one", func() string {
			return "ARG a=" + rep("a", 60000) + "\nFROM " + rep("$a", 30000)
		}, "too much text"},
		{"slow pattern", func() string {
			return "ARG a=" + rep("a", 4000) + "\n" + rep("ARG b=${a//"+rep("a*", 1500)+"b/}\n", 2000) + "FROM a"
		}, "too much text"},
		{"comments times arguments", func() string {
			return rep("# a\n", mb/2) + "ARG" + rep(" a", 30000) + "\nFROM a"
		}, "too many nested"},
		{"many mounts", func() string {
			return "FROM a\nRUN" + rep(" --mount=from=b,target=/b\\\n", many/2) + " a"
		}, ""},
		{"many heredocs", func() string {
			return "FROM a\nRUN" + rep(" <<a", 10000) + "\n" + rep("a\n", 10000)
		}, ""},
		{"many arguments", func() string { return rep("ARG a=b\n", many/2) + "FROM $a" }, ""},
		{"many expansions", func() string { return "ARG a=b\n" + rep("FROM $a\n", many/2) }, ""},
		{"deep JSON", func() string { return `{"syntax":"a","a":` + rep("[\n", mb/2) }, "unknown instruction"},
		{"deep JSON in RUN", func() string { return "FROM a\nRUN " + rep("[\\\n", mb/2) }, ""},
		{"zeros", func() string { return rep("\x00", 60000) }, "unknown instruction"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if slower > 1 && tt.name == "slow pattern" {
				t.Skip("takes what the bound allows: two seconds, or forty here")
			}
			file := []byte(tt.file())
			runtime.GC()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			_, err := dockerfile.Find(file, dockerfile.Options{})
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			t.Logf("%d bytes: %v, %d MB allocated", len(file), took.Round(time.Millisecond), (after.TotalAlloc-before.TotalAlloc)>>20)
			switch {
			case err == nil && tt.want != "":
				t.Fatalf("no error, want %q", tt.want)
			case err != nil && tt.want == "":
				t.Fatal(err)
			case err != nil && !strings.Contains(err.Error(), tt.want):
				t.Errorf("error %q, want %q", err, tt.want)
			}
			if err != nil && len(err.Error()) > 2000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			// Under the race detector and on a busy machine this is slow. What
			// it must not be is quadratic.
			if took > time.Minute {
				t.Errorf("took %v", took)
			}
		})
	}
}

// TestManyStages holds that time grows with the file and not with its square.
func TestManyStages(t *testing.T) {
	var b strings.Builder
	b.WriteString("ARG V=1\n")
	const stages = 10000 / fewer
	for i := range stages {
		fmt.Fprintf(&b, "FROM image-${TARGETARCH}:$V AS stage%d\n", i)
		if i > 0 {
			fmt.Fprintf(&b, "COPY --from=Stage%d /a /a\nRUN --mount=from=stage%d,target=/x true\n", i-1, i/2)
		}
	}
	start := time.Now()
	res, err := dockerfile.Find([]byte(b.String()), dockerfile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Images) != 2*stages {
		t.Errorf("%d images, want %d", len(res.Images), 2*stages)
	}
	took := time.Since(start)
	t.Logf("%d stages, two platforms: %v", stages, took)
	if took > time.Minute {
		t.Errorf("took %v", took)
	}
}

func TestErrorFields(t *testing.T) {
	_, err := dockerfile.Find([]byte("FROM a\r\nFORM b\r\n"), dockerfile.Options{})
	var e *dockerfile.Error
	if !errors.As(err, &e) {
		t.Fatalf("%T is not an *Error", err)
	}
	if e.Line != 2 || e.Source != "FORM b" || e.Platform != nil {
		t.Errorf("got %+v", e)
	}
	if got, want := e.Err.Error(), "unknown instruction: FORM (did you mean FROM?)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := err.Error(), "line 2: unknown instruction: FORM (did you mean FROM?)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestConcurrent runs Find on one file from several goroutines, for the race
// detector to see.
func TestConcurrent(t *testing.T) {
	file := []byte("# syntax=a\nARG V=1\nFROM b:$V AS c\nONBUILD COPY --from=d / /\nFROM c")
	opts := dockerfile.Options{BuildArgs: map[string]string{"V": "2"}}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			res, err := dockerfile.Find(file, opts)
			if err != nil || len(res.Images) != 3 {
				t.Errorf("got %v, %v", res, err)
			}
		})
	}
	wg.Wait()
}
