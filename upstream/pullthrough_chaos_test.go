package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"mirrorctl/store"
)

// Two mirrors on one store, clients that come and leave, a sync, rm and gc, all
// at the same time: nobody gets wrong bytes, and in the end all is well.
func TestPullThroughAllAtOnce(t *testing.T) {
	f := newFake(t)
	dir := t.TempDir()
	var stores [3]*store.Store
	for i := range stores {
		st, err := store.Open(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = st.Close() })
		stores[i] = st
	}
	common := f.blob(random(200_000))
	roots, layers := map[string]v1.Descriptor{}, []v1.Descriptor{common}
	for i := range 4 {
		own := f.blob(random(100_000))
		layers = append(layers, own)
		tag := fmt.Sprint(i)
		roots[tag] = f.index([]v1.Descriptor{
			platform(f.image([]v1.Descriptor{common, own}), "amd64"), platform(f.image([]v1.Descriptor{own}), "arm64"),
		}, tag)
	}
	mirrors := []*PullThrough{newPullThrough(t, newClient(t, stores[0], f)), newPullThrough(t, newClient(t, stores[1], f))}
	syncing := newClient(t, stores[2], f)

	ctx, stop := context.WithTimeout(t.Context(), 2*time.Second)
	defer stop()
	var group sync.WaitGroup
	repeat := func(fn func(tag string)) {
		group.Go(func() {
			for ctx.Err() == nil {
				fn(fmt.Sprint(rand.IntN(4)))
			}
		})
	}
	for range 3 {
		for _, p := range mirrors {
			repeat(func(tag string) {
				if m, err := p.Manifest(ctx, app, tag); err == nil && m.Digest != roots[tag].Digest {
					t.Errorf("%s is %s", tag, m.Digest)
				}
				ctx, leave := context.WithTimeout(ctx, time.Duration(rand.IntN(50))*time.Millisecond)
				defer leave()
				layer := layers[rand.IntN(len(layers))]
				if got, err := readBlob(ctx, p, layer.Digest, 0); err == nil && digest.FromBytes(got) != layer.Digest {
					t.Errorf("%d bytes of %s are wrong", len(got), layer.Digest)
				}
			})
		}
	}
	repeat(func(tag string) { _, _ = fetchTag(t, syncing, tag) })
	repeat(func(tag string) {
		time.Sleep(20 * time.Millisecond)
		if _, _, err := stores[2].Remove(ctx, app, tag); err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrNotFound) {
			t.Error(err)
		}
	})
	repeat(func(string) {
		time.Sleep(30 * time.Millisecond)
		if _, err := stores[2].Collect(ctx, time.Hour); err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	})
	group.Wait()

	for tag := range roots {
		readManifest(t, mirrors[0], tag)
		waitPinned(t, stores[0], tag)
	}
	for _, layer := range layers {
		if got, err := readBlob(t.Context(), mirrors[1], layer.Digest, 0); err != nil || !bytes.Equal(got, f.blobs[layer.Digest]) {
			t.Errorf("%s: %d bytes, %v", layer.Digest, len(got), err)
		}
	}
	checkStored(t, stores[0], f)
}
