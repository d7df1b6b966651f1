package serve

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// What has arrived goes out before more comes.
func TestArrivingContentIsSentAtOnce(t *testing.T) {
	from, to := io.Pipe()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := &contentWriter{ResponseWriter: w, request: r}
		if n, err := io.CopyN(out, from, 20); n != 20 || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
	}))
	defer server.Close()
	defer to.Close()
	go func() { _, _ = to.Write([]byte("0123456789")) }()
	client := &http.Client{Timeout: 10 * time.Second}
	response, err := client.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	first := make([]byte, 10)
	if _, err := io.ReadFull(response.Body, first); err != nil || string(first) != "0123456789" {
		t.Fatalf("%q, %v", first, err)
	}
	if _, err := to.Write([]byte("abcdefghij")); err != nil {
		t.Error(err)
	}
	if rest, err := io.ReadAll(response.Body); err != nil || string(rest) != "abcdefghij" {
		t.Errorf("%q, %v", rest, err)
	}
}
