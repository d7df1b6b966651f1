-- Content that is complete and verified. The file is blobs/<alg>/<hex>.
CREATE TABLE blob (
	digest TEXT NOT NULL PRIMARY KEY,
	size   INTEGER NOT NULL CHECK (size >= 0)
) STRICT, WITHOUT ROWID;

-- Manifests and indexes of published images, byte for byte.
CREATE TABLE manifest (
	digest        TEXT NOT NULL PRIMARY KEY REFERENCES blob (digest),
	media_type    TEXT NOT NULL,
	bytes         BLOB NOT NULL,
	subject       TEXT,          -- the manifest that this one refers to
	artifact_type TEXT
) STRICT;
CREATE INDEX manifest_subject ON manifest (subject) WHERE subject IS NOT NULL;

-- What a manifest lists, in its order. Children of kind 'foreign' need no blob.
CREATE TABLE edge (
	parent   TEXT NOT NULL REFERENCES manifest (digest) ON DELETE CASCADE,
	position INTEGER NOT NULL,
	child    TEXT NOT NULL,
	size     INTEGER NOT NULL,
	kind     TEXT NOT NULL CHECK (kind IN ('manifest', 'config', 'layer', 'blob', 'foreign')),
	media_type TEXT NOT NULL,
	platform TEXT,
	PRIMARY KEY (parent, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX edge_child ON edge (child, parent);

CREATE TABLE pin (
	registry   TEXT NOT NULL,
	repository TEXT NOT NULL,
	reference  TEXT NOT NULL,    -- a tag or a digest
	digest     TEXT NOT NULL REFERENCES manifest (digest),
	size       INTEGER NOT NULL, -- bytes over all platforms, each blob once; without referrers
	pinned_at  INTEGER NOT NULL, -- Unix seconds
	PRIMARY KEY (registry, repository, reference)
) STRICT, WITHOUT ROWID;
CREATE INDEX pin_digest ON pin (digest);

-- Tags that came with an image and go with it: cosign's sha256-<hex>.sig and
-- the referrers fallback tag sha256-<hex>.
CREATE TABLE companion (
	registry   TEXT NOT NULL,
	repository TEXT NOT NULL,
	reference  TEXT NOT NULL,
	digest     TEXT NOT NULL REFERENCES manifest (digest),
	subject    TEXT NOT NULL REFERENCES manifest (digest) ON DELETE CASCADE,
	PRIMARY KEY (registry, repository, reference)
) STRICT, WITHOUT ROWID;
CREATE INDEX companion_subject ON companion (subject);
CREATE INDEX companion_digest ON companion (digest);

-- What happened to pins; rows are only ever added.
CREATE TABLE history (
	id         INTEGER PRIMARY KEY,
	at         INTEGER NOT NULL, -- Unix seconds
	action     TEXT NOT NULL CHECK (action IN ('pin', 'move', 'remove')),
	registry   TEXT NOT NULL,
	repository TEXT NOT NULL,
	reference  TEXT NOT NULL,
	digest     TEXT NOT NULL
) STRICT;

-- A lease protects digests that a running process needs. Its name is that of a
-- file in leases/, locked as long as the process lives.
CREATE TABLE lease (
	id   INTEGER PRIMARY KEY AUTOINCREMENT,
	name TEXT NOT NULL UNIQUE
) STRICT;

-- Digests that may have a file without being needed by a published image: held
-- by a lease, or (lease 0) waiting for the collector.
CREATE TABLE hold (
	digest TEXT NOT NULL,
	lease  INTEGER NOT NULL,
	PRIMARY KEY (digest, lease)
) STRICT, WITHOUT ROWID;
CREATE INDEX hold_lease ON hold (lease);
