//go:build e2e

package e2e

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

// A thousand clients read slowly, of a blob that is stored and of one that is
// arriving: the mirror stays small, and keeps nothing of them when they leave.
func TestPullThroughManySlowClients(t *testing.T) {
	const clients, limit = 1000, 100 // MB
	repository, layer := large(t, 64*mebi)
	hub := startHub(t, "distribution-3", repository)
	proxy := startProxy(t, hub.url())
	project := newProject(t, proxy.url())
	for _, state := range []string{"arriving", "stored"} {
		t.Run(state, func(t *testing.T) {
			mirror := address()
			server := project.through(t, mirror)
			files := func() int {
				entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", server.Process.Pid))
				check(t, err)
				return len(entries)
			}
			proxy.rate.Store(4e6)
			if state == "stored" {
				proxy.rate.Store(0)
				project.complete(t, "docker.io/library/large:1")
			}
			get(t, "http://"+mirror+"/v2/library/large/manifests/1")
			before := files()
			var reading, failed atomic.Int64
			stop := make(chan struct{})
			done := make(chan struct{})
			for range clients {
				go func() {
					defer func() { done <- struct{}{} }()
					if err := trickle(mirror, "/v2/library/large/blobs/"+layer.Digest, &reading, stop); err != nil {
						failed.Add(1)
						t.Error(err)
					}
				}()
			}
			within(t, time.Minute, "all read", func() bool { return reading.Load()+failed.Load() == clients })
			var most float64
			for range 30 {
				now, _ := memory(t, server)
				most = max(most, now)
				time.Sleep(100 * time.Millisecond)
			}
			_, peak := memory(t, server)
			t.Logf("%d clients of a blob that is %s: %.0f MB in memory, %.0f MB at most, %d files open", clients, state, most, peak, files())
			if peak > limit {
				t.Errorf("the mirror took %.0f MB, more than %d", peak, limit)
			}
			close(stop)
			for range clients {
				<-done
			}
			within(t, 20*time.Second, "what clients left is closed", func() bool {
				time.Sleep(10 * time.Millisecond)
				return files() <= before+30 // connections to the index and to the upstream
			})
		})
	}
	project.verify(t)
}

// trickle asks for a blob and reads 4 KiB ten times a second until stop.
func trickle(mirror, path string, reading *atomic.Int64, stop <-chan struct{}) error {
	connection, err := net.Dial("tcp", mirror)
	if err != nil {
		return err
	}
	defer connection.Close()
	// As on a slow line, the mirror cannot be rid of it all at once.
	err = connection.(*net.TCPConn).SetReadBuffer(16 << 10)
	if err == nil {
		_, err = fmt.Fprintf(connection, "GET %s HTTP/1.1\r\nHost: mirror\r\n\r\n", path)
	}
	if err != nil {
		return err
	}
	response, err := http.ReadResponse(bufio.NewReaderSize(connection, 4<<10), nil)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	buf := make([]byte, 4<<10)
	for first := true; ; first = false {
		if _, err := io.ReadFull(response.Body, buf); err != nil {
			return err
		}
		if first {
			reading.Add(1)
		}
		select {
		case <-stop:
			return nil
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// zeros is a registry with one image whose only layer is nothing but zeros.
func zeros(tb testing.TB, size int64) (handler http.Handler, layer string) {
	tb.Helper()
	hash := sha256.New()
	_, err := io.CopyN(hash, zeroReader{}, size)
	check(tb, err)
	layer = "sha256:" + hex.EncodeToString(hash.Sum(nil))
	r := &repository{name: "library/zeros"}
	config := r.json(ociConfig, map[string]any{"os": "linux", "architecture": "amd64"})
	r.tag(r.manifest(manifest{SchemaVersion: 2, MediaType: ociManifest, Config: &config,
		Layers: []descriptor{{MediaType: ociLayer, Digest: layer, Size: size}}}), "1")
	return small(r, func(w http.ResponseWriter, q *http.Request) bool {
		if q.URL.Path != "/v2/library/zeros/blobs/"+layer {
			return false
		}
		http.ServeContent(w, q, "", time.Time{}, io.NewSectionReader(zeroReader{}, 0, size))
		return true
	}), layer
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func (zeroReader) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}

// A layer of 6 GiB, more than registries and their caches used to take, passes
// through while it arrives.
func TestPullThroughLargeLayer(t *testing.T) {
	size := int64(256 * mebi)
	if full() {
		size = 6 << 30
	}
	handler, layer := zeros(t, size)
	project, server, mirror := newThrough(t, listen(t, handler))
	get(t, "http://"+mirror+"/v2/library/zeros/manifests/1")
	began := time.Now()
	response, err := http.Get("http://" + mirror + "/v2/library/zeros/blobs/" + layer)
	check(t, err)
	defer response.Body.Close()
	hash := sha256.New()
	n, err := io.Copy(hash, response.Body)
	took := time.Since(began)
	if got := "sha256:" + hex.EncodeToString(hash.Sum(nil)); err != nil || n != size || got != layer {
		t.Errorf("%d of %d bytes, %s, %v", n, size, got, err)
	}
	project.complete(t, "docker.io/library/zeros:1")
	_, peak := memory(t, server)
	t.Logf("%d bytes in %.1f s, %.0f MB/s, peak memory %.0f MB", n, took.Seconds(), float64(n)/took.Seconds()/1e6, peak)
	if peak > 100 {
		t.Errorf("the mirror took %.0f MB", peak)
	}
}
