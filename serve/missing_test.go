package serve

import (
	"context"
	"io"
	"net/http"
	"testing"

	"github.com/opencontainers/go-digest"

	"mirrorctl/store"
)

// unopened is a fetcher whose blobs may be asked for, but not opened.
type unopened struct {
	*memory
	t *testing.T
}

func (u unopened) Blob(context.Context, store.Repository, digest.Digest) (io.ReadSeekCloser, int64, error) {
	u.t.Error("opened a blob")
	return nil, 0, store.ErrNotFound
}

// HEAD of a blob that is elsewhere does not bring it here.
func TestHeadFetchesNothing(t *testing.T) {
	elsewhere := newMemory()
	d := elsewhere.addBlob([]byte("a layer"))
	h := newHandler(t, newMemory(), Options{Missing: unopened{elsewhere, t}})
	for target, want := range map[string]struct {
		status int
		length int64
	}{
		"/v2/library/app/blobs/" + d.String():                         {http.StatusOK, 7},
		"/v2/library/app/blobs/" + digest.FromString("none").String(): {http.StatusNotFound, -2},
	} {
		res := do(t, h, http.MethodHead, target)
		if res.StatusCode != want.status || want.length >= 0 && res.ContentLength != want.length {
			t.Errorf("%s: %s, %d bytes", target, res.Status, res.ContentLength)
		}
		if got := res.Header.Get("X-Mirrorctl-Cache"); got != "miss" {
			t.Errorf("%s: %q", target, got)
		}
	}
}
