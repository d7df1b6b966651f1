package cmd

import (
	"fmt"
	"testing"

	"github.com/agext/levenshtein"
)

func TestNearest(t *testing.T) {
	for _, tt := range []struct {
		s    string
		of   []string
		want string
	}{
		{"snyc", []string{"find", "sync", "serve"}, "sync"},
		{"SYNC", []string{"find", "sync", "serve"}, "sync"},
		{"bsae:1", []string{"hello", "base:1", "tool:1"}, "base:1"},
		{"ubnutu:20.04", []string{"ubuntu:18.04", "ubuntu:20.04", "ubuntu:22.04"}, "ubuntu:20.04"},
		{"nothing-like-it", []string{"hello", "base:1"}, ""},
		{"a", []string{"b"}, ""},
		{"", []string{"a"}, ""},
		{"a", nil, ""},
		{"übung", []string{"ubung", "uebung"}, "ubung"},
	} {
		if got := nearest(tt.s, tt.of); got != tt.want {
			t.Errorf("nearest(%q, %q) = %q, want %q", tt.s, tt.of, got, tt.want)
		}
	}
}

func TestFamiliarPin(t *testing.T) {
	for _, name := range []string{
		"docker.io/library/ubuntu:20.04", "docker.io/acme/tool:1", "docker.io/library/a/b:1", "ghcr.io/library/x:1", "ghcr.io/x:latest",
		"docker.io/library/x@sha256:03b19c972b927dbc0319b2c9b250b52c2bc2c1c458c3b5d34e96b49bf54875e8", "localhost:5000/library/x:1",
	} {
		if got, want := familiarPin(name), familiar(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// pinNames are n names as a store has them.
func pinNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("docker.io/team%d/app-%d:1.%d", i/100, i/10, i)
	}
	return names
}

// What is passed over without being compared must not be the nearest.
func TestNearestIsBest(t *testing.T) {
	names := pinNames(2000)
	for _, s := range []string{"docker.io/taem7/app-71:1.718", "docker.io/team/app:1", "docker.io/app-71:1.718", "x"} {
		best, bestScore := "", 0.0
		for _, name := range names {
			if score := levenshtein.Similarity(s, name, nil); score >= 0.6 && score > bestScore {
				best, bestScore = name, score
			}
		}
		if got := nearest(s, names); s != "x" && got != best || s == "x" && got != "" {
			t.Errorf("nearest to %s is %q, want %q", s, got, best)
		}
	}
}

// A typo must be answered at once, however many images are pinned.
func BenchmarkSuggest(b *testing.B) {
	names := pinNames(100_000)
	name, err := parseName("taem71/app-718:1.7182")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if got := suggest(name, names); got != "team71/app-718:1.7182" {
			b.Fatal(got)
		}
	}
}
