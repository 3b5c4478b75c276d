-- walhook's own state. Applied by walhook itself, in one transaction; see src/store/migrate.rs.
--
-- Each table has a primary key, so that a publication FOR ALL TABLES does not make PostgreSQL
-- refuse updates and deletes here. `slot` is the name of the replication slot that a row belongs to:
-- several walhooks may keep their state in one database, as long as their slots have different names.

-- Where each slot stands, and who may write for it.
CREATE TABLE walhook.progress (
    slot              text COLLATE "C" PRIMARY KEY,
    -- The stream that the positions belong to; null until the first start has reached it.
    -- system_identifier is shown as pg_control_system() shows it.
    system_identifier bigint,
    timeline          integer,
    publication_oids  oid[] NOT NULL DEFAULT '{}',
    -- All events up to and including this one are settled: commit LSN and ordinal of the change.
    settled_lsn       pg_lsn,
    settled_ordinal   bigint,
    -- The end LSN that was confirmed to the server, or is about to be.
    confirmed_lsn     pg_lsn,
    -- Raised by each walhook that takes the slot: one with an older epoch can write no more.
    epoch             bigint NOT NULL,
    -- Number of the last committed flush: one whose outcome is unknown is not applied twice.
    flush             bigint NOT NULL DEFAULT 0,
    holder            text NOT NULL,
    held_since        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now()
) WITH (
    -- One row that changes with every flush: room for HOT updates, and a vacuum soon.
    fillfactor = 20,
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500
);

-- Deliveries that are settled although an earlier event is not: they are not repeated after a crash.
-- Rows go as soon as progress has passed them.
CREATE TABLE walhook.settled_ahead (
    slot     text COLLATE "C" NOT NULL,
    event_id text COLLATE "C" NOT NULL,
    endpoint text COLLATE "C" NOT NULL,
    PRIMARY KEY (slot, event_id, endpoint)
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 10000
);

-- Parked deliveries: what waits for an endpoint outside of memory.
CREATE TABLE walhook.backlog (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    slot             text COLLATE "C" NOT NULL,
    endpoint         text COLLATE "C" NOT NULL,
    event_id         text COLLATE "C" NOT NULL,
    -- The order of delivery: position of the change, then the order of parking.
    commit_lsn       pg_lsn NOT NULL,
    ordinal          bigint NOT NULL,
    event_type       text NOT NULL,
    table_schema     text NOT NULL,
    table_name       text NOT NULL,
    row_key          text,
    -- Fingerprints of the keys that order events, as the bit patterns of unsigned numbers.
    first_key        bigint,
    second_key       bigint,
    committed        timestamptz NOT NULL,
    born             timestamptz,
    -- After this the event is too old to be sent; null means never.
    expires_at       timestamptz,
    -- A few values of the row by column. Not jsonb, which would sort them.
    facts            json NOT NULL DEFAULT '{}',
    -- walhook's own encoding: see src/store/body_codec.rs.
    body             bytea NOT NULL,
    body_bytes       integer NOT NULL GENERATED ALWAYS AS (octet_length(body)) STORED,
    attempts         integer NOT NULL,
    -- Null means at once, as soon as there is room.
    next_attempt_at  timestamptz,
    parked_at        timestamptz NOT NULL,
    reason           text NOT NULL,
    first_attempt_at timestamptz,
    last_attempt_at  timestamptz,
    http_status      integer,
    failure_class    text,
    failure_detail   text,
    -- Sent again by an operator; `resend_of` names the dead letter, if it was one.
    replay           boolean NOT NULL DEFAULT false,
    resend_of        bigint,
    UNIQUE (slot, endpoint, event_id, replay)
) WITH (
    fillfactor = 90,
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000,
    autovacuum_analyze_scale_factor = 0.02, autovacuum_analyze_threshold = 2000,
    toast.autovacuum_vacuum_scale_factor = 0.02, toast.autovacuum_vacuum_threshold = 2000
);
CREATE INDEX backlog_order ON walhook.backlog (slot, endpoint, commit_lsn, ordinal, id);
CREATE INDEX backlog_age ON walhook.backlog (slot, endpoint, parked_at);
CREATE INDEX backlog_waiting ON walhook.backlog (slot, endpoint, next_attempt_at)
    WHERE next_attempt_at IS NOT NULL;
