package faults

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// once breaks the first request only.
func once(f Fault) Fault {
	return func(a *Answer) {
		if a.Nth == 0 {
			f(a)
		}
	}
}

// after breaks all requests behind the first n.
func after(n int, f Fault) Fault {
	return func(a *Answer) {
		if a.Nth >= n {
			f(a)
		}
	}
}

// heads breaks HEAD requests only.
func heads(f Fault) Fault {
	return func(a *Answer) {
		if a.Request.Method == http.MethodHead {
			f(a)
		}
	}
}

// both breaks an answer in several ways.
func both(all ...Fault) Fault {
	return func(a *Answer) {
		for _, f := range all {
			f(a)
		}
	}
}

func digestOf(text string) string { return digest.FromString(text).String() }

// raw sends bytes in the place of an answer.
func raw(text string) Fault {
	return func(a *Answer) {
		a.Send = func(_ *Answer, conn *net.TCPConn) error {
			_, err := io.WriteString(conn, text)
			return err
		}
	}
}

// head is the beginning of an answer as it goes over the line.
func (a *Answer) head() []byte {
	var text bytes.Buffer
	fmt.Fprintf(&text, "HTTP/1.1 %d %s\r\n", a.Status, http.StatusText(a.Status))
	a.Header.Set("Connection", "close")
	if a.Unsized {
		a.Header.Del("Content-Length")
	} else if a.Header.Get("Content-Length") == "" {
		a.Header.Set("Content-Length", fmt.Sprint(len(a.Body)))
	}
	_ = a.Header.Write(&text) // to memory
	text.WriteString("\r\n")
	return text.Bytes()
}

// begin sends the answer up to byte n of the body, from the end if it is
// negative, and reports whether that went well.
func (a *Answer) begin(conn net.Conn, n int) error {
	if n < 0 {
		n += len(a.Body)
	}
	_, err := conn.Write(append(a.head(), a.Body[:min(max(n, 0), len(a.Body))]...))
	return err
}

// cut closes the connection after n bytes of the body.
func cut(n int) Fault {
	return func(a *Answer) {
		a.Send = func(a *Answer, conn *net.TCPConn) error { return a.begin(conn, n) }
	}
}

// reset is cut with a reset in the place of an orderly end.
func reset(n int) Fault {
	return func(a *Answer) {
		a.Send = func(a *Answer, conn *net.TCPConn) error {
			err := a.begin(conn, n)
			time.Sleep(50 * time.Millisecond) // or it could overtake the bytes
			_ = conn.SetLinger(0)
			return err
		}
	}
}

// resetAtOnce answers with nothing but a reset.
func resetAtOnce(a *Answer) {
	a.Send = func(_ *Answer, conn *net.TCPConn) error { return conn.SetLinger(0) }
}

// hangUp answers with nothing at all.
func hangUp(a *Answer) {
	a.Send = func(*Answer, *net.TCPConn) error { return nil }
}

// stall sends nothing behind byte n of the body, and keeps the connection. A
// negative n is not even the head.
func stall(n int) Fault {
	return func(a *Answer) {
		a.Send = func(a *Answer, conn *net.TCPConn) error {
			if n >= 0 {
				if err := a.begin(conn, n); err != nil {
					return err
				}
			}
			a.wait(conn, time.Hour, nil)
			return nil
		}
	}
}

// trickle sends one byte a second of what is in text, or of the body.
func trickle(text string) Fault {
	return func(a *Answer) {
		a.Send = func(a *Answer, conn *net.TCPConn) error {
			rest := []byte(text)
			if text == "" {
				if err := a.begin(conn, 0); err != nil {
					return err
				}
				rest = a.Body
			}
			a.wait(conn, time.Second, rest)
			return nil
		}
	}
}

// wait sends a byte of rest at each tick, until the client or the proxy has had
// enough.
func (a *Answer) wait(conn *net.TCPConn, tick time.Duration, rest []byte) {
	left := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, conn) // until the client has left
		close(left)
	}()
	defer conn.Close()
	for {
		select {
		case <-left:
			return
		case <-a.proxy.closed:
			conn.Close()
			<-left
			return
		case <-time.After(tick):
			if len(rest) > 0 {
				if _, err := conn.Write(rest[:1]); err != nil {
					conn.Close()
					<-left
					return
				}
				rest = rest[1:]
			}
		}
	}
}

// endless begins with start, or the head of the answer, and then sends text again
// and again.
func endless(start, text string) Fault {
	return func(a *Answer) {
		a.Send = func(a *Answer, conn *net.TCPConn) error {
			piece := []byte(strings.Repeat(text, 1+(64<<10)/len(text)))
			if start == "" {
				start = string(a.head())
			}
			_, err := io.WriteString(conn, start)
			for sent := 0; err == nil && sent < 1<<30; {
				var n int
				n, err = conn.Write(piece)
				sent += n
			}
			return err
		}
	}
}

// header sets a header, or drops it if there is no value.
func header(name, value string) Fault {
	return func(a *Answer) {
		if a.Header[name] = nil; value != "" { // nil: package http guesses none
			a.Header.Set(name, value)
		}
	}
}

// body answers with another body.
func body(text string) Fault {
	return func(a *Answer) {
		a.Body = []byte(text)
		a.Header.Set("Content-Length", fmt.Sprint(len(text)))
		if a.Request.Method == http.MethodHead {
			a.Body = nil
		}
	}
}

