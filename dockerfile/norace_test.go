//go:build !race && !full

package dockerfile_test

// What stays below the bounds takes its time in proportion to its size: a
// quarter tells the same. go test -tags full has all of it.
const slower, fewer = 1, 4
