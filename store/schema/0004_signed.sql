-- Signed manifests of Docker's schema 1, published or still arriving. Their digest
-- is that of what was signed; blob is all of it, as the upstream sent it.
CREATE TABLE signed (
	blob   TEXT NOT NULL PRIMARY KEY REFERENCES blob (digest) ON DELETE CASCADE,
	digest TEXT NOT NULL UNIQUE
) STRICT, WITHOUT ROWID;
