package main

import (
	"io"
	"net/http"
	"os"
	"strings"
)

// bareCommand starts this program as the bare handler.
const bareCommand = "serve-bare"

// serveBare is the least that net/http does for the answers of a mirror: it asks
// the mirror for the index once, and sends the same bytes and headers to everybody.
// A large blob it sends from the file.
func serveBare(address, mirror string) error {
	response, err := http.Get("http://" + mirror + "/v2/" + indexRepository + "/manifests/latest")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	response.Header.Del("Date") // which net/http adds
	return http.ListenAndServe(address, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			sendFile(w, r, "../layer")
			return
		}
		header := w.Header()
		for key, values := range response.Header {
			header[key] = values
		}
		_, _ = w.Write(body) // a client that left
	}))
}

func sendFile(w http.ResponseWriter, r *http.Request, path string) {
	f, err := os.Open(path)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", info.ModTime(), f)
}
