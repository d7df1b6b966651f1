//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"testing"
	"text/tabwriter"
	"time"
)

// BenchmarkSlowSync is BenchmarkSync through lines of 10 MB/s for each connection
// and a round trip of 100 ms:
//
//	go test -tags e2e -run '^$' -bench SlowSync -benchtime 1x -timeout 2h ./testdata/e2e
//
// With -short the large layer has 256 MiB, and there are fewer rounds.
func BenchmarkSlowSync(b *testing.B) {
	const rate, delay = 10e6, 100 * time.Millisecond
	size, few, many := int64(1024*mebi), 3, rounds
	if testing.Short() {
		size, few, many = 256*mebi, 1, 4
	}
	repository, _ := large(b, size)
	hub := startHub(b, "distribution-3", debian(b), repository)
	line := startLinks(b, hub.address, rate, delay)
	for b.Loop() {
		table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(table, "\nimage\tprogram\tmedian s\tfrom\tto\tx mirrorctl\tpeak MB\t")
		compare(b, table, line.address, "debian:bookworm", many)
		compare(b, table, line.address, "large:1", few)
		table.Flush()
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
