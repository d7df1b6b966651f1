package lockfile

import (
	"fmt"

	"github.com/opencontainers/go-digest"
)

// Action is what a sync does for one image.
type Action int

const (
	// Nothing: locked and pinned. No request is made.
	Nothing Action = iota
	// PinLocked: the store has the locked digest under another name of its
	// repository, only the pin is missing. No request is made.
	PinLocked
	// FetchLocked: fetch what is missing of the locked digest, by digest, and
	// pin it.
	FetchLocked
	// LockPinned: not locked, but the store has a pin: lock that digest. No
	// request is made.
	LockPinned
	// FetchPinned: not locked, but a server that pulls through has decided the
	// digest and is fetching it: fetch what is missing of it, and lock it.
	FetchPinned
	// Resolve: ask the upstream what the name is, then fetch, pin and lock it.
	// With update this is where a pin may move.
	Resolve
	// Conflict: lock and store name different digests; the user decides.
	Conflict
)

// String returns the name of the action, for messages of tests.
func (a Action) String() string {
	names := [...]string{"Nothing", "PinLocked", "FetchLocked", "LockPinned", "FetchPinned", "Resolve", "Conflict"}
	if a < 0 || int(a) >= len(names) {
		return fmt.Sprintf("Action(%d)", int(a))
	}
	return names[a]
}

// Decide tells what a sync does for an image. locked is the digest in the lock
// and pinned the one in the store, decided or complete, each empty if there is
// none. complete tells
// whether the image's repository has that digest (with both, the locked one)
// pinned under some name: then the index knows all of it. update asks to resolve
// the image again, whatever is locked or pinned.
//
// It decides by what the index says. Files that the disk has lost all the same
// are brought back whatever the action is.
func Decide(locked, pinned digest.Digest, complete, update bool) Action {
	switch {
	case update:
		return Resolve
	case locked == "" && pinned == "":
		return Resolve
	case locked == "" && !complete:
		return FetchPinned
	case locked == "":
		return LockPinned
	case pinned != "" && pinned != locked:
		return Conflict
	case !complete:
		return FetchLocked
	case pinned == "":
		return PinLocked
	default:
		return Nothing
	}
}
