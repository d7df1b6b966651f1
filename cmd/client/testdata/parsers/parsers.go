// Package parsers gives what mirrorctl client prints to the code with which the
// clients themselves read it, for those that the end-to-end tests do not run, or
// only in the version that Debian has. It is a module of its own because that
// code is large:
//
//	go test ./...
package parsers
