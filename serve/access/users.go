package access

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/crypto/bcrypt"
)

const (
	// maxCost bounds what a check of one password may cost: about two seconds.
	maxCost = 15
	// maxRemembered is how many checked logins are kept.
	maxRemembered = 4096
	// maxWaiting is how many checks may wait for their turn.
	maxWaiting = 64
)

// Users are the lines of an htpasswd file, and the logins that were checked against
// them. It is safe for concurrent use.
//
// bcrypt is slow on purpose, and a pull is many requests: what it said, also of a
// wrong password, is remembered in memory under a keyed hash of user and password.
// Only a few checks run at a time, so that guessing leaves processor time for those
// who have been checked.
type Users struct {
	hashes map[string][]byte
	decoy  []byte // for users that there are not: they take as long
	key    [32]byte

	mu         sync.Mutex
	remembered map[[sha256.Size]byte]bool

	turns   chan struct{}
	waiting chan struct{}
}

// ParseUsers reads an htpasswd file as htpasswd -B writes it; name is the file's in
// messages. Empty lines and comments with # are passed over. The error joins all
// mistakes, each with its line: another hash than bcrypt's, a user who is there
// twice, no user at all. It quotes no hash.
func ParseUsers(name string, text []byte) (*Users, error) {
	parallel := max(1, runtime.GOMAXPROCS(0)/2)
	u := &Users{
		hashes:     map[string][]byte{},
		remembered: map[[sha256.Size]byte]bool{},
		turns:      make(chan struct{}, parallel),
		waiting:    make(chan struct{}, parallel+maxWaiting),
	}
	if _, err := rand.Read(u.key[:]); err != nil {
		return nil, err
	}
	var errs []error
	cost := bcrypt.DefaultCost
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		user, hash, err := parseUser(line)
		if _, twice := u.hashes[user]; err == nil && twice {
			err = fmt.Errorf("user %s is there twice", user)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %w", name, n, err))
			continue
		}
		u.hashes[user] = hash
		cost, _ = bcrypt.Cost(hash) // parseUser has looked at it
	}
	if err := lines.Err(); err != nil {
		errs = append(errs, fmt.Errorf("%s: %w", name, err))
	}
	if len(u.hashes) == 0 && len(errs) == 0 {
		errs = append(errs, fmt.Errorf("%s: no users; htpasswd -B adds one", name))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	var err error
	u.decoy, err = bcrypt.GenerateFromPassword(u.key[:], cost)
	return u, err
}

func parseUser(line string) (user string, hash []byte, err error) {
	user, text, ok := strings.Cut(line, ":")
	switch {
	case !ok || user == "" || !utf8.ValidString(user):
		return "", nil, errors.New("must be USER:HASH")
	case !strings.HasPrefix(text, "$2"):
		return "", nil, fmt.Errorf("user %s: the hash is not one of bcrypt; make it with htpasswd -B", user)
	}
	cost, err := bcrypt.Cost([]byte(text))
	switch {
	case err != nil || len(text) != 60:
		return "", nil, fmt.Errorf("user %s: the bcrypt hash is damaged", user)
	case cost > maxCost:
		return "", nil, fmt.Errorf("user %s: bcrypt's cost is %d, more than %d: each login would take seconds", user, cost, maxCost)
	}
	return user, []byte(text), nil
}

// Has reports whether there is such a user.
func (u *Users) Has(user string) bool { return u.hashes[user] != nil }

// errBusy means that too many logins wait to be checked.
var errBusy = errors.New("too many logins at a time")

// Check reports whether the password is the user's. The error is errBusy, or that of
// the context.
func (u *Users) Check(ctx context.Context, user, password string) (bool, error) {
	mac := hmac.New(sha256.New, u.key[:])
	fmt.Fprintf(mac, "%d:%s%s", len(user), user, password) // a hash does not fail
	var key [sha256.Size]byte
	mac.Sum(key[:0])
	if right, ok := u.recall(key); ok {
		return right, nil
	}
	select {
	case u.waiting <- struct{}{}:
		defer func() { <-u.waiting }()
	default:
		return false, errBusy
	}
	select {
	case u.turns <- struct{}{}:
		defer func() { <-u.turns }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if right, ok := u.recall(key); ok {
		return right, nil // another request of the same client had it checked
	}
	hash, known := u.hashes[user]
	if !known {
		hash = u.decoy
	}
	// What bcrypt cannot take, more than 72 bytes, is nobody's password.
	right := bcrypt.CompareHashAndPassword(hash, []byte(password)) == nil && known
	u.remember(key, right)
	return right, nil
}

func (u *Users) recall(key [sha256.Size]byte) (right, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	right, ok = u.remembered[key]
	return right, ok
}

func (u *Users) remember(key [sha256.Size]byte, right bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.remembered) >= maxRemembered {
		// Wrong ones are many when somebody guesses.
		maps.DeleteFunc(u.remembered, func(_ [sha256.Size]byte, right bool) bool { return !right })
	}
	if len(u.remembered) >= maxRemembered {
		clear(u.remembered)
	}
	u.remembered[key] = right
}
