// Package kaniko gives the flags that mirrorctl client prints to kaniko, which
// cannot run beside the tests because it empties the machine that it is on. It
// is a module of its own because kaniko is large and its versions are old:
//
//	go test ./...
package kaniko
