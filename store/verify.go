package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Damage is content that is not what the index says.
type Damage struct {
	v1.Descriptor        // digest and size are what it should have
	Problem       string // missing, truncated, corrupt, corrupt in the index, unreadable: ..., not in the index
	Pins          []Pin  // the images that it hurts
	Kept          error  // why its file could not be moved away, so that nobody serves it; nil if that was not needed
}

// Checked sums up a verification.
type Checked struct {
	Blobs  int
	Bytes  int64
	Damage []Damage
}

// Verify re-hashes the files of everything that the given pins reach, or of
// everything in the store if there are none, and checks that every edge leads
// to a blob. report, if not nil, is called after each blob with its size.
// Damage is in the result, not in the error, which is ErrIndexDamaged for an index
// that contradicts itself. A damaged file is moved to damaged/,
// so that no process serves it from then on.
func (s *Store) Verify(ctx context.Context, pins []Pin, report func(int64)) (Checked, error) {
	var err error
	if len(pins) == 0 {
		err = s.checkIndex(ctx)
	}
	var blobs []v1.Descriptor
	var damage []Damage
	if err == nil {
		blobs, damage, err = s.toVerify(ctx, pins)
	}
	if err != nil {
		return Checked{}, fmt.Errorf("verify: %w", err)
	}
	result := Checked{Damage: damage}
	for _, b := range blobs {
		if err := ctx.Err(); err != nil {
			return result, err
		}
		d, err := s.examine(ctx, b, wholeFile)
		if err != nil {
			return result, err
		}
		if d != nil {
			result.Damage = append(result.Damage, *d)
		}
		result.Blobs++
		result.Bytes += b.Size
		if report != nil {
			report(b.Size)
		}
	}
	for i := range result.Damage {
		if result.Damage[i].Pins, err = s.PinsReaching(ctx, result.Damage[i].Digest); err != nil {
			return result, err
		}
	}
	return result, nil
}

// toVerify lists the blobs to look at, and the edges that lead nowhere.
func (s *Store) toVerify(ctx context.Context, pins []Pin) ([]v1.Descriptor, []Damage, error) {
	dangling := `SELECT DISTINCT child, size FROM edge WHERE kind <> 'foreign' AND NOT EXISTS (SELECT 1 FROM blob WHERE digest = child)`
	lost, err := list(ctx, s.reader, scanDescriptor, dangling)
	if err != nil {
		return nil, nil, err
	}
	var damage []Damage
	if len(pins) == 0 {
		for _, d := range lost {
			damage = append(damage, Damage{Descriptor: d, Problem: "not in the index"})
		}
		blobs, err := list(ctx, s.reader, scanDescriptor, "SELECT digest, size FROM blob ORDER BY digest")
		return blobs, damage, err
	}
	var blobs []v1.Descriptor
	seen := map[digest.Digest]bool{}
	for _, pin := range pins {
		reach, err := reachable(ctx, s.reader, pin.Digest)
		if err != nil {
			return nil, nil, err
		}
		for d, size := range reach {
			if !seen[d] {
				seen[d] = true
				blobs = append(blobs, v1.Descriptor{Digest: d, Size: size})
			}
		}
	}
	for _, d := range lost {
		hurt, err := s.PinsReaching(ctx, d.Digest)
		if err != nil {
			return nil, nil, err
		}
		for _, pin := range pins {
			if containsPin(hurt, pin) {
				damage = append(damage, Damage{Descriptor: d, Problem: "not in the index"})
				break
			}
		}
	}
	slices.SortFunc(blobs, func(a, b v1.Descriptor) int { return cmp.Compare(a.Digest, b.Digest) })
	return blobs, damage, nil
}

func scanDescriptor(rows *sql.Rows) (d v1.Descriptor, err error) {
	return d, rows.Scan(&d.Digest, &d.Size)
}

