//go:build e2e

package e2e

import (
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// disk is a model of a file system whose machine may lose its power. It knows
// what programs see, and what of it is durable: the content of a file up to its
// last fsync, and changes of names up to the last fsync of a folder that they
// touch. A rename is atomic, as on every journaling file system, but nothing else
// is in any order: of what is not durable each write, in sectors, and each change
// of a name may or may not survive (Pillai et al., "All File Systems Are Not
// Created Equal", OSDI 2014).
type disk struct {
	root    *node
	pending []*change // of names, not durable, in their order
}

// node is a file or a folder.
type node struct {
	folder  bool
	content []byte
	safe    []byte   // the durable content
	writes  []writer // since the last fsync
	written int      // writes so far
	names   map[string]*node
	kept    map[string]*node // the durable names
}

// writer changes content: it writes bytes, or sets the size.
type writer struct {
	offset int64
	bytes  []byte
	resize bool // to offset
}

// place is a name in a folder.
type place struct {
	folder *node
	name   string
}

// change puts nodes at places at once; nil removes what is there.
type change struct{ at map[place]*node }

func newFolder() *node {
	return &node{folder: true, names: map[string]*node{}, kept: map[string]*node{}}
}

// newDisk is a disk that has a folder's content, durable.
func newDisk(root string) (*disk, error) {
	var read func(path string) (*node, error)
	read = func(path string) (*node, error) {
		n := newFolder()
		entries, err := os.ReadDir(path)
		for _, entry := range entries {
			child, err := &node{}, error(nil)
			if below := filepath.Join(path, entry.Name()); entry.IsDir() {
				child, err = read(below)
			} else if child.content, err = os.ReadFile(below); err == nil {
				child.safe = child.content
			}
			if err != nil {
				return nil, err
			}
			n.names[entry.Name()], n.kept[entry.Name()] = child, child
		}
		return n, err
	}
	n, err := read(root)
	return &disk{root: n}, err
}

// find returns the place of a path relative to the root, whose last element need
// not be there.
func (d *disk) find(path string) (place, error) {
	elements := strings.Split(filepath.Clean(path), string(filepath.Separator))
	folder := d.root
	for _, name := range elements[:len(elements)-1] {
		next := folder.names[name]
		if next == nil || !next.folder {
			return place{}, &fs.PathError{Op: "find", Path: path, Err: fs.ErrNotExist}
		}
		folder = next
	}
	return place{folder, elements[len(elements)-1]}, nil
}

func (p place) node() *node { return p.folder.names[p.name] }

// put makes a change of names, all of it at once.
func (d *disk) put(at map[place]*node) {
	for p, n := range at {
		p.folder.set(p.name, n)
	}
	d.pending = append(d.pending, &change{at})
}

func (n *node) set(name string, child *node) { setName(n.names, name, child) }

func setName(names map[string]*node, name string, n *node) {
	if n == nil {
		delete(names, name)
	} else {
		names[name] = n
	}
}

// write changes the content of a file.
func (n *node) write(w writer) {
	n.content = w.apply(slices.Clone(n.content))
	n.writes = append(n.writes, w)
	n.written++
}

func (w writer) apply(content []byte) []byte {
	end := w.offset
	if !w.resize {
		end += int64(len(w.bytes))
	}
	if grow := end - int64(len(content)); grow > 0 {
		content = append(content, make([]byte, grow)...)
	}
	if w.resize {
		return content[:w.offset]
	}
	copy(content[w.offset:], w.bytes)
	return content
}

// sync makes durable what fsync does: the content of a file as it was when that
// began, after so many writes, or the names in a folder.
func (d *disk) sync(n *node, written int, content []byte) {
	if !n.folder {
		if since := n.written - written; since <= len(n.writes) {
			n.safe, n.writes = content, n.writes[len(n.writes)-since:]
		}
		return
	}
	var rest []*change
	for _, c := range d.pending {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(c.at)), func(p place) bool { return p.folder == n }) {
			rest = append(rest, c)
			continue
		}
		for p, child := range c.at {
			setName(p.folder.kept, p.name, child)
			for _, earlier := range rest { // which this one has overtaken
				delete(earlier.at, p)
			}
		}
	}
	d.pending = rest
}

// cut is what of the things that are not durable survives a power cut.
type cut struct {
	names, bytes func() bool
}

// cuts are those to try at each moment: nothing survives; all does, which is what
// kill -9 leaves; the names of files do without what is in them, and the other way
// round; and any part of it.
func cuts(random *rand.Rand) map[string]cut {
	yes, no := func() bool { return true }, func() bool { return false }
	some := func() bool { return random.IntN(2) == 0 }
	return map[string]cut{
		"nothing": {no, no}, "everything": {yes, yes}, "names": {yes, no}, "bytes": {no, yes}, "some": {some, some},
	}
}

// sector is what a disk writes whole or not at all, in bytes.
const sector = 512

// survivor is what is left of a file.
func (n *node) survivor(c cut) []byte {
	content := slices.Clone(n.safe)
	for _, w := range n.writes {
		if w.resize {
			if c.bytes() {
				content = w.apply(content)
			}
			continue
		}
		for at := int64(0); at < int64(len(w.bytes)); {
			end := min((w.offset+at)/sector*sector+sector-w.offset, int64(len(w.bytes)))
			if c.bytes() {
				content = writer{offset: w.offset + at, bytes: w.bytes[at:end]}.apply(content)
			}
			at = end
		}
	}
	return content
}

// lay writes what survives a power cut into a folder.
func (d *disk) lay(root string, c cut) error {
	names := map[*node]map[string]*node{}
	of := func(n *node) map[string]*node {
		if names[n] == nil {
			names[n] = maps.Clone(n.kept)
		}
		return names[n]
	}
	for _, change := range d.pending {
		if c.names() {
			for p, n := range change.at {
				setName(of(p.folder), p.name, n)
			}
		}
	}
	var write func(n *node, path string) error
	write = func(n *node, path string) error {
		if !n.folder {
			return os.WriteFile(path, n.survivor(c), 0o644)
		}
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		for name, child := range of(n) {
			if err := write(child, filepath.Join(path, name)); err != nil {
				return err
			}
		}
		return nil
	}
	return write(d.root, root)
}
