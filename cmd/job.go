package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"mirrorctl/lockfile"
	"mirrorctl/store"
	"mirrorctl/upstream"
)

// job is one image of a sync or add, and what became of it.
type job struct {
	name   reference.Named
	where  string         // the first place that needs it, "" for none
	locked lockfile.Image // zero if it is not in the lock
	update bool           // resolve again, whatever is locked or pinned
	named  bool           // update was asked for by name
	byHand bool           // asked for, whether or not a file names it

	asked    bool // upstream, what the name means; the answer:
	root     v1.Descriptor
	askedErr error

	progress upstream.Progress
	started  bool // the display knows that content is being fetched

	outcome outcome
	entry   lockfile.Image // for the lock, valid unless the outcome is failed or conflict
	was     digest.Digest  // with outcome moved: what it was before
	lost    int            // files that the store had lost, and that were brought back
	err     error
}

// outcome is what became of an image; the words stand in --json.
type outcome string

const (
	outcomeUnchanged outcome = "unchanged"
	outcomeFetched   outcome = "fetched"  // by the locked digest
	outcomePinned    outcome = "pinned"   // resolved, fetched and pinned anew
	outcomeLocked    outcome = "locked"   // the lock took what the store had pinned
	outcomeMoved     outcome = "moved"    // to another digest, by --update
	outcomeRepaired  outcome = "repaired" // unchanged, but for files that the store had lost
	outcomeConflict  outcome = "conflict"
	outcomeFailed    outcome = "failed"
)

// jobs runs the work of sync and add on one store.
type jobs struct {
	store    *store.Store
	upstream *upstream.Client
	display  display
	lockPath string
}

// parallelImages is how many images are worked on at a time. Transfers have
// their own limit; this one only bounds the bookkeeping of a large sync.
const parallelImages = 16

// run works on all images. What fails is in the jobs, not an error: the others
// go on.
func (r *jobs) run(ctx context.Context, all []*job) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, parallelImages)
	for _, j := range all {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			r.one(ctx, j)
		})
	}
	wg.Wait()
}

func (r *jobs) one(ctx context.Context, j *job) {
	pin, err := r.do(ctx, j)
	switch {
	case ctx.Err() != nil: // the command says so, once
		j.outcome, j.err = outcomeFailed, ctx.Err()
		return
	case err == nil:
		j.entry = lockEntry(j.name, pin)
	default:
		j.outcome = outcomeFailed
		if errors.As(err, new(*store.ConflictError)) {
			j.outcome = outcomeConflict
		}
		j.err = &imageError{name: j.name.String(), where: j.where, err: r.explain(j, err), hint: r.hint(j, err)}
	}
	r.display.done(j)
}

// plan decides what has to be done for an image.
func (r *jobs) plan(ctx context.Context, j *job) (lockfile.Action, store.Pin, error) {
	repo, ref := store.Locate(j.name)
	pin, err := r.store.Pin(ctx, repo, ref)
	pinned := err == nil
	if errors.Is(err, store.ErrNotFound) {
		var arrival store.Arrival
		arrival, err = r.store.Arrival(ctx, repo, ref)
		pin = arrival.Pin()
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return 0, pin, err
	}
	want := j.locked.Digest
	if want == "" {
		want = pin.Digest
	}
	// Only what is complete is pinned. What another repository has pinned may
	// lack this one's signatures.
	complete := pinned && want == pin.Digest
	if want != "" && !complete {
		if complete, err = r.store.PinnedIn(ctx, repo, want); err != nil {
			return 0, pin, err
		}
	}
	return lockfile.Decide(j.locked.Digest, pin.Digest, complete, j.update), pin, nil
}

