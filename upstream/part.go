package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// part is a range of a blob that arrives before its turn.
type part struct {
	from, to int64
	cancel   context.CancelFunc
	// The rest is guarded by ahead.mu, but for bytes in blocks beyond here.
	blocks   []*block
	here     int64 // bytes
	accepted bool  // the server sends what was asked for
	ended    bool
	dropped  bool // nobody will read it
	err      error
}

// fetch brings a part.
func (a *ahead) fetch(ctx context.Context, p *part) {
	r := a.client.newRetry(a.endpoint)
	r.tries = partTries
	err := a.receive(ctx, p)
	for err != nil && !errors.Is(err, errRange) && !errors.Is(err, ErrRateLimited) {
		if err = r.pause(ctx, err); err != nil {
			break
		}
		err = a.receive(ctx, p)
	}
	defer p.cancel()
	a.endpoint.lines.leave()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.running--
	p.ended, p.err = true, err
	if p.dropped {
		a.free(p)
	} else if err != nil {
		a.failed = true
		if errors.Is(err, errRange) {
			a.endpoint.whole.Store(true)
		}
		if ctx.Err() == nil {
			a.client.log.Info("a part did not come", "blob", a.desc.Digest, "at", p.from, "from", a.endpoint.String(), "err", err)
		}
	}
	a.spawn()
	a.changed.Broadcast()
}

// receive asks for what is missing of a part and takes it in.
func (a *ahead) receive(ctx context.Context, p *part) error {
	ex := &exchange{from: p.from + p.here, to: p.to}
	body, err := a.open(ctx, ex)
	if err != nil {
		return classifyPart(ctx, a.endpoint, ex, err)
	}
	defer body.Close()
	if total := ex.last().total; total >= 0 && total != a.desc.Size {
		return errRange
	}
	a.mu.Lock()
	p.accepted = true
	a.mu.Unlock()
	from := &polite{body, ctx, a.client, a.flight, nil}
	var over [1]byte
	for {
		buf := over[:]
		if at := p.here; at < p.to-p.from {
			if buf = a.room(ctx, p, at); buf == nil {
				return ctx.Err()
			}
		}
		n, err := from.Read(buf)
		if n > 0 && len(buf) == 1 && p.here == p.to-p.from {
			return errRange // more than asked for
		}
		a.mu.Lock()
		p.here += int64(n)
		a.measure(n)
		a.changed.Broadcast()
		a.mu.Unlock()
		switch {
		case err != nil && p.here == p.to-p.from:
			return nil
		case errors.Is(err, io.EOF):
			return brokeOff(a.endpoint.String(), io.ErrUnexpectedEOF)
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return brokeOff(a.endpoint.String(), err)
		}
	}
}

// room returns memory for the bytes of a part from at on. It waits until there is
// some; the part whose turn it is always gets a block, so that the blob goes on
// whoever has the rest. It returns nil when ctx ends.
func (a *ahead) room(ctx context.Context, p *part, at int64) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	for int(at/blockSize) == len(p.blocks) {
		counted := a.client.ahead.TryAcquire(blockSize)
		if counted || a.first == nil && a.pos == p.from+at {
			b := blocks.Get().(*block)
			b.counted = counted
			p.blocks = append(p.blocks, b)
			break
		}
		if ctx.Err() != nil {
			return nil
		}
		a.changed.Wait()
	}
	in := at % blockSize
	return p.blocks[at/blockSize].bytes[in:min(blockSize, in+p.to-p.from-at)]
}

// open asks for a part where the first request was answered in the end, or from
// the beginning if that is refused there by now.
func (a *ahead) open(ctx context.Context, ex *exchange) (io.ReadCloser, error) {
	req := a.request.Clone(withExchange(ctx, ex))
	req.Response = nil
	direct := &http.Client{Transport: a.endpoint.tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := direct.Do(req)
	if err != nil {
		return nil, err
	}
	switch status := ex.last().status; {
	case status == http.StatusPartialContent:
		return resp.Body, nil
	case status == http.StatusTooManyRequests || status >= http.StatusInternalServerError:
		return nil, errors.Join(fmt.Errorf("answered %d", status), resp.Body.Close())
	}
	_ = resp.Body.Close() // a login or a signature has ended
	body, _, err := a.client.open(withExchange(ctx, ex), a.endpoint, a.flight.repo, a.desc.Digest)
	return body, err
}

// classifyPart is classify for what a part is asked by.
func classifyPart(ctx context.Context, e *endpoint, ex *exchange, err error) error {
	if errors.Is(err, errRange) {
		return errRange
	}
	return classify(ctx, e, ex, err)
}
