// Package page shows a store to people: what is pinned, what it consists of, who
// asks for it, what arrives just now, and how a client is pointed at the mirror.
//
// It is rendered on the server and works without scripts; a little of them
// refreshes what moves. Nothing of it asks another host. It only reads, except
// that whoever [Options.Admin] knows may drop a pin.
package page