func (r *jobs) do(ctx context.Context, j *job) (store.Pin, error) {
	action, pin, err := r.plan(ctx, j)
	if err != nil {
		return pin, err
	}
	repo, ref := store.Locate(j.name)
	switch action {
	case lockfile.Nothing:
		j.outcome = outcomeUnchanged
		return pin, r.restore(ctx, j, pin.Digest)
	case lockfile.PinLocked:
		j.outcome = outcomeFetched
		if err := r.restore(ctx, j, j.locked.Digest); err != nil {
			return pin, err
		}
		return r.store.PinPublished(ctx, repo, ref, j.locked.Digest, false)
	case lockfile.FetchLocked:
		j.outcome = outcomeFetched
		r.start(j, j.locked.Digest)
		// Without the lock's media type: the upstream's is the true one.
		return r.fetch(ctx, j, v1.Descriptor{Digest: j.locked.Digest}, false)
	case lockfile.FetchPinned:
		j.outcome = outcomeFetched
		r.start(j, pin.Digest)
		return r.fetch(ctx, j, v1.Descriptor{Digest: pin.Digest}, false)
	case lockfile.LockPinned:
		j.outcome = outcomeLocked
		return pin, r.restore(ctx, j, pin.Digest)
	case lockfile.Conflict:
		return pin, &store.ConflictError{Pinned: pin}
	}
	if j.named && j.locked.Digest != "" && pin.Digest != "" && j.locked.Digest != pin.Digest {
		// The way out of a conflict: the lock takes the store's digest, and no
		// other project on this store is touched.
		j.outcome = outcomeLocked
		if pinned, err := r.store.Pin(ctx, repo, ref); err == nil {
			return pinned, r.restore(ctx, j, pin.Digest)
		} else if !errors.Is(err, store.ErrNotFound) {
			return pin, err
		}
		r.start(j, pin.Digest) // it is arriving
		return r.fetch(ctx, j, v1.Descriptor{Digest: pin.Digest}, false)
	}
	return r.resolve(ctx, j, pin)
}

func (r *jobs) start(j *job, d digest.Digest) {
	if !j.started {
		j.started = true
		r.display.start(j, d)
	}
}

// fetch is upstream's Fetch for a store whose disk may have lost files: of the
// image, if it is known already, or of what it shares with others.
func (r *jobs) fetch(ctx context.Context, j *job, root v1.Descriptor, move bool) (store.Pin, error) {
	if err := r.restore(ctx, j, root.Digest); err != nil {
		return store.Pin{}, err
	}
	pin, err := r.upstream.Fetch(ctx, j.name, root, move, &j.progress)
	if err != nil {
		return pin, err
	}
	return pin, r.restore(ctx, j, root.Digest)
}

// restore brings back the files of an image that the disk has lost, removed by
// hand or missing in a backup. Without any it makes no request.
func (r *jobs) restore(ctx context.Context, j *job, d digest.Digest) error {
	lost, err := r.store.Lost(ctx, d)
	if err != nil || len(lost) == 0 {
		return err
	}
	r.start(j, d)
	repo, _ := store.Locate(j.name)
	if err := r.upstream.Restore(ctx, repo, lost, &j.progress); err != nil {
		return fmt.Errorf("the store has lost %s of it: %w", plural(len(lost), "file", "files"), err)
	}
	j.lost += len(lost)
	if j.outcome == outcomeUnchanged {
		j.outcome = outcomeRepaired
	}
	return nil
}

// resolve asks upstream what the name means now, and pins that.
func (r *jobs) resolve(ctx context.Context, j *job, pin store.Pin) (store.Pin, error) {
	root, err := r.meaning(ctx, j)
	if err != nil {
		return pin, err
	}
	if j.was = pin.Digest; j.was == "" {
		j.was = j.locked.Digest
	}
	switch {
	case root.Digest == pin.Digest && root.Digest == j.locked.Digest:
		j.outcome = outcomeUnchanged
	case root.Digest == pin.Digest:
		j.outcome = outcomeLocked
	case j.was != "" && j.was != root.Digest:
		j.outcome = outcomeMoved
	default:
		j.outcome = outcomePinned
	}
	if j.outcome != outcomeUnchanged {
		r.start(j, root.Digest)
	}
	// Also if it is pinned already: there may be new signatures.
	return r.fetch(ctx, j, root, j.update)
}

// explain puts an error into the words of a sync.
func (r *jobs) explain(j *job, err error) error {
	var disagree *store.ConflictError
	switch {
	case !errors.As(err, &disagree):
		return err
	case j.locked.Digest != "":
		return fmt.Errorf("%s locks %s, the store has pinned %s", r.lockPath, j.locked.Digest, disagree.Pinned.Digest)
	}
	return fmt.Errorf("another mirrorctl pinned %s in the meantime", disagree.Pinned.Digest)
}

