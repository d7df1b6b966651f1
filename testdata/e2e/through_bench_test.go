//go:build e2e

package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// BenchmarkPullThrough has 20 clients ask at once for a missing image of 100 MB
// behind a line of 10 MB/s with a round trip of 100 ms, from mirrorctl and from
// distribution v3 as a proxy:
//
//	go test -tags e2e -run '^$' -bench PullThrough -benchtime 1x ./testdata/e2e
//
// It prints the time, how often blobs were asked for upstream, and how much came
// over the line by the time that all clients were done.
func BenchmarkPullThrough(b *testing.B) {
	const clients, size, rate, delay = 20, 100e6, 10e6, 100 * time.Millisecond
	repository := several(b, 100, size, "1")
	content := contents(b, repository)
	hub := startHub(b, "distribution-3", repository)
	for b.Loop() {
		for _, kind := range []string{"mirrorctl", "distribution"} {
			proxy := startProxy(b, hub.url())
			line := startLink(b, proxy.address, rate, delay)
			var mirror string
			var server *process
			if kind == "mirrorctl" {
				_, server, mirror = newThrough(b, line.url())
			} else {
				mirror = address()
				dir := tempDir(b)
				config := writeFile(b, filepath.Join(dir, "config.yml"), fmt.Sprintf(
					"version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nhttp: {addr: %q}\nstorage: {filesystem: {rootdirectory: %s}}\nproxy: {remoteurl: %q}\n",
					mirror, filepath.Join(dir, "data"), line.url()))
				cmd := exec.Command("registry", "serve", config)
				cmd.Env = append(cmd.Environ(), "OTEL_TRACES_EXPORTER=none")
				server = start(b, cmd)
				server.ready(b, dial("tcp", mirror))
			}
			took, _ := together(b, clients, mirror, repository.name, "1", content)
			most := 0
			for _, n := range times(proxy) {
				most = max(most, n)
			}
			_, peak := memory(b, server)
			fmt.Printf("%s: %d clients %.1f s; %d GETs of blobs upstream, one of them %d times; %.0f MB over the line; peak memory %.0f MB\n",
				kind, clients, took.Seconds(), len(proxy.seen("GET", "/blobs/")), most, float64(line.carried.Load())/1e6, peak)
			server.stop()
		}
	}
}