CREATE INDEX backlog_expiry ON walhook.backlog (slot, expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX backlog_resend ON walhook.backlog (resend_of) WHERE resend_of IS NOT NULL;

-- Deliveries that were given up, until an operator has dealt with them.
CREATE TABLE walhook.dead_letters (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    slot             text COLLATE "C" NOT NULL,
    endpoint         text COLLATE "C" NOT NULL,
    event_id         text COLLATE "C" NOT NULL,
    commit_lsn       pg_lsn NOT NULL,
    ordinal          bigint NOT NULL,
    event_type       text NOT NULL,
    table_schema     text NOT NULL,
    table_name       text NOT NULL,
    row_key          text,
    first_key        bigint,
    second_key       bigint,
    committed        timestamptz NOT NULL,
    born             timestamptz,
    expires_at       timestamptz,
    facts            json NOT NULL DEFAULT '{}',
    -- Null if it is too large to be kept.
    body             bytea,
    body_bytes       integer NOT NULL GENERATED ALWAYS AS (coalesce(octet_length(body), 0)) STORED,
    reason           text NOT NULL,
    failure_class    text NOT NULL,
    http_status      integer,
    -- All attempts, also those of earlier resends.
    attempts         integer NOT NULL,
    first_attempt_at timestamptz,
    last_attempt_at  timestamptz,
    died_at          timestamptz NOT NULL,
    -- dead -> requested -> resending -> delivered | expired | dead; dead | requested -> discarded.
    state            text NOT NULL DEFAULT 'dead'
        CHECK (state IN ('dead', 'requested', 'resending', 'delivered', 'expired', 'discarded')),
    resends          integer NOT NULL DEFAULT 0,
    -- When it was delivered, expired or discarded.
    closed_at        timestamptz,
    UNIQUE (slot, endpoint, event_id)
) WITH (
    fillfactor = 90,
    autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05
);
CREATE INDEX dead_letters_event ON walhook.dead_letters (event_id);
CREATE INDEX dead_letters_row_key ON walhook.dead_letters (row_key) WHERE row_key IS NOT NULL;
CREATE INDEX dead_letters_time ON walhook.dead_letters (slot, died_at);
CREATE INDEX dead_letters_resends ON walhook.dead_letters (slot, id)
    WHERE state IN ('requested', 'resending');
CREATE INDEX dead_letters_closed ON walhook.dead_letters (slot, closed_at)
    WHERE closed_at IS NOT NULL;

-- One row for each attempt and event; a request that carried a batch has a row for each of them.
-- One partition for each day (UTC), named push_log_YYYYMMDD; retention drops partitions.
CREATE SEQUENCE walhook.push_log_id_seq CACHE 100;
CREATE TABLE walhook.push_log (
    id               bigint NOT NULL DEFAULT nextval('walhook.push_log_id_seq'),
    created_at       timestamptz NOT NULL,
    slot             text COLLATE "C" NOT NULL,
    endpoint         text COLLATE "C" NOT NULL,
    event_id         text COLLATE "C" NOT NULL,
    event_type       text NOT NULL,
    table_schema     text NOT NULL,
    table_name       text NOT NULL,
    row_key          text,
    -- 0 for the first attempt.
    retry_count      integer NOT NULL,
    -- delivered: done. retry: another attempt follows. dead: given up.
    outcome          text NOT NULL,
    http_status      integer,
    failure_class    text,
    error_message    text,
    request_headers  jsonb,
    request_body     text,
    response_headers jsonb,
    response_body    text,
    duration_ms      double precision NOT NULL,
    replay           boolean NOT NULL DEFAULT false,
    PRIMARY KEY (created_at, id)
) PARTITION BY RANGE (created_at);
ALTER SEQUENCE walhook.push_log_id_seq OWNED BY walhook.push_log.id;
CREATE INDEX push_log_event ON walhook.push_log (event_id);
CREATE INDEX push_log_row_key ON walhook.push_log (row_key) WHERE row_key IS NOT NULL;
CREATE INDEX push_log_endpoint ON walhook.push_log (endpoint, created_at);

-- Endpoints that were made at run time. Secrets are sealed before they come here.
CREATE TABLE walhook.endpoints (
    slot           text COLLATE "C" NOT NULL,
    name           text COLLATE "C" NOT NULL,
    settings       jsonb NOT NULL,
    sealed_secrets bytea,
    enabled        boolean NOT NULL DEFAULT true,
    created_at     timestamptz NOT NULL DEFAULT now(),
    created_by     text NOT NULL,
    updated_at     timestamptz NOT NULL DEFAULT now(),
    updated_by     text NOT NULL,
    PRIMARY KEY (slot, name)
);

-- What became of the deliveries of each table and endpoint since the slot began:
-- captured = delivered + filtered + expired + dead + pending.
CREATE TABLE walhook.books (
    slot         text COLLATE "C" NOT NULL,
    endpoint     text COLLATE "C" NOT NULL,
    table_schema text COLLATE "C" NOT NULL,
    table_name   text COLLATE "C" NOT NULL,
    captured     bigint NOT NULL DEFAULT 0,
    delivered    bigint NOT NULL DEFAULT 0,
    filtered     bigint NOT NULL DEFAULT 0,
    expired      bigint NOT NULL DEFAULT 0,
    dead         bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (slot, endpoint, table_schema, table_name)
) WITH (
    fillfactor = 20,
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500
);

-- The operator's questions, in plain SQL. In each of them endpoint '*' is the sum over all
-- endpoints of a slot.

CREATE VIEW walhook.success_last_day AS
SELECT slot, coalesce(endpoint, '*') AS endpoint,
       count(*) AS attempts,
       count(*) FILTER (WHERE outcome = 'delivered') AS delivered,
       count(*) FILTER (WHERE outcome = 'dead') AS given_up,
       count(*) FILTER (WHERE outcome = 'delivered')::double precision
           / nullif(count(*) FILTER (WHERE outcome IN ('delivered', 'dead')), 0) AS success_rate,
       count(*) FILTER (WHERE outcome = 'delivered')::double precision
           / count(*) AS attempt_success_rate
  FROM walhook.push_log
 WHERE created_at >= now() - interval '1 day'
 GROUP BY GROUPING SETS ((slot, endpoint), (slot));
COMMENT ON VIEW walhook.success_last_day IS
    'success_rate: of the deliveries that came to their end in the last 24 hours, the share that '
    'was delivered; attempt_success_rate: of all attempts, the share that succeeded';

CREATE VIEW walhook.duration_last_day AS
SELECT slot, coalesce(endpoint, '*') AS endpoint,
       count(*) AS attempts,
       avg(duration_ms) AS mean_ms,
       avg(duration_ms) FILTER (WHERE outcome = 'delivered') AS mean_delivered_ms,
       max(duration_ms) AS longest_ms
  FROM walhook.push_log
 WHERE created_at >= now() - interval '1 day'
 GROUP BY GROUPING SETS ((slot, endpoint), (slot));

CREATE VIEW walhook.retries_last_day AS
SELECT slot, coalesce(endpoint, '*') AS endpoint, retry_count,
       count(*) AS deliveries,
       count(*) FILTER (WHERE outcome = 'delivered') AS delivered
  FROM walhook.push_log
 WHERE created_at >= now() - interval '1 day' AND outcome IN ('delivered', 'dead')
 GROUP BY GROUPING SETS ((slot, endpoint, retry_count), (slot, retry_count));
COMMENT ON VIEW walhook.retries_last_day IS
    'how many deliveries of the last 24 hours came to their end after how many retries';

CREATE VIEW walhook.dead_letter_queue AS
SELECT slot, coalesce(endpoint, '*') AS endpoint,
       count(*) AS size,
       count(*) FILTER (WHERE state <> 'dead') AS being_resent,
       sum(body_bytes)::bigint AS bytes,
       min(died_at) AS oldest
  FROM walhook.dead_letters
 WHERE state IN ('dead', 'requested', 'resending')
 GROUP BY GROUPING SETS ((slot, endpoint), (slot));

CREATE VIEW walhook.backlog_size AS
SELECT slot, coalesce(endpoint, '*') AS endpoint,
       count(*) AS size,
       sum(body_bytes)::bigint AS bytes,
       min(parked_at) AS oldest
  FROM walhook.backlog
 GROUP BY GROUPING SETS ((slot, endpoint), (slot));

CREATE VIEW walhook.balance AS
SELECT slot, endpoint, table_schema, table_name, captured, delivered, filtered, expired, dead,
       captured - delivered - filtered - expired - dead AS pending
  FROM walhook.books;
