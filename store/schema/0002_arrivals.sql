-- References whose digest is decided while their content still arrives. What
-- arrived is held by the lease with the negative of the id, which has no row in
-- table lease and so outlives processes.
CREATE TABLE arrival (
	id         INTEGER PRIMARY KEY AUTOINCREMENT,
	registry   TEXT NOT NULL,
	repository TEXT NOT NULL,
	reference  TEXT NOT NULL,    -- a tag or a digest
	digest     TEXT NOT NULL,
	media_type TEXT NOT NULL,
	since      INTEGER NOT NULL, -- Unix seconds
	UNIQUE (registry, repository, reference)
) STRICT;
