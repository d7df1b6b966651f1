package upstream

import (
	"errors"
	"io"
	"sync/atomic"
)

// Progress counts what happens to one image while it is fetched. A display
// reads it as often as it likes; it is safe for concurrent use. The totals grow
// while manifests are being read.
type Progress struct {
	Bytes       atomic.Int64 // here by now, of all content of the image
	TotalBytes  atomic.Int64
	Blobs       atomic.Int64 // complete by now
	TotalBlobs  atomic.Int64
	Transferred atomic.Int64 // bytes that came over the network for this image
}

func (p *Progress) expect(size int64) {
	p.TotalBlobs.Add(1)
	p.TotalBytes.Add(size)
}

// found counts a blob that needs no transfer.
func (p *Progress) found(size int64) {
	p.Blobs.Add(1)
	p.Bytes.Add(size)
}

// counter counts what is read through it.
type counter struct {
	r           io.Reader
	transferred *atomic.Int64
	received    *atomic.Int64 // the same of all images
	bytes       *atomic.Int64 // counted there too, if not nil,
	left        int64         // at most so many
	err         error         // what ended the reading, except the ordinary end
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.transferred.Add(int64(n))
	c.received.Add(int64(n))
	if c.bytes != nil {
		wanted := min(int64(n), c.left)
		c.bytes.Add(wanted)
		c.left -= wanted
	}
	if err != nil && !errors.Is(err, io.EOF) {
		c.err = err
	}
	return n, err
}
