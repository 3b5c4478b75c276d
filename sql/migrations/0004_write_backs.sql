-- Write-backs: events whose end is to be told to their row, from their first outcome on.
CREATE TABLE walhook.write_backs (
    slot         text COLLATE "C" NOT NULL,
    event_id     text COLLATE "C" NOT NULL,
    event_type   text NOT NULL,
    table_schema text NOT NULL,
    table_name   text NOT NULL,
    -- A fingerprint of the row: an older event of a row is written first.
    row_id       bigint NOT NULL,
    -- {"key": ["id"], "values": {"id": "7", "status": "COMPLETED"}}
    target       json NOT NULL,
    -- Endpoints that got the event, and what became of it there.
    owed         integer NOT NULL,
    delivered    integer NOT NULL,
    failed       integer NOT NULL,
    -- What was written last: kept while dead letters of the event may still be sent again.
    written      text CHECK (written IN ('delivered', 'failed')),
    -- When it is to be written; null while there is nothing to write.
    due_at       timestamptz,
    tries        integer NOT NULL DEFAULT 0,
    last_error   text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (slot, event_id)
) WITH (
    fillfactor = 80,
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000,
    autovacuum_analyze_scale_factor = 0.02, autovacuum_analyze_threshold = 2000
);
CREATE INDEX write_backs_due ON walhook.write_backs (slot, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX write_backs_row ON walhook.write_backs (slot, row_id, event_id) WHERE due_at IS NOT NULL;
