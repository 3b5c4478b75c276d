-- Rows that were there before, sent as events between the changes: each row is one table's backfill.
CREATE TABLE walhook.backfills (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    slot         text COLLATE "C" NOT NULL,
    table_schema text NOT NULL,
    table_name   text NOT NULL,
    -- A condition in SQL; null: every row.
    filter       text,
    -- Null: every endpoint that takes the events.
    endpoints    text[],
    -- The event type whose rule takes the rows; null: all that ask for `read`.
    event_type   text,
    -- Rows a second; null: as fast as the lanes take them.
    per_second   integer,
    read_by      text NOT NULL CHECK (read_by IN ('key', 'ctid')),
    -- running <-> paused; running | paused -> done | cancelled | failed.
    state        text NOT NULL DEFAULT 'running'
        CHECK (state IN ('running', 'paused', 'done', 'cancelled', 'failed')),
    -- What it waits for, or why it does not go on.
    reason       text,
    created_at   timestamptz NOT NULL,
    started_at   timestamptz,
    finished_at  timestamptz,
    -- Where to read on: moves in the flush that settles or parks a chunk.
    cursor       text NOT NULL DEFAULT '{}',
    -- What the planner thinks that there is to read.
    estimate     bigint,
    rows_read    bigint NOT NULL DEFAULT 0,
    rows_sent    bigint NOT NULL DEFAULT 0,
    -- Starts of walhook since a chunk was done: with the same one in hand again and again, it stops.
    tries        integer NOT NULL DEFAULT 0
) WITH (
    -- Changes with every chunk.
    fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000
);
CREATE INDEX backfills_open ON walhook.backfills (slot, id) WHERE state IN ('running', 'paused');
