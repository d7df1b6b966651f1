//go:build e2e

// Package e2e tests mirrorctl end to end: real registries as the upstream, real
// images, real container clients.
//
//	go test -tags e2e -count=1 -v ./testdata/e2e
//
// runs everything, as root, on a machine with the programs that .ci/run
// installs. The first run asks the Debian archive for the root file systems of
// the images and keeps them in the user's cache folder; nothing else leaves the
// machine. One test:
//
//	go test -tags e2e -count=1 -v -run TestClientsPullFromServe/distribution-3/podman ./testdata/e2e
package e2e

import (
	"os"
	"testing"
)

// TestMain runs the tests in namespaces of their own, for three reasons.
//
// The network there is a loopback and nothing else: a client that gives up on
// the mirror and goes to the real Docker Hub cannot succeed by accident, and
// ports belong to the tests alone. Mounts (a full disk, a read-only store,
// dockerd's layers) vanish with the namespace. And the kernel ends every
// process in the sandbox when its first one dies, however that happens, so no
// registry or daemon outlives the tests, and no other process is ever touched.
func TestMain(m *testing.M) {
	switch os.Getenv(stageVariable) {
	case "":
		os.Exit(outside())
	case "init":
		os.Exit(initProcess())
	default:
		os.Exit(m.Run())
	}
}
