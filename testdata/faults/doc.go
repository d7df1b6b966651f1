// Package faults is a registry behind a proxy that breaks on purpose, and the
// table of what it breaks: for each fault what mirrorctl says, its exit code,
// what is then in the store, what the next run transfers when the fault has
// gone, and what a client of its pull-through gets.
//
// The tests of the module run the table in one process with a registry in
// memory; the end-to-end tests run it with the built program and a real
// registry.
package faults
