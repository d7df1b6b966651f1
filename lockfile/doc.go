// Package lockfile is mirror.lock: it decodes and encodes the file, decides
// what a sync does for an image, and brings the lock in line with what a sync
// found. Apart from [Read], [ReadMerged], [Write] and [Update] it is pure.
//
// # The file
//
// mirror.lock is TOML in UTF-8 with LF line ends, made to be committed and
// merged: no timestamps, nothing of the machine, images sorted by name.
//
//	# Written by mirrorctl. Commit this file; change it with mirrorctl sync, add and rm.
//	version = 1
//
//	[[image]]
//	name = "docker.io/library/debian:bookworm"
//	digest = "sha256:..."
//	media_type = "application/vnd.oci.image.index.v1+json"
//	size = 96450123
//	used_by = ["Dockerfile", "services/api/Dockerfile"]
//
//	[image.platforms]
//	"linux/amd64" = "sha256:..."
//	"linux/arm64/v8" = "sha256:..."
//
// name, digest, media_type and size are required. used_by is left out when it is
// empty, which says that the image was added by hand; [image.platforms] is left
// out when no platform is known.
//
// # Guarantees
//
// Encoding is deterministic, and for everything that [Encode] wrote, decoding
// and encoding again gives the same bytes. [Encode] refuses what [Decode] would
// not read. Decode takes hand-edited and merged files (any order, CRLF, other
// quoting, comments) as long as they say the same in the same keys; it reports
// every mistake with its line. It never guesses: unknown keys, duplicate names
// and versions it does not know are errors.
package lockfile