func containsPin(pins []Pin, pin Pin) bool {
	for _, p := range pins {
		if p.Name() == pin.Name() {
			return true
		}
	}
	return false
}

// examine looks at one blob, as read gives its file, and takes what is damaged out
// of service. It returns nil if nothing is wrong, or it was removed meanwhile.
func (s *Store) examine(ctx context.Context, b v1.Descriptor, read func(*os.File) io.Reader) (*Damage, error) {
	problem, _, err := s.check(ctx, b, read)
	if err != nil || problem == "" {
		return nil, err
	}
	// It may have been removed meanwhile, which is no damage, and fetched again.
	if there, err := s.Has(ctx, b.Digest); err != nil || !there {
		return nil, err
	}
	problem, file, err := s.check(ctx, b, read)
	if err != nil || problem == "" {
		return nil, err
	}
	d := &Damage{Descriptor: b, Problem: problem}
	if file != nil {
		d.Kept = s.setAside(b.Digest, file)
	}
	return d, nil
}

// check returns what is wrong with a blob, or "": with its file, which is then
// returned too if it could be opened, and with the copy in the index if it is a
// manifest.
func (s *Store) check(ctx context.Context, b v1.Descriptor, read func(*os.File) io.Reader) (string, fs.FileInfo, error) {
	problem, file := s.checkFile(ctx, b, read)
	if err := ctx.Err(); err != nil || problem != "" {
		return problem, file, err
	}
	var content []byte
	err := s.reader.QueryRowContext(ctx, "SELECT bytes FROM manifest WHERE "+copyOf, b.Digest.String()).Scan(&content)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return "", nil, nil
	case err != nil:
		return "", nil, err
	case b.Digest.Algorithm().FromBytes(content) != b.Digest:
		return "corrupt in the index", nil, nil
	}
	return "", nil, nil
}

func wholeFile(f *os.File) io.Reader { return f }

// checkFile returns what is wrong with the file of a blob, or "", and the file if
// it could be opened.
func (s *Store) checkFile(ctx context.Context, b v1.Descriptor, read func(*os.File) io.Reader) (string, fs.FileInfo) {
	f, err := os.Open(s.blobPath(b.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		return s.missing(b.Digest), nil
	}
	if err != nil {
		return "unreadable: " + err.Error(), nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "unreadable: " + err.Error(), nil
	}
	h := b.Digest.Algorithm().Hash()
	n, err := hashFile(ctx, h, read(f))
	switch {
	case err != nil:
		return "unreadable: " + err.Error(), info
	case n < b.Size:
		return fmt.Sprintf("truncated: %d of %d bytes", n, b.Size), info
	case n > b.Size:
		return fmt.Sprintf("too long: %d instead of %d bytes", n, b.Size), info
	case fmt.Sprintf("%x", h.Sum(nil)) != b.Digest.Encoded():
		return "corrupt", info
	}
	return "", nil
}

// missing says that there is no file for a digest.
func (s *Store) missing(d digest.Digest) string {
	if _, err := os.Lstat(s.damagedPath(d)); err == nil {
		return "missing: the file was found damaged and moved to " + s.damagedPath(d)
	}
	return "missing"
}

// PinsReaching returns the pins that need a digest, whatever it is the digest of.
func (s *Store) PinsReaching(ctx context.Context, d digest.Digest) ([]Pin, error) {
	return selectPins(ctx, s.reader, "WHERE pin.digest IN ("+needing+" SELECT digest FROM up)", d.String())
}

// repairManifest makes the copy in the index, if the blob is a manifest, what
// its file is.
func (s *Store) repairManifest(ctx context.Context, desc v1.Descriptor) error {
	if desc.Size > MaxManifestSize {
		return nil
	}
	content, err := s.ReadBlob(ctx, desc.Digest, MaxManifestSize)
	if err != nil {
		return err
	}
	return s.update(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "UPDATE manifest SET bytes = ?2 WHERE "+copyOf, desc.Digest.String(), content)
		return err
	})
}
