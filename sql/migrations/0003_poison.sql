-- How the runs of each slot ended, and what they were at: this finds a change over which walhook
-- crashes again and again. Written at a start and at a clean end; changes are marked only after two
-- crashes at the same place. See src/store/runs.rs.
CREATE TABLE walhook.runs (
    slot              text COLLATE "C" PRIMARY KEY,
    -- False after a clean end.
    running           boolean NOT NULL,
    -- Crashes in a row between which nothing was settled.
    crashes           bigint NOT NULL,
    -- What was settled at the last start.
    settled_lsn       pg_lsn,
    settled_ordinal   bigint,
    -- The change that this run is at, while it takes them one by one.
    marked_lsn        pg_lsn,
    marked_ordinal    bigint,
    marked_stage      text,
    -- The one that the run before was at when it crashed.
    suspect_lsn       pg_lsn,
    suspect_ordinal   bigint,
    suspect_stage     text,
    -- The one that two runs in a row were at when they crashed: it is set aside.
    convicted_lsn     pg_lsn,
    convicted_ordinal bigint,
    convicted_stage   text
);
