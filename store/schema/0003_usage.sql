-- How often the image behind a reference was asked for by name. Rows go with
-- their pin.
CREATE TABLE usage (
	registry   TEXT NOT NULL,
	repository TEXT NOT NULL,
	reference  TEXT NOT NULL,
	hits       INTEGER NOT NULL CHECK (hits >= 0),
	last_at    INTEGER NOT NULL, -- Unix seconds
	PRIMARY KEY (registry, repository, reference)
) STRICT, WITHOUT ROWID;

-- What upstreams said of pinned references when they were last asked.
CREATE TABLE standing (
	registry   TEXT NOT NULL,
	repository TEXT NOT NULL,
	reference  TEXT NOT NULL,
	at         INTEGER NOT NULL, -- Unix seconds
	state      TEXT NOT NULL,
	now        TEXT NOT NULL,    -- the digest that the reference means upstream; '' for none
	PRIMARY KEY (registry, repository, reference)
) STRICT, WITHOUT ROWID;

-- Who did it, and why.
ALTER TABLE history ADD COLUMN note TEXT NOT NULL DEFAULT '';
CREATE INDEX history_reference ON history (registry, repository, reference);

-- Since when usage is recorded; one row, or none if nobody did.
CREATE TABLE recording (
	since INTEGER NOT NULL -- Unix seconds
) STRICT;
