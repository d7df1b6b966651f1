//go:build !race

package dockerfile_test

const slower, fewer = 1, 1
