//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"
)

// BenchmarkSync compares mirrorctl sync with other programs that copy an image
// with all its platforms to the disk, from the same registry, in turns:
//
//	go test -tags e2e -run '^$' -bench Sync ./testdata/e2e
//
// It prints the medians of whole-process time and peak memory, and what fsync
// of the same bytes costs: mirrorctl promises durability, the others do not.
func BenchmarkSync(b *testing.B) {
	repository, _ := large(b, 1024*mebi)
	hub := startHub(b, "distribution-3", debian(b), repository)
	for b.Loop() {
		table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(table, "\nimage\tprogram\tmedian s\tfrom\tto\tx mirrorctl\tpeak MB\t")
		for _, image := range []string{"debian:bookworm", "large:1"} {
			compare(b, table, hub.address, image, rounds)
		}
		table.Flush()
	}
}

// rounds is how often each program runs. The order is another one each time, so
// that nobody always comes after the same one.
const rounds = 8

// contender copies an image into a fresh folder.
type contender struct {
	name    string
	command func(image, dir string) (cwd string, args []string)
	seconds []float64
	peak    []float64 // MB
}

func compare(b *testing.B, table io.Writer, upstream, image string, rounds int) {
	b.Helper()
	contenders := []*contender{
		{name: "mirrorctl", command: func(image, dir string) (string, []string) {
			project := newProject(b, "http://"+upstream, image)
			project.store = filepath.Join(dir, "store")
			name, args := project.command("sync", "--quiet", "Dockerfile")
			return project.dir, append([]string{name}, args...)
		}},
		{name: "regctl", command: func(image, dir string) (string, []string) {
			return dir, []string{"regctl", "--host", "reg=" + upstream + ",tls=disabled",
				"image", "copy", upstream + "/library/" + image, "ocidir://" + dir + "/layout:copy"}
		}},
		{name: "skopeo", command: func(image, dir string) (string, []string) {
			return dir, []string{"skopeo", "--insecure-policy", "copy", "--quiet", "--all", "--src-tls-verify=false",
				"docker://" + upstream + "/library/" + image, "oci:" + dir + "/layout:copy"}
		}},
		{name: "crane", command: func(image, dir string) (string, []string) {
			return dir, []string{"crane", "pull", "--insecure", "--format", "oci", upstream + "/library/" + image, dir + "/layout"}
		}},
	}
	// Another build beside the one under test is compared too.
	if before := os.Getenv(binaryVariable) + "-before"; exists(before) {
		contenders = append(contenders, &contender{name: "mirrorctl before", command: func(image, dir string) (string, []string) {
			cwd, args := contenders[0].command(image, dir)
			args[0] = before
			return cwd, args
		}})
	}
	var fsync []float64
	for round := range rounds {
		for i := range contenders {
			c := contenders[(round+i)%len(contenders)]
			if round/len(contenders)%2 == 1 { // the other way round
				c = contenders[(round+len(contenders)-i)%len(contenders)]
			}
			dir := tempDir(b)
			seconds, peak := c.measure(b, image, dir)
			c.seconds, c.peak = append(c.seconds, seconds), append(c.peak, peak)
			if c.name == "mirrorctl" {
				fsync = append(fsync, fsyncCost(b, filepath.Join(dir, "store", "blobs")))
			}
			check(b, os.RemoveAll(dir))
		}
	}
	base := median(contenders[0].seconds)
	for _, c := range contenders {
		fmt.Fprintf(table, "%s\t%s\t%.2f\t%.2f\t%.2f\t%.2f\t%.0f\t\n", image, c.name, median(c.seconds),
			slices.Min(c.seconds), slices.Max(c.seconds), median(c.seconds)/base, median(c.peak))
	}
	fmt.Fprintf(table, "%s\tfsync alone\t%.2f\t%.2f\t%.2f\t%.2f\t\t\n", image, median(fsync),
		slices.Min(fsync), slices.Max(fsync), median(fsync)/base)
}

// measure runs the program under time(1). Its own figures from wait4 would be
// wrong: the kernel counts the memory of the process that forked, this one, as
// the program's until it starts.
func (c *contender) measure(b *testing.B, image, dir string) (seconds, megabytes float64) {
	b.Helper()
	cwd, args := c.command(image, dir)
	figures := filepath.Join(tempDir(b), "time")
	syscall.Sync() // nobody pays for what the one before left to be written
	args = append([]string{"-f", "%e %M", "-o", figures}, args...)
	must(b, cwd, nil, "/usr/bin/time", args...)
	text, err := os.ReadFile(figures)
	check(b, err)
	var kibibytes float64
	_, err = fmt.Sscan(string(text), &seconds, &kibibytes)
	check(b, err)
	return seconds, kibibytes * 1024 / 1e6
}

// fsyncCost writes the files below a folder again and times what makes them
// durable alone: fsync of each file, and of the folder after it got its name.
func fsyncCost(b *testing.B, blobs string) float64 {
	b.Helper()
	var cost time.Duration
	dir := tempDir(b)
	defer os.RemoveAll(dir)
	folder, err := os.Open(dir)
	check(b, err)
	defer folder.Close()
	check(b, filepath.WalkDir(blobs, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		from, err := os.Open(path)
		if err != nil {
			return err
		}
		defer from.Close()
		to, err := os.Create(filepath.Join(dir, strings.ReplaceAll(path, "/", "_")))
		if err != nil {
			return err
		}
		defer to.Close()
		if _, err := io.Copy(to, from); err != nil {
			return err
		}
		began := time.Now()
		err = errors.Join(to.Sync(), os.Rename(to.Name(), to.Name()+".done"), folder.Sync())
		cost += time.Since(began)
		return err
	}))
	return cost.Seconds()
}

func median(figures []float64) float64 {
	sorted := slices.Sorted(slices.Values(figures))
	return sorted[len(sorted)/2]
}