// hint is what to do about a failure that only sync can explain.
func (r *jobs) hint(j *job, err error) string {
	short := familiar(j.name.String())
	var disagree *store.ConflictError
	switch {
	case errors.As(err, &disagree) && j.locked.Digest != "":
		return fmt.Sprintf("run mirrorctl sync --update=%s to lock what the store has, or mirrorctl rm %s and sync again to pin what is locked", short, short)
	case errors.As(err, &disagree):
		return "run the command again to lock that"
	case errors.Is(err, upstream.ErrNotFound) && j.locked.Digest != "" && !j.update:
		return fmt.Sprintf("%s locks %s, which is gone upstream: copy it from a machine that has it, or run mirrorctl sync --update=%s to lock what the tag means now",
			r.lockPath, j.locked.Digest, short)
	}
	return ""
}

// lockEntry is the lock's view of a pin.
func lockEntry(name reference.Named, pin store.Pin) lockfile.Image {
	return lockfile.Image{
		Name: name.String(), Digest: pin.Digest, MediaType: pin.MediaType, Size: pin.Size,
		Platforms: lockfile.PlatformKeys(pin.Platforms),
	}
}

// line is what is said of a finished image, "" for one that needed nothing.
func (j *job) line() string {
	switch j.outcome {
	case outcomeFailed, outcomeConflict:
		return j.err.Error()
	case outcomeUnchanged:
		return ""
	case outcomeLocked:
		return fmt.Sprintf("%s: locked %s, as the store has it%s", j.name, short(j.entry.Digest), j.broughtBack())
	}
	transferred := ""
	if n := j.progress.Transferred.Load(); n > 0 {
		transferred = ", " + size(n) + " transferred"
	}
	details := fmt.Sprintf("%s (%s, %s%s)%s", short(j.entry.Digest), plural(len(j.entry.Platforms), "platform", "platforms"), size(j.entry.Size), transferred, j.broughtBack())
	if j.outcome == outcomeMoved {
		return fmt.Sprintf("%s: moved from %s to %s", j.name, short(j.was), details)
	}
	return fmt.Sprintf("%s: %s %s", j.name, j.outcome, details)
}

func (j *job) broughtBack() string {
	if j.lost == 0 {
		return ""
	}
	return "; brought back " + plural(j.lost, "file", "files") + " that the store had lost"
}

// MarshalJSON is how --json shows a job.
func (j *job) MarshalJSON() ([]byte, error) {
	v := struct {
		Name        string        `json:"name"`
		Outcome     outcome       `json:"outcome"`
		Digest      digest.Digest `json:"digest,omitempty"`
		Was         digest.Digest `json:"was,omitempty"`
		Size        int64         `json:"size,omitempty"`
		Transferred int64         `json:"transferred"`
		Error       string        `json:"error,omitempty"`
	}{Name: j.name.String(), Outcome: j.outcome, Digest: j.entry.Digest, Size: j.entry.Size, Transferred: j.progress.Transferred.Load()}
	if j.outcome == outcomeMoved {
		v.Was = j.was
	}
	if j.err != nil {
		v.Error = j.err.Error()
	}
	return json.Marshal(v)
}

// result is the exit of a sync or add: what failed, summed up.
func result(all []*job, found discovery) error {
	code := 0
	for _, j := range all {
		switch {
		case errors.Is(j.err, store.ErrDamaged), errors.Is(j.err, store.ErrIndexDamaged):
			code = exitIntegrity
		case j.outcome == outcomeConflict && code != exitIntegrity:
			code = exitConflict
		case j.outcome == outcomeFailed && code == 0:
			code = exitSome
		}
	}
	if len(found.failed) > 0 && code == 0 {
		if code = failedFilesCode(found); len(all) > 0 {
			code = exitSome
		}
	}
	if code == 0 {
		return nil
	}
	return &codedError{code: code, err: errSaid}
}

// summary counts outcomes: "5 images: 3 unchanged, 1 pinned, 1 failed".
func summary(all []*job) string {
	counts := map[outcome]int{}
	for _, j := range all {
		counts[j.outcome]++
	}
	var parts []string
	for _, o := range []outcome{outcomeUnchanged, outcomePinned, outcomeFetched, outcomeLocked, outcomeMoved, outcomeRepaired, outcomeConflict, outcomeFailed} {
		if n := counts[o]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, o))
		}
	}
	if len(all) == 0 {
		return "no images needed"
	}
	return plural(len(all), "image", "images") + ": " + strings.Join(parts, ", ")
}
