//go:build !race

// The library of the command line writes to variables of its own, so that the
// race detector finds fault with two commands at a time in one process.

package main

import (
	"flag"
	"os"
	"regexp"
	"runtime"
	"testing"

	"mirrorctl/cmd"
	"mirrorctl/testdata/faults"
)

var onlyFaults = flag.String("faults", "", "run only the faults whose names match this regular expression")

// newRig breaks things in this process. Cases wait for the most part, so that many
// run at a time.
func newRig(t *testing.T) *faults.Rig {
	t.Helper()
	t.Setenv("DOCKER_CONFIG", t.TempDir()) // nobody's logins
	only, err := regexp.Compile(*onlyFaults)
	if err != nil {
		t.Fatal(err)
	}
	memory := "/dev/shm" // on a disk they would wait for fsyncs of hundreds of stores
	if _, err := os.Stat(memory); err != nil {
		memory = ""
	}
	dir, err := os.MkdirTemp(memory, "faults-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return &faults.Rig{Program: cmd.Main, Dir: dir, Parallel: 32, Only: only}
}

// TestFaults breaks what is between mirrorctl and a registry in every way that
// package faults knows.
func TestFaults(t *testing.T) { newRig(t).Run(t) }

// TestBounds counts what stays of requests, and of those that were aborted.
func TestBounds(t *testing.T) {
	requests, aborted := 1000, 100
	if os.Getenv("MIRRORCTL_E2E_FULL") != "" {
		requests, aborted = 10_000, 1000
	}
	newRig(t).Bounds(t, requests, aborted, func() faults.Counts {
		files, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("there is no /proc here")
		}
		return faults.Counts{Goroutines: runtime.NumGoroutine(), Files: len(files)}
	})
}
