//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// puller pulls as docker does: the tag by HEAD, manifests by digest, then the
// configuration, and three layers at a time.
type puller struct {
	base    string // http://mirror/v2/library/name
	content map[string][]byte
	http    *http.Client

	received atomic.Int64 // bytes of blobs

	mu     sync.Mutex
	digest string             // what the tag was said to mean
	first  map[string]arrived // by blob
}

// arrived is when a blob was asked for and when its first byte came.
type arrived struct{ asked, first time.Time }

// contents reads the blobs of a repository into memory, to compare with.
func contents(tb testing.TB, r *repository) map[string][]byte {
	tb.Helper()
	all := map[string][]byte{}
	for _, b := range r.blobs {
		body, err := b.open()
		check(tb, err)
		all[b.digest], err = io.ReadAll(body)
		check(tb, err)
		body.Close()
	}
	return all
}

func newPuller(mirror, name string, content map[string][]byte) *puller {
	return &puller{
		base: "http://" + mirror + "/v2/" + name, content: content,
		http: &http.Client{Transport: &http.Transport{}}, first: map[string]arrived{},
	}
}

// pull gets the image for an architecture and compares every byte of it.
func (p *puller) pull(tag, arch string) error {
	defer p.http.CloseIdleConnections()
	response, err := p.request(http.MethodHead, tag)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", tag, response.Status)
	}
	p.digest = response.Header.Get("Docker-Content-Digest")
	m, err := p.manifest(p.digest)
	if err != nil {
		return err
	}
	for _, child := range m.Manifests {
		if child.Platform != nil && child.Platform.Architecture == arch {
			if m, err = p.manifest(child.Digest); err != nil {
				return err
			}
		}
	}
	if m.Config == nil {
		return fmt.Errorf("no image for %s", arch)
	}
	if err := p.blob(*m.Config); err != nil {
		return err
	}
	layers, failed := make(chan descriptor), make(chan error, 3)
	for range 3 {
		go func() {
			var err error
			for d := range layers {
				if err == nil {
					err = p.blob(d)
				}
			}
			failed <- err
		}()
	}
	for _, d := range m.Layers {
		layers <- d
	}
	close(layers)
	for range 3 {
		if e := <-failed; e != nil {
			err = e
		}
	}
	return err
}

func (p *puller) manifest(digest string) (m manifest, err error) {
	response, err := p.request(http.MethodGet, digest)
	if err != nil {
		return m, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return m, fmt.Errorf("manifest %s: %w", digest, err)
	}
	if response.StatusCode != http.StatusOK || digestOf(text) != digest {
		return m, fmt.Errorf("manifest %s: %s, %d bytes", digest, response.Status, len(text))
	}
	return m, json.Unmarshal(text, &m)
}

func (p *puller) request(method, reference string) (*http.Response, error) {
	request, err := http.NewRequest(method, p.base+"/manifests/"+reference, nil)
	if err != nil {
		return nil, err
	}
	request.Header["Accept"] = every
	return p.http.Do(request)
}

func (p *puller) blob(d descriptor) error {
	asked := time.Now()
	response, err := p.http.Get(p.base + "/blobs/" + d.Digest)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK || response.ContentLength != d.Size {
		return fmt.Errorf("blob %s: %s, %d bytes", d.Digest, response.Status, response.ContentLength)
	}
	want, buf := p.content[d.Digest], make([]byte, 64<<10)
	for pos := 0; ; {
		n, err := response.Body.Read(buf)
		if n > 0 && pos == 0 {
			p.mu.Lock()
			p.first[d.Digest] = arrived{asked, time.Now()}
			p.mu.Unlock()
		}
		if pos+n > len(want) || !bytes.Equal(buf[:n], want[pos:pos+n]) {
			return fmt.Errorf("blob %s has other bytes than upstream after %d", d.Digest, pos)
		}
		pos += n
		p.received.Add(int64(n))
		if err == io.EOF && pos == len(want) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("blob %s broke off after %d of %d bytes: %w", d.Digest, pos, len(want), err)
		}
	}
}

// several has several layers for amd64, of size bytes together, and a smaller
// image for arm64.
func several(tb testing.TB, seed byte, size int64, tags ...string) *repository {
	tb.Helper()
	r := &repository{name: "library/several"}
	var amd, arm []layer
	for i, part := range []int64{40, 30, 20, 8, 2} {
		amd = append(amd, randomLayer(tb, seed+byte(i), size*part/100))
	}
	for i := range 2 {
		arm = append(arm, randomLayer(tb, seed+byte(5+i), size/20))
	}
	r.tag(r.index(oci, r.image(oci, "amd64", amd...), r.image(oci, "arm64", arm...)), tags...)
	return r
}

// memory is what a process has in memory in MB: now, and at most so far.
func memory(tb testing.TB, p *process) (now, peak float64) {
	tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
	check(tb, err)
	for line := range bytes.Lines(text) {
		var name string
		var kibibytes float64
		fmt.Sscan(string(line), &name, &kibibytes)
		switch name {
		case "VmRSS:":
			now = kibibytes * 1024 / 1e6
		case "VmHWM:":
			peak = kibibytes * 1024 / 1e6
		}
	}
	return now, peak
}
