-- Values that events were raised with: their repeats are not pushed within the window of `dedupe`.
CREATE TABLE walhook.seen_values (
    slot       text COLLATE "C" NOT NULL,
    -- A fingerprint of the event type and the values, as two halves.
    high       bigint NOT NULL,
    low        bigint NOT NULL,
    event_type text COLLATE "C" NOT NULL,
    commit_lsn pg_lsn NOT NULL,
    ordinal    bigint NOT NULL,
    committed  timestamptz NOT NULL,
    PRIMARY KEY (slot, high, low)
) WITH (
    autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000,
    autovacuum_analyze_scale_factor = 0.05, autovacuum_analyze_threshold = 5000
);
CREATE INDEX seen_values_time ON walhook.seen_values (slot, event_type, committed);
