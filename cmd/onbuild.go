package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"mirrorctl/lockfile"
	"mirrorctl/store"
	"mirrorctl/upstream"
)

// triggers are the ONBUILD instructions in the configurations of images, as far
// as discovery asked for them.
type triggers struct {
	p    *program
	read func(name reference.Named, platform v1.Platform) ([]string, error)

	mu    sync.Mutex
	asked map[string]*question
}

// question is what discovery asked, and the answer.
type question struct {
	name     reference.Named
	platform v1.Platform

	once    sync.Once
	image   string // the name of what is behind that name
	onBuild []string
	err     error // store.ErrNotFound if the image is not here yet
}

func (p *program) newTriggers(read func(reference.Named, v1.Platform) ([]string, error)) *triggers {
	return &triggers{p: p, read: read, asked: map[string]*question{}}
}

// of is dockerfile.Options.OnBuild.
func (t *triggers) of(name reference.Named, platform v1.Platform) []string {
	key := name.String() + " " + platforms.FormatAll(platform)
	t.mu.Lock()
	q := t.asked[key]
	if q == nil {
		q = &question{name: name, platform: platform}
		t.asked[key] = q
	}
	t.mu.Unlock()
	q.once.Do(func() {
		q.image = name.String()
		behind, err := t.p.behind(canonical(name))
		if err == nil {
			q.image = behind.String()
			q.onBuild, err = t.read(behind, platform)
		}
		q.err = err
	})
	return q.onBuild
}

// unknown reports whether the triggers of some image are not known.
func (t *triggers) unknown() bool { return len(t.unread()) > 0 }

// unread returns, by image, why its triggers are not known: store.ErrNotFound
// where it is not here yet, unless there is worse.
func (t *triggers) unread() map[string]error {
	byName := map[string]error{}
	for _, key := range slices.Sorted(maps.Keys(t.asked)) {
		q := t.asked[key]
		if q.err != nil && (byName[q.image] == nil || errors.Is(byName[q.image], store.ErrNotFound)) {
			byName[q.image] = q.err
		}
	}
	return byName
}

// failed returns, for each image that is here, why its triggers cannot be known.
func (t *triggers) failed() []error {
	unread := t.unread()
	var all []error
	for _, name := range slices.Sorted(maps.Keys(unread)) {
		if !errors.Is(unread[name], store.ErrNotFound) {
			all = append(all, unreadError(name, "", unread[name]))
		}
	}
	return all
}

// unreadError is that the triggers of an image cannot be known.
func unreadError(name, where string, err error) *imageError {
	failed := &imageError{name: name, where: where, err: fmt.Errorf("its ONBUILD instructions cannot be read: %w", err)}
	if errors.Is(err, store.ErrDamaged) || errors.Is(err, store.ErrNotFound) {
		failed.hint = "run mirrorctl verify --repair " + familiar(name) + ", then the command again"
	}
	return failed
}

// differ asks next all that t was asked, and reports whether an answer differs.
func (t *triggers) differ(next *triggers) bool {
	differ := false
	for _, q := range t.asked {
		differ = !slices.Equal(next.of(q.name, q.platform), q.onBuild) || differ
	}
	return differ
}

// storedTriggers reads triggers from a store. Each configuration is read once,
// however often it is asked for.
type storedTriggers struct {
	p      *program
	lock   lockfile.File
	mu     sync.Mutex
	byRoot map[string][]string // what is known, by digest and platform
}

// from returns the triggers of the images in a store, nil for none. An image is
// what done says, or else the lock, or else its pin.
func (s *storedTriggers) from(ctx context.Context, st *store.Store, done map[string]digest.Digest) *triggers {
	return s.p.newTriggers(func(name reference.Named, platform v1.Platform) ([]string, error) {
		if st == nil {
			return nil, store.ErrNotFound
		}
		root := done[name.String()]
		if root == "" {
			entry, _ := s.lock.Image(name.String())
			root = entry.Digest
		}
		if root == "" {
			repo, ref := store.Locate(name)
			pin, err := st.Pin(ctx, repo, ref)
			if err != nil {
				return nil, err
			}
			root = pin.Digest
		}
		key := root.String() + " " + platforms.FormatAll(platform)
		s.mu.Lock()
		onBuild, known := s.byRoot[key]
		s.mu.Unlock()
		if known {
			return onBuild, nil
		}
		raw, err := upstream.StoredConfig(ctx, st, root, platform)
		if err == nil {
			onBuild, err = onBuildIn(raw)
		}
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		s.byRoot[key] = onBuild
		s.mu.Unlock()
		return onBuild, nil
	})
}

func (p *program) storedTriggers(lock lockfile.File) *storedTriggers {
	return &storedTriggers{p: p, lock: lock, byRoot: map[string][]string{}}
}

// onBuildIn returns the triggers in the configuration of an image. OCI's
// specification leaves them out, builders read them all the same.
func onBuildIn(config []byte) ([]string, error) {
	if len(config) == 0 {
		return nil, nil // none for this platform
	}
	var image struct{ Config struct{ OnBuild []string } }
	if err := json.Unmarshal(config, &image); err != nil {
		return nil, fmt.Errorf("its configuration: %w; ask whoever pushed it", err)
	}
	return image.Config.OnBuild, nil
}

// discoverStored is discover with the triggers of what the store has already. A
// store that cannot be opened has none; whoever needs it will say why.
func (p *program) discoverStored(c *cli.Context, paths []string, s *storedTriggers) (discovery, *triggers, error) {
	dir, err := p.storeDir(c)
	if err != nil {
		return discovery{}, nil, err
	}
	st, err := store.OpenReadOnly(c.Context, dir)
	if err != nil {
		st = nil
	} else {
		defer st.Close()
	}
	t := s.from(c.Context, st, nil)
	found, err := p.discover(c, paths, t.of)
	return found, t, err
}

// discoverRemote is discover with the triggers of what the store has, and of
// what upstreams have.
func (p *program) discoverRemote(c *cli.Context, paths []string) (discovery, error) {
	dir, err := p.storeDir(c)
	if err != nil {
		return discovery{}, err
	}
	st, err := store.OpenReadOnly(c.Context, dir)
	switch {
	case errors.Is(err, store.ErrNoStore):
		st = nil
	case err != nil:
		return discovery{}, storeError(err)
	default:
		defer st.Close()
	}
	client, err := p.newUpstream(st, 0)
	if err != nil {
		return discovery{}, err
	}
	defer p.closeUpstream(client)
	t := p.newTriggers(func(name reference.Named, platform v1.Platform) ([]string, error) {
		raw, err := client.Config(c.Context, name, platform)
		if err != nil {
			return nil, err
		}
		return onBuildIn(raw)
	})
	found, err := p.discover(c, paths, t.of)
	found.failed = append(found.failed, t.failed()...)
	return found, errors.Join(err, c.Context.Err())
}
