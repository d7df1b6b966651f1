package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// fakeClient plays docker, k3s, or kind with two nodes, for scripts in which no
// daemon can run. It
// pulls from $FAKE_MIRROR, with $FAKE_PREFIX before names, and without that fails
// as docker does. $FAKE_HANG makes it hang, $FAKE_OTHER pull something else.
func fakeClient() {
	args := strings.Join(os.Args[1:], " ")
	if _, crictl, ok := strings.Cut(args, "crictl "); ok { // of k3s, or in a node of kind
		args = crictl
	}
	pulled := filepath.Join(os.Getenv("HOME"), "pulled")
	name := os.Args[len(os.Args)-1]
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "Using default tag\nError response from daemon:", err)
			os.Exit(1)
		}
	}
	switch {
	case args == "version":
		fmt.Println("fake")
	case args == "get nodes":
		fmt.Println("kind-control-plane\nkind-worker")
	case strings.HasPrefix(args, "pull "):
		if os.Getenv("FAKE_HANG") != "" {
			time.Sleep(time.Minute)
		}
		label, err := fakePull(name)
		fail(err)
		if os.Getenv("FAKE_OTHER") != "" {
			label = "something else"
		}
		fail(os.MkdirAll(filepath.Dir(pulled), 0o755))
		fail(os.WriteFile(pulled, []byte(label), 0o644))
	case strings.HasPrefix(args, "image inspect "), strings.HasPrefix(args, "inspecti "):
		label, err := os.ReadFile(pulled)
		fail(err)
		fmt.Printf("%s\n", label)
	case strings.HasPrefix(args, "rmi "):
		fail(os.Remove(pulled))
	case strings.HasPrefix(args, "info "):
		fmt.Println("null")
	default:
		fail(fmt.Errorf("unknown command: %s", args))
	}
}

// fakePull fetches an image from the mirror and returns its label.
func fakePull(name string) (string, error) {
	mirror := os.Getenv("FAKE_MIRROR")
	if mirror == "" {
		return "", fmt.Errorf("pull access denied for %s, repository does not exist or may require 'docker login'", name)
	}
	name, tag, _ := strings.Cut(name, ":")
	base := "http://" + mirror + "/v2/" + os.Getenv("FAKE_PREFIX") + name
	var index v1.Index
	var m v1.Manifest
	var config v1.Image
	err := fakeGet(base+"/manifests/"+tag, &index)
	if err == nil {
		err = fakeGet(base+"/manifests/"+index.Manifests[0].Digest.String(), &m)
	}
	if err == nil {
		err = fakeGet(base+"/blobs/"+m.Config.Digest.String(), &config)
	}
	return config.Config.Labels["mirrorctl.doctor"], err
}

func fakeGet(url string, value any) error {
	res, err := http.Get(url)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("manifest unknown: %s", res.Status)
	}
	if err == nil {
		err = json.Unmarshal(body, value)
	}
	return err
}
