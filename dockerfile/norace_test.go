//go:build !race

package dockerfile_test

const slower = 1
