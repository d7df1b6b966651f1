//go:build race

package dockerfile_test

// slower is by how much the race detector slows these tests down, and fewer by
// how much more those shrink that can, so that all take some seconds.
const slower, fewer = 16, 8
