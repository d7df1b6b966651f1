//go:build race

package dockerfile_test

// slower is by how much the race detector slows these tests down.
const slower = 16
