//go:build !race && full

package dockerfile_test

const slower, fewer = 1, 1
