package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// clientPatience is how long a client waits for an answer, and how long the
// mirror may take to complete an image.
const clientPatience = 60 * time.Second

// through runs the case as a pull-through: a client asks the mirror while the
// registry is broken, and again when it is not.
func (r *run) through(ctx context.Context, base string) {
	if err := r.begin(base); err != nil {
		r.wrong(other, "%v", err)
		return
	}
	r.proxy = r.newProxy()
	defer r.proxy.close()
	r.configure(r.Registry, r.Impatient)
	r.proxy.breaks(r.Fault, r.On)
	r.serve(ctx, func(mirror string) {
		r.got = r.pull(ctx, mirror, r.image(), r.behind(r.image()))
		if old := r.pull(ctx, mirror, "base", []string{"old", "shared"}); old != "200 200 200" {
			r.wrong(lost, "what is stored is answered with %s", old)
		}
	})
	if !slices.Contains(strings.Split(r.Client, "|"), r.got) {
		r.wrong(other, "the client of a pull-through got %s, want %s", r.got, r.Client)
	}
	if code, _, text := r.call(ctx, "verify"); code != 0 {
		r.wrong(corrupt, "verify ends with %d: %s", code, text)
	}
	if r.healed() != r.image() || r.Client == "404" {
		return // the mirror stays with what the tag meant first, and with what it did not find
	}

	r.configure(nil, false)
	asked := r.proxy.forget()
	wanted, _ := r.missing()
	r.serve(ctx, func(mirror string) {
		if got := r.pull(ctx, mirror, r.image(), r.behind(r.image())); strings.Trim(got, "20 ") != "" {
			r.wrong(lost, "when the fault has gone a client gets %s", got)
		}
		for end := time.Now().Add(clientPatience); ; time.Sleep(50 * time.Millisecond) {
			_, list, _ := r.call(ctx, "ls", "--json")
			if strings.Contains(list, name(r.image())) && !strings.Contains(list, `"arriving"`) {
				break
			}
			if time.Now().After(end) {
				r.wrong(lost, "when the fault has gone the image is never complete: %s", list)
				break
			}
		}
	})
	again := r.proxy.forget()
	for _, q := range again {
		if q.what == "resolve" && len(wanted) > 0 { // the index, by its tag
			q.what = "index"
		}
		if r.contains(q.what) && !slices.Contains(wanted, q.String()) {
			r.wrong(other, "it asked again for %s, missing were %q; before: %v", q, wanted, asked)
		}
	}
	if code, _, text := r.call(ctx, "verify", name(r.image())); code != 0 {
		r.wrong(corrupt, "verify of what is pinned ends with %d: %s", code, text)
	}
}

// behind is what a client asks for by digest behind an image's tag.
func (r *run) behind(tag string) []string {
	switch tag {
	case "new":
		return []string{"amd64", "layer"}
	case "many":
		return []string{"part0"}
	}
	return nil
}

// contains reports whether the image has content of that name.
func (r *run) contains(name string) bool {
	for _, c := range r.reach(r.image()) {
		if c.name == name {
			return true
		}
	}
	return false
}

var serving = regexp.MustCompile(`on (http://\S+)`)

// serve runs a mirror with pull-through while fn asks it.
func (r *run) serve(ctx context.Context, fn func(mirror string)) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var out, errs output
	ended := make(chan int, 1)
	go func() {
		ended <- r.Program(ctx, []string{"mirrorctl", "--store", filepath.Join(r.dir, "store"), "--config", filepath.Join(r.dir, "mirrorctl.toml"),
			"serve", "--listen", "127.0.0.1:0", "--pull-through", registryName, "--grace", "1s"}, strings.NewReader(""), &out, &errs)
	}()
	for end := time.Now().Add(clientPatience); ; time.Sleep(5 * time.Millisecond) {
		if address := serving.FindStringSubmatch(errs.String()); address != nil {
			fn(address[1])
			break
		}
		if time.Now().After(end) || len(ended) > 0 {
			r.wrong(other, "the mirror does not start: %s", errs.String())
			break
		}
	}
	stop()
	if code := <-ended; code != 0 {
		r.wrong(other, "the mirror ends with %d: %s", code, errs.String())
	}
}

// pull asks a mirror for an image's tag and for content by digest, until
// something does not come, and returns what became of each.
func (r *run) pull(ctx context.Context, mirror, tag string, more []string) string {
	client := &http.Client{Timeout: clientPatience, Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}
	paths := []string{"manifests/" + tag}
	var want []digest.Digest
	for _, one := range []*content{r.good.tags[tag], r.odd.tags[tag]} {
		if one != nil && len(want) == 0 {
			want = append(want, one.Digest)
		}
	}
	for _, name := range more {
		c := r.content(name)
		kind := "blobs/"
		if c.mediaType != "" {
			kind = "manifests/"
		}
		paths, want = append(paths, kind+c.Digest.String()), append(want, c.Digest)
	}
	var got []string
	for i, path := range paths {
		result := r.get(ctx, client, mirror+"/v2/"+registryName+"/"+Repository+"/"+path, want[i])
		if got = append(got, result); result != "200" {
			break
		}
	}
	return strings.Join(got, " ")
}

// get is one request of a client: the status, or broken for an answer that is
// seen to be not whole.
func (r *run) get(ctx context.Context, client *http.Client, url string, want digest.Digest) string {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err.Error()
	}
	resp, err := client.Do(q)
	if err != nil {
		return fmt.Sprint(errors.Unwrap(err))
	}
	defer resp.Body.Close()
	var body bytes.Buffer
	if _, err := io.Copy(&body, resp.Body); err != nil {
		return "broken"
	}
	if resp.StatusCode == http.StatusOK && digest.FromBytes(body.Bytes()) != want {
		r.wrong(corrupt, "%s: the client got %d wrong bytes as if they were right", url, body.Len())
	}
	return fmt.Sprint(resp.StatusCode)
}