// status answers with an error, as registries write them.
func status(code int, more ...Fault) Fault {
	return func(a *Answer) {
		a.Status, a.Header = code, http.Header{"Content-Type": {"application/json"}}
		body(`{"errors":[{"code":"UNKNOWN","message":"the fault"}]}`)(a)
		both(more...)(a)
	}
}

// bare answers with an error that has no body.
func bare(code int, more ...Fault) Fault {
	return status(code, append([]Fault{body("")}, more...)...)
}

// html is what proxies in between answer with.
func html(a *Answer) {
	a.Status, a.Header = http.StatusOK, http.Header{"Content-Type": {"text/html; charset=utf-8"}}
	body("<!doctype html><title>Welcome</title><p>Please sign in to the network.")(a)
}

// flip changes one bit of the body, from the end if at is negative.
func flip(at int) Fault {
	return func(a *Answer) {
		if len(a.Body) > 0 {
			changed := bytes.Clone(a.Body)
			changed[(at+len(changed))%len(changed)] ^= 1
			a.Body = changed
		}
	}
}

// longer adds bytes to the body, shorter takes some away; Content-Length says so.
func longer(n int) Fault {
	return func(a *Answer) { body(string(a.Body) + strings.Repeat("x", n))(a) }
}

func shorter(n int) Fault {
	return func(a *Answer) { body(string(a.Body[:max(len(a.Body)-n, 0)]))(a) }
}

// unsized sends a body without a length, which ends with the connection.
func unsized(a *Answer) {
	a.Unsized = true
	a.Send = func(a *Answer, conn *net.TCPConn) error { return a.begin(conn, len(a.Body)) }
}

// chunked sends a body in one chunk, with what is said of its size, and what
// follows it.
func chunked(size func(int) string, end string) Fault {
	return func(a *Answer) {
		a.Send = func(a *Answer, conn *net.TCPConn) error {
			a.Unsized = true
			a.Header.Set("Transfer-Encoding", "chunked")
			_, err := fmt.Fprintf(conn, "%s%s\r\n%s\r\n%s", a.head(), size(len(a.Body)), a.Body, end)
			return err
		}
	}
}

func hex(n int) string { return fmt.Sprintf("%x", n) }

// zipped compresses the body, and says so.
func zipped(a *Answer) {
	var text bytes.Buffer
	w := gzip.NewWriter(&text)
	_, _ = w.Write(a.Body) // to memory
	_ = w.Close()
	if a.Request.Method == http.MethodGet {
		body(text.String())(a)
	}
	a.Header.Set("Content-Encoding", "gzip")
}

// wholly answers as if no range had been asked for.
func wholly(a *Answer) {
	a.Request.Header.Del("Range")
	_ = a.fetch(a.Request) // which has worked before
}

// part answers with another range than the one that was asked for.
func part(ranges, contentRange string) Fault {
	return func(a *Answer) {
		a.Request.Header.Set("Range", "bytes="+ranges)
		_ = a.fetch(a.Request) // which has worked before
		if contentRange != "" {
			header("Content-Range", contentRange)(a)
		}
	}
}

// resumed breaks only requests for a part.
func resumed(f Fault) Fault {
	return func(a *Answer) {
		if a.Request.Header.Get("Range") != "" {
			f(a)
		}
	}
}

// redirect leads elsewhere; $PROXY in the location is this proxy.
func redirect(location string) Fault {
	return func(a *Answer) {
		to := strings.NewReplacer("$PROXY", a.proxy.address(), "$PATH", a.Request.URL.Path).Replace(location)
		status(http.StatusTemporaryRedirect, header("Location", to), body(""))(a)
	}
}

// elsewhere leads to another host, which has what is asked for.
func elsewhere(a *Answer) {
	if a.Request.Host == a.proxy.address() {
		redirect("http://" + a.proxy.other() + "$PATH")(a)
	}
}

// retryAfter asks for patience until a date.
func retryAfter(d time.Duration) Fault {
	return func(a *Answer) {
		a.Header.Set("Retry-After", time.Now().Add(d).UTC().Format(http.TimeFormat))
	}
}

// contentOf sends other content under the name that was asked for.
func contentOf(name string) Fault {
	return func(a *Answer) {
		for _, r := range a.proxy.known {
			for _, c := range r.all {
				if c.name == name {
					a.Status = http.StatusOK
					a.Header.Set("Content-Type", c.mediaType)
					a.Header.Set("Docker-Content-Digest", c.Digest.String())
					body(string(c.bytes))(a)
					return
				}
			}
		}
	}
}

// tokens makes the registry ask for tokens, each good for so many requests; grant
// breaks the answers of the server that gives them.
func tokens(lasts int, grant Fault) Fault {
	return func(a *Answer) {
		p := a.proxy
		p.mu.Lock()
		defer p.mu.Unlock()
		if a.Request.URL.Path == "/token" {
			a.Status, a.Header = http.StatusOK, http.Header{"Content-Type": {"application/json"}}
			body(fmt.Sprintf(`{"token":"t%d","expires_in":300}`, len(p.uses)))(a)
			p.uses = append(p.uses, 0)
			if grant != nil {
				grant(a)
			}
			return
		}
		var token int
		if _, err := fmt.Sscanf(a.Request.Header.Get("Authorization"), "Bearer t%d", &token); err == nil && token < len(p.uses) {
			if p.uses[token]++; p.uses[token] <= lasts {
				return
			}
		}
		status(http.StatusUnauthorized, header("Www-Authenticate",
			fmt.Sprintf(`Bearer realm="http://%s/token",service="x",scope="repository:%s:pull"`, p.address(), Repository)))(a)
	}
}
