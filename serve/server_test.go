package serve

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// slowBlob is a blob whose last byte comes when gate is closed.
type slowBlob struct {
	*bytes.Reader
	size int64
	gate <-chan struct{}
}

func (b *slowBlob) Read(p []byte) (int, error) {
	if b.Len() <= 1 {
		<-b.gate
	} else if len(p) >= b.Len() {
		p = p[:b.Len()-1]
	}
	return b.Reader.Read(p)
}

func (b *slowBlob) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, struct{ io.Reader }{b}) }
func (b *slowBlob) Close() error                       { return nil }

type run struct {
	stopped Stopped
	err     error
}

// startSlow runs a server with one slow blob and returns when a client has got
// the beginning of it.
func startSlow(t *testing.T, grace time.Duration, gate <-chan struct{}) (address string, stop context.CancelFunc, body io.ReadCloser, ended <-chan run) {
	t.Helper()
	content := newMemory()
	data := bytes.Repeat([]byte("x"), 1<<20)
	layer := content.addBlob(data)
	content.open = func(data []byte) (io.ReadSeekCloser, int64) {
		return &slowBlob{bytes.NewReader(data), int64(len(data)), gate}, int64(len(data))
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan run, 1)
	go func() {
		server := &Server{Handler: newHandler(t, content, Options{}), Grace: grace}
		stopped, err := server.Run(ctx, ln)
		done <- run{stopped, err}
	}()
	address = ln.Addr().String()
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	res, err := client.Get("http://" + address + "/v2/a/blobs/" + layer.String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(res.Body, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	return address, stop, res.Body, done
}

// refused waits until new connections are.
func refused(t *testing.T, address string) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; {
		conn, err := net.Dial("tcp", address)
		if errors.Is(err, syscall.ECONNREFUSED) {
			return
		}
		if err == nil {
			conn.Close()
		}
		if time.Now().After(end) {
			t.Fatalf("still no refusal: %v", err)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestGracefulStop(t *testing.T) {
	gate := make(chan struct{})
	address, stop, body, ended := startSlow(t, 0, gate)
	defer body.Close()
	stop()
	refused(t, address)
	select {
	case <-ended:
		t.Fatal("the server did not wait for the download")
	case <-time.After(50 * time.Millisecond):
	}
	close(gate)
	rest, err := io.ReadAll(body)
	if err != nil || len(rest) != 1<<20-1000 {
		t.Errorf("got %d bytes: %v", len(rest), err)
	}
	end := <-ended
	if end.err != nil || end.stopped.InFlight != 1 || end.stopped.Cut != 0 || end.stopped.Took <= 0 {
		t.Errorf("got %+v", end)
	}
}

func TestStopCuts(t *testing.T) {
	gate := make(chan struct{})
	_, stop, body, ended := startSlow(t, 50*time.Millisecond, gate)
	defer body.Close()
	stop()
	if _, err := io.ReadAll(body); err == nil {
		t.Error("the client sees a complete answer")
	}
	close(gate) // the handler may end now
	end := <-ended
	if end.err != nil || end.stopped.InFlight != 1 || end.stopped.Cut != 1 || end.stopped.Took < 50*time.Millisecond {
		t.Errorf("got %+v", end)
	}
}

// TestStopEndsContexts holds that a handler that waits for its context is let
// go at the cut, not at the stop.
func TestStopEndsContexts(t *testing.T) {
	started := make(chan struct{})
	var ended context.Context
	server := &Server{Grace: 50 * time.Millisecond, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(started)
		<-r.Context().Done()
		ended = r.Context()
	})}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		if res, err := http.Get("http://" + ln.Addr().String()); err == nil {
			res.Body.Close()
		}
	}()
	go func() {
		<-started
		stop()
	}()
	stopped, err := server.Run(ctx, ln)
	if err != nil || stopped.Cut != 1 || stopped.Took < 50*time.Millisecond {
		t.Errorf("got %+v, %v", stopped, err)
	}
	if ended == nil {
		t.Error("the handler has not ended")
	}
}

func TestStopIdle(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan run, 1)
	go func() {
		stopped, err := (&Server{Handler: newHandler(t, newMemory(), Options{})}).Run(ctx, ln)
		done <- run{stopped, err}
	}()
	res, err := http.Get("http://" + ln.Addr().String() + "/v2/")
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, res.Body)
	res.Body.Close() // the connection stays open, idle
	stop()
	if end := <-done; end.err != nil || end.stopped.InFlight != 0 || end.stopped.Took >= defaultGrace {
		t.Errorf("got %+v", end)
	}
}

func TestRunListenerFails(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	_, err = (&Server{Handler: http.NotFoundHandler()}).Run(t.Context(), ln)
	if !errors.Is(err, net.ErrClosed) || !strings.Contains(err.Error(), ln.Addr().String()) {
		t.Errorf("got %v", err)
	}
}
