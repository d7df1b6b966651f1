// Package serve turns stored images into a read-only registry: an
// [http.Handler] that answers the pull half of the OCI distribution
// specification 1.1.
//
// A request goes through four steps, each in its own file:
//
//	names.go, route.go   the URL becomes a typed request, once; nothing after it sees a path
//	manifest.go, blob.go,
//	list.go              one function per kind asks the Content and answers
//	error.go             every error becomes a status and the registry's error body, in one place
//	accesslog.go         optional, around all of it: one line per request
//
// # Guarantees
//
//   - Nothing can be written. Every method but GET and HEAD gets 405.
//   - What is stored is served as it is: no negotiation by Accept, no
//     compression, no conversion, no redirect.
//   - HEAD answers with the headers of GET, Docker-Content-Digest and
//     Content-Length among them.
//   - A name is never guessed. A request that cannot be understood gets 400 or
//     404; it is never answered from another registry than the one it names.
//   - A file from the store reaches the socket by sendfile, also through the
//     access log.
//
// # Non-goals
//
// Authentication, TLS and fetching what is missing. They wrap the handler, the
// listener and the [Content].
package serve
