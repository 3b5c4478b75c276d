-- Rows that have got another key while a backfill reads their table: each is looked for where it is before the
-- backfill is done, since the cursor may have passed that place.
CREATE TABLE walhook.backfill_moves (
    backfill   bigint NOT NULL REFERENCES walhook.backfills ON DELETE CASCADE,
    -- The change.
    commit_lsn pg_lsn NOT NULL,
    ordinal    bigint NOT NULL,
    -- Its transaction, without the epoch.
    xid        bigint NOT NULL,
    -- The new key, and the one before: JSON arrays of texts.
    row_key    text NOT NULL,
    old_key    text NOT NULL,
    PRIMARY KEY (backfill, commit_lsn, ordinal)
);
