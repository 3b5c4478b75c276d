CREATE SCHEMA walhook;
CREATE TABLE public.notes (
    id integer NOT NULL,
    text text NOT NULL
);
CREATE TABLE public.orders (
    id integer NOT NULL,
    customer text NOT NULL,
    status text DEFAULT 'new'::text NOT NULL
);
ALTER TABLE ONLY public.orders REPLICA IDENTITY FULL;
CREATE TABLE walhook.backfills (
    id bigint NOT NULL,
    slot text NOT NULL COLLATE pg_catalog."C",
    table_schema text NOT NULL,
    table_name text NOT NULL,
    filter text,
    endpoints text[],
    event_type text,
    per_second integer,
    read_by text NOT NULL,
    state text DEFAULT 'running'::text NOT NULL,
    reason text,
    created_at timestamp with time zone NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone,
    cursor text DEFAULT '{}'::text NOT NULL,
    estimate bigint,
    rows_read bigint DEFAULT 0 NOT NULL,
    rows_sent bigint DEFAULT 0 NOT NULL,
    tries integer DEFAULT 0 NOT NULL,
    CONSTRAINT backfills_read_by_check CHECK ((read_by = ANY (ARRAY['key'::text, 'ctid'::text]))),
    CONSTRAINT backfills_state_check CHECK ((state = ANY (ARRAY['running'::text, 'paused'::text, 'done'::text, 'cancelled'::text, 'failed'::text])))
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='1000');
ALTER TABLE walhook.backfills ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME walhook.backfills_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE walhook.backlog (
    id bigint NOT NULL,
    slot text NOT NULL COLLATE pg_catalog."C",
    endpoint text NOT NULL COLLATE pg_catalog."C",
    event_id text NOT NULL COLLATE pg_catalog."C",
    commit_lsn pg_lsn NOT NULL,
    ordinal bigint NOT NULL,
    event_type text NOT NULL,
    table_schema text NOT NULL,
    table_name text NOT NULL,
    row_key text,
    first_key bigint,
    second_key bigint,
    committed timestamp with time zone NOT NULL,
    born timestamp with time zone,
    expires_at timestamp with time zone,
    facts json DEFAULT '{}'::json NOT NULL,
    body bytea NOT NULL,
    body_bytes integer GENERATED ALWAYS AS (octet_length(body)) STORED NOT NULL,
    attempts integer NOT NULL,
    next_attempt_at timestamp with time zone,
    parked_at timestamp with time zone NOT NULL,
    reason text NOT NULL,
    first_attempt_at timestamp with time zone,
    last_attempt_at timestamp with time zone,
    http_status integer,
    failure_class text,
    failure_detail text,
    replay boolean DEFAULT false NOT NULL,
    resend_of bigint
)
WITH (fillfactor='90', autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_threshold='2000', autovacuum_analyze_scale_factor='0.02', autovacuum_analyze_threshold='2000', toast.autovacuum_vacuum_scale_factor='0.02', toast.autovacuum_vacuum_threshold='2000');
ALTER TABLE walhook.backlog ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME walhook.backlog_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE VIEW walhook.backlog_size AS
 SELECT backlog.slot,
    COALESCE(backlog.endpoint, '*'::text) AS endpoint,
    count(*) AS size,
    sum(backlog.body_bytes) AS bytes,
    min(backlog.parked_at) AS oldest
   FROM walhook.backlog
  GROUP BY GROUPING SETS ((backlog.slot, backlog.endpoint), (backlog.slot));
CREATE TABLE walhook.books (
    slot text NOT NULL COLLATE pg_catalog."C",
    endpoint text NOT NULL COLLATE pg_catalog."C",
    table_schema text NOT NULL COLLATE pg_catalog."C",
    table_name text NOT NULL COLLATE pg_catalog."C",
    captured bigint DEFAULT 0 NOT NULL,
    delivered bigint DEFAULT 0 NOT NULL,
    filtered bigint DEFAULT 0 NOT NULL,
    expired bigint DEFAULT 0 NOT NULL,
    dead bigint DEFAULT 0 NOT NULL
)
WITH (fillfactor='20', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='500');
CREATE TABLE walhook.books_common (
    slot text NOT NULL COLLATE pg_catalog."C",
    table_schema text NOT NULL COLLATE pg_catalog."C",
    table_name text NOT NULL COLLATE pg_catalog."C",
    captured bigint NOT NULL,
    filtered bigint NOT NULL
)
WITH (fillfactor='20', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='500');
CREATE TABLE walhook.counted (
    slot text NOT NULL COLLATE pg_catalog."C",
    endpoint text NOT NULL COLLATE pg_catalog."C"
);
CREATE VIEW walhook.balance AS
 SELECT lines.slot,
    lines.endpoint,
    lines.table_schema,
    lines.table_name,
    (sum(lines.captured))::bigint AS captured,
    (sum(lines.delivered))::bigint AS delivered,
    (sum(lines.filtered))::bigint AS filtered,
    (sum(lines.expired))::bigint AS expired,
    (sum(lines.dead))::bigint AS dead,
    (sum(((((lines.captured - lines.delivered) - lines.filtered) - lines.expired) - lines.dead)))::bigint AS pending
   FROM ( SELECT books.slot,
            books.endpoint,
            books.table_schema,
            books.table_name,
            books.captured,
            books.delivered,
            books.filtered,
            books.expired,
            books.dead
           FROM walhook.books
        UNION ALL
         SELECT books_common.slot,
            counted.endpoint,
            books_common.table_schema,
            books_common.table_name,
            books_common.captured,
            0,
            books_common.filtered,
            0,
            0
           FROM (walhook.books_common
             JOIN walhook.counted USING (slot))) lines
  GROUP BY lines.slot, lines.endpoint, lines.table_schema, lines.table_name
 HAVING ((sum(lines.captured) <> (0)::numeric) OR (sum(lines.delivered) <> (0)::numeric) OR (sum(lines.filtered) <> (0)::numeric) OR (sum(lines.expired) <> (0)::numeric) OR (sum(lines.dead) <> (0)::numeric));
CREATE UNLOGGED TABLE walhook.body_pieces (
    slot text NOT NULL COLLATE pg_catalog."C",
    number integer NOT NULL,
    piece bytea NOT NULL
);
ALTER TABLE ONLY walhook.body_pieces ALTER COLUMN piece SET STORAGE EXTERNAL;
CREATE TABLE walhook.dead_letters (
    id bigint NOT NULL,
    slot text NOT NULL COLLATE pg_catalog."C",
    endpoint text NOT NULL COLLATE pg_catalog."C",
    event_id text NOT NULL COLLATE pg_catalog."C",
    commit_lsn pg_lsn NOT NULL,
    ordinal bigint NOT NULL,
    event_type text NOT NULL,
    table_schema text NOT NULL,
    table_name text NOT NULL,
    row_key text,
    first_key bigint,
    second_key bigint,
    committed timestamp with time zone NOT NULL,
    born timestamp with time zone,
    expires_at timestamp with time zone,
    facts json DEFAULT '{}'::json NOT NULL,
    body bytea,
    body_bytes integer GENERATED ALWAYS AS (COALESCE(octet_length(body), 0)) STORED NOT NULL,
    reason text NOT NULL,
    failure_class text NOT NULL,
    http_status integer,
    attempts integer NOT NULL,
    first_attempt_at timestamp with time zone,
    last_attempt_at timestamp with time zone,
    died_at timestamp with time zone NOT NULL,
    state text DEFAULT 'dead'::text NOT NULL,
    resends integer DEFAULT 0 NOT NULL,
    closed_at timestamp with time zone,
    resend_rate integer,
    CONSTRAINT dead_letters_state_check CHECK ((state = ANY (ARRAY['dead'::text, 'requested'::text, 'resending'::text, 'delivered'::text, 'expired'::text, 'discarded'::text])))
)
WITH (fillfactor='90', autovacuum_vacuum_scale_factor='0.05', autovacuum_analyze_scale_factor='0.05');
CREATE VIEW walhook.dead_letter_queue AS
 SELECT dead_letters.slot,
    COALESCE(dead_letters.endpoint, '*'::text) AS endpoint,
    count(*) AS size,
    count(*) FILTER (WHERE (dead_letters.state <> 'dead'::text)) AS being_resent,
    sum(dead_letters.body_bytes) AS bytes,
    min(dead_letters.died_at) AS oldest
   FROM walhook.dead_letters
  WHERE (dead_letters.state = ANY (ARRAY['dead'::text, 'requested'::text, 'resending'::text]))
  GROUP BY GROUPING SETS ((dead_letters.slot, dead_letters.endpoint), (dead_letters.slot));
ALTER TABLE walhook.dead_letters ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME walhook.dead_letters_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE walhook.push_log_events (
    id bigint NOT NULL,
    created_at timestamp with time zone NOT NULL,
    slot text NOT NULL COLLATE pg_catalog."C",
    endpoint text NOT NULL COLLATE pg_catalog."C",
    event_id text NOT NULL COLLATE pg_catalog."C",
    event_type text NOT NULL,
    table_schema text NOT NULL,
    table_name text NOT NULL,
    row_key text COLLATE pg_catalog."C",
    retry_count integer NOT NULL,
    outcome text NOT NULL,
    http_status integer,
    failure_class text,
    error_message text,
    request_headers text,
    request_body text,
    response_headers text,
    response_body text,
    duration_ms double precision NOT NULL,
    replay boolean DEFAULT false NOT NULL,
    first_key bigint,
    second_key bigint,
    expires_at timestamp with time zone,
    shape_headers json,
    body_whole boolean DEFAULT false NOT NULL
)
PARTITION BY RANGE (created_at);
CREATE SEQUENCE walhook.push_log_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 100;
ALTER SEQUENCE walhook.push_log_id_seq OWNED BY walhook.push_log_events.id;
CREATE TABLE walhook.push_log_batches (
    id bigint DEFAULT nextval('walhook.push_log_id_seq'::regclass) NOT NULL,
    created_at timestamp with time zone NOT NULL,
    slot text NOT NULL COLLATE pg_catalog."C",
    endpoint text NOT NULL COLLATE pg_catalog."C",
    event_type text NOT NULL,
    table_schema text NOT NULL,
    table_name text NOT NULL,
    retry_count integer NOT NULL,
    http_status integer,
    request_headers text,
    response_headers text,
    duration_ms double precision NOT NULL,
    replay boolean NOT NULL,
    events integer NOT NULL,
    event_ids text[] NOT NULL COLLATE pg_catalog."C",
    row_keys text[] NOT NULL COLLATE pg_catalog."C"
)
PARTITION BY RANGE (created_at);
CREATE VIEW walhook.duration_last_day AS
 SELECT log.slot,
    COALESCE(log.endpoint, '*'::text) AS endpoint,
    sum(log.events) AS attempts,
    (sum((log.duration_ms * (log.events)::double precision)) / (sum(log.events))::double precision) AS mean_ms,
    (sum((log.duration_ms * (log.events)::double precision)) FILTER (WHERE (log.outcome = 'delivered'::text)) / (sum(log.events) FILTER (WHERE (log.outcome = 'delivered'::text)))::double precision) AS mean_delivered_ms,
    max(log.duration_ms) AS longest_ms
   FROM ( SELECT push_log_events.slot,
            push_log_events.endpoint,
            push_log_events.created_at,
            push_log_events.outcome,
            push_log_events.duration_ms,
            1 AS events
           FROM walhook.push_log_events
        UNION ALL
         SELECT push_log_batches.slot,
            push_log_batches.endpoint,
            push_log_batches.created_at,
            'delivered'::text,
            push_log_batches.duration_ms,
            push_log_batches.events
           FROM walhook.push_log_batches) log
  WHERE (log.created_at >= (now() - '1 day'::interval))
  GROUP BY GROUPING SETS ((log.slot, log.endpoint), (log.slot));
CREATE TABLE walhook.endpoint_rows (
    slot text NOT NULL COLLATE pg_catalog."C",
    source text NOT NULL COLLATE pg_catalog."C",
    row_id text NOT NULL COLLATE pg_catalog."C",
    endpoint text NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE walhook.endpoint_states (
    slot text NOT NULL COLLATE pg_catalog."C",
    endpoint text NOT NULL COLLATE pg_catalog."C",
    paused_at timestamp with time zone,
    paused_by text,
    target integer
);
CREATE TABLE walhook.endpoints (
    slot text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    settings jsonb NOT NULL,
    sealed_secrets bytea,
    enabled boolean DEFAULT true NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    created_by text NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_by text NOT NULL
);
CREATE TABLE walhook.fronts (
    slot text NOT NULL COLLATE pg_catalog."C",
    endpoint text NOT NULL COLLATE pg_catalog."C",
    before_lsn pg_lsn NOT NULL,
    before_ordinal bigint NOT NULL
)
WITH (fillfactor='20', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='500');
CREATE TABLE walhook.gaps (
    slot text NOT NULL COLLATE pg_catalog."C",
    commit_lsn pg_lsn NOT NULL,
    sent bigint NOT NULL,
    reason text NOT NULL,
    skipped_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE walhook.progress (
    slot text NOT NULL COLLATE pg_catalog."C",
    system_identifier bigint,
    timeline integer,
    publication_oids oid[] DEFAULT '{}'::oid[] NOT NULL,
    settled_lsn pg_lsn,
    settled_ordinal bigint,
    confirmed_lsn pg_lsn,
    epoch bigint NOT NULL,
    flush bigint DEFAULT 0 NOT NULL,
    holder text NOT NULL,
    held_since timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    event_types text[],
    event_tables text[],
    confirmed_at timestamp with time zone
)
WITH (fillfactor='20', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='500');
CREATE VIEW walhook.push_log AS
 SELECT push_log_events.id,
    push_log_events.created_at,
    push_log_events.slot,
    push_log_events.endpoint,
    push_log_events.event_id,
    push_log_events.event_type,
    push_log_events.table_schema,
    push_log_events.table_name,
    push_log_events.row_key,
    push_log_events.retry_count,
    push_log_events.outcome,
    push_log_events.http_status,
    push_log_events.failure_class,
    push_log_events.error_message,
    (push_log_events.request_headers)::json AS request_headers,
    push_log_events.request_body,
    (push_log_events.response_headers)::json AS response_headers,
    push_log_events.response_body,
    push_log_events.duration_ms,
    push_log_events.replay
   FROM walhook.push_log_events
UNION ALL
 SELECT b.id,
    b.created_at,
    b.slot,
    b.endpoint,
    e.event_id,
    b.event_type,
    b.table_schema,
    b.table_name,
    e.row_key,
    b.retry_count,
    'delivered'::text AS outcome,
    b.http_status,
    NULL::text AS failure_class,
    NULL::text AS error_message,
    (b.request_headers)::json AS request_headers,
    NULL::text AS request_body,
    (b.response_headers)::json AS response_headers,
    NULL::text AS response_body,
    b.duration_ms,
    b.replay
   FROM walhook.push_log_batches b,
    LATERAL UNNEST(b.event_ids, b.row_keys) e(event_id, row_key);
CREATE TABLE walhook.push_log_batches_20261130 (
    id bigint DEFAULT nextval('walhook.push_log_id_seq'::regclass) NOT NULL,
    created_at timestamp with time zone NOT NULL,
    slot text NOT NULL COLLATE pg_catalog."C",
    endpoint text NOT NULL COLLATE pg_catalog."C",
    event_type text NOT NULL,
    table_schema text NOT NULL,
    table_name text NOT NULL,
    retry_count integer NOT NULL,
    http_status integer,
    request_headers text,
    response_headers text,
    duration_ms double precision NOT NULL,
    replay boolean NOT NULL,
    events integer NOT NULL,
    event_ids text[] NOT NULL COLLATE pg_catalog."C",
    row_keys text[] NOT NULL COLLATE pg_catalog."C"
)
WITH (toast_tuple_target='8160');
ALTER TABLE ONLY walhook.push_log_batches_20261130 ALTER COLUMN event_ids SET STATISTICS 0;
ALTER TABLE ONLY walhook.push_log_batches_20261130 ALTER COLUMN row_keys SET STATISTICS 0;
CREATE TABLE walhook.push_log_batches_20261201 (
    id bigint DEFAULT nextval('walhook.push_log_id_seq'::regclass) NOT NULL,
    created_at timestamp with time zone NOT NULL,
    slot text NOT NULL COLLATE pg_catalog."C",
    endpoint text NOT NULL COLLATE pg_catalog."C",
    event_type text NOT NULL,
    table_schema text NOT NULL,
    table_name text NOT NULL,
    retry_count integer NOT NULL,
    http_status integer,
    request_headers text,
    response_headers text,
    duration_ms double precision NOT NULL,
    replay boolean NOT NULL,
    events integer NOT NULL,
    event_ids text[] NOT NULL COLLATE pg_catalog."C",
    row_keys text[] NOT NULL COLLATE pg_catalog."C"
)
WITH (toast_tuple_target='8160');
ALTER TABLE ONLY walhook.push_log_batches_20261201 ALTER COLUMN event_ids SET STATISTICS 0;
ALTER TABLE ONLY walhook.push_log_batches_20261201 ALTER COLUMN row_keys SET STATISTICS 0;
CREATE TABLE walhook.push_log_events_20261130 (
    id bigint DEFAULT nextval('walhook.push_log_id_seq'::regclass) NOT NULL,
    created_at timestamp with time zone NOT NULL,
    slot text NOT NULL COLLATE pg_catalog."C",
    endpoint text NOT NULL COLLATE pg_catalog."C",
    event_id text NOT NULL COLLATE pg_catalog."C",
    event_type text NOT NULL,
    table_schema text NOT NULL,
    table_name text NOT NULL,
    row_key text COLLATE pg_catalog."C",
    retry_count integer NOT NULL,
    outcome text NOT NULL,
    http_status integer,
    failure_class text,
    error_message text,
    request_headers text,
    request_body text,
    response_headers text,
    response_body text,
    duration_ms double precision NOT NULL,
    replay boolean DEFAULT false NOT NULL,
    first_key bigint,
    second_key bigint,
    expires_at timestamp with time zone,
    shape_headers json,
    body_whole boolean DEFAULT false NOT NULL
);
CREATE TABLE walhook.push_log_events_20261201 (
    id bigint DEFAULT nextval('walhook.push_log_id_seq'::regclass) NOT NULL,
    created_at timestamp with time zone NOT NULL,
    slot text NOT NULL COLLATE pg_catalog."C",
    endpoint text NOT NULL COLLATE pg_catalog."C",
    event_id text NOT NULL COLLATE pg_catalog."C",
    event_type text NOT NULL,
    table_schema text NOT NULL,
    table_name text NOT NULL,
    row_key text COLLATE pg_catalog."C",
    retry_count integer NOT NULL,
    outcome text NOT NULL,
    http_status integer,
    failure_class text,
    error_message text,
    request_headers text,
    request_body text,
    response_headers text,
    response_body text,
    duration_ms double precision NOT NULL,
    replay boolean DEFAULT false NOT NULL,
    first_key bigint,
    second_key bigint,
    expires_at timestamp with time zone,
    shape_headers json,
    body_whole boolean DEFAULT false NOT NULL
);
CREATE TABLE walhook.push_totals (
    slot text NOT NULL COLLATE pg_catalog."C",
    succeeded bigint DEFAULT 0 NOT NULL,
    failed bigint DEFAULT 0 NOT NULL,
    timed bigint DEFAULT 0 NOT NULL,
    response_micros bigint DEFAULT 0 NOT NULL,
    last_push_at timestamp with time zone
)
WITH (fillfactor='20', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='500');
CREATE TABLE walhook.renames (
    slot text NOT NULL COLLATE pg_catalog."C",
    old_name text NOT NULL COLLATE pg_catalog."C",
    new_name text NOT NULL COLLATE pg_catalog."C",
    renamed_at timestamp with time zone DEFAULT now() NOT NULL,
    renamed_by text NOT NULL
);
CREATE TABLE walhook.replays (
    id bigint NOT NULL,
    slot text NOT NULL COLLATE pg_catalog."C",
    endpoint text NOT NULL COLLATE pg_catalog."C",
    event_id text COLLATE pg_catalog."C",
    event_type text,
    row_key text,
    from_time timestamp with time zone,
    before_time timestamp with time zone NOT NULL,
    per_second integer NOT NULL,
    state text DEFAULT 'running'::text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone,
    done_time timestamp with time zone,
    done_id bigint,
    delivered bigint DEFAULT 0 NOT NULL,
    expired bigint DEFAULT 0 NOT NULL,
    failed bigint DEFAULT 0 NOT NULL,
    without_body bigint DEFAULT 0 NOT NULL,
    CONSTRAINT replays_state_check CHECK ((state = ANY (ARRAY['running'::text, 'paused'::text, 'done'::text, 'cancelled'::text])))
);
ALTER TABLE walhook.replays ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME walhook.replays_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE VIEW walhook.retries_last_day AS
 SELECT log.slot,
    COALESCE(log.endpoint, '*'::text) AS endpoint,
    log.retry_count,
    sum(log.events) AS deliveries,
    COALESCE(sum(log.events) FILTER (WHERE (log.outcome = 'delivered'::text)), (0)::bigint) AS delivered
   FROM ( SELECT push_log_events.slot,
            push_log_events.endpoint,
            push_log_events.created_at,
            push_log_events.outcome,
            push_log_events.retry_count,
            1 AS events
           FROM walhook.push_log_events
        UNION ALL
         SELECT push_log_batches.slot,
            push_log_batches.endpoint,
            push_log_batches.created_at,
            'delivered'::text,
            push_log_batches.retry_count,
            push_log_batches.events
           FROM walhook.push_log_batches) log
  WHERE ((log.created_at >= (now() - '1 day'::interval)) AND (log.outcome = ANY (ARRAY['delivered'::text, 'dead'::text])))
  GROUP BY GROUPING SETS ((log.slot, log.endpoint, log.retry_count), (log.slot, log.retry_count));
CREATE TABLE walhook.runs (
    slot text NOT NULL COLLATE pg_catalog."C",
    running boolean NOT NULL,
    crashes bigint NOT NULL,
    settled_lsn pg_lsn,
    settled_ordinal bigint,
    marked_lsn pg_lsn,
    marked_ordinal bigint,
    marked_stage text,
    suspect_lsn pg_lsn,
    suspect_ordinal bigint,
    suspect_stage text,
    convicted_lsn pg_lsn,
    convicted_ordinal bigint,
    convicted_stage text,
    charges bigint DEFAULT 0 NOT NULL
);
CREATE TABLE walhook.schema_version (
    version integer NOT NULL,
    name text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL,
    applied_by text NOT NULL
);
CREATE TABLE walhook.seen_values (
    slot text NOT NULL COLLATE pg_catalog."C",
    high bigint NOT NULL,
    low bigint NOT NULL,
    event_type text NOT NULL COLLATE pg_catalog."C",
    commit_lsn pg_lsn NOT NULL,
    ordinal bigint NOT NULL,
    committed timestamp with time zone NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0.05', autovacuum_vacuum_threshold='5000', autovacuum_analyze_scale_factor='0.05', autovacuum_analyze_threshold='5000');
CREATE TABLE walhook.settled_ahead (
    slot text NOT NULL COLLATE pg_catalog."C",
    event_id text NOT NULL COLLATE pg_catalog."C",
    endpoint text NOT NULL COLLATE pg_catalog."C"
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='2000', autovacuum_analyze_scale_factor='0', autovacuum_analyze_threshold='10000');
CREATE VIEW walhook.success_last_day AS
 SELECT log.slot,
    COALESCE(log.endpoint, '*'::text) AS endpoint,
    sum(log.events) AS attempts,
    COALESCE(sum(log.events) FILTER (WHERE (log.outcome = 'delivered'::text)), (0)::bigint) AS delivered,
    COALESCE(sum(log.events) FILTER (WHERE (log.outcome = 'dead'::text)), (0)::bigint) AS given_up,
    ((COALESCE(sum(log.events) FILTER (WHERE (log.outcome = 'delivered'::text)), (0)::bigint))::double precision / (sum(log.events) FILTER (WHERE (log.outcome = ANY (ARRAY['delivered'::text, 'dead'::text]))))::double precision) AS success_rate,
    ((COALESCE(sum(log.events) FILTER (WHERE (log.outcome = 'delivered'::text)), (0)::bigint))::double precision / (sum(log.events))::double precision) AS attempt_success_rate
   FROM ( SELECT push_log_events.slot,
            push_log_events.endpoint,
            push_log_events.created_at,
            push_log_events.outcome,
            1 AS events
           FROM walhook.push_log_events
        UNION ALL
         SELECT push_log_batches.slot,
            push_log_batches.endpoint,
            push_log_batches.created_at,
            'delivered'::text,
            push_log_batches.events
           FROM walhook.push_log_batches) log
  WHERE (log.created_at >= (now() - '1 day'::interval))
  GROUP BY GROUPING SETS ((log.slot, log.endpoint), (log.slot));
CREATE TABLE walhook.write_backs (
    slot text NOT NULL COLLATE pg_catalog."C",
    event_id text NOT NULL COLLATE pg_catalog."C",
    event_type text NOT NULL,
    table_schema text NOT NULL,
    table_name text NOT NULL,
    row_id bigint NOT NULL,
    target json NOT NULL,
    owed integer NOT NULL,
    delivered integer NOT NULL,
    failed integer NOT NULL,
    written text,
    due_at timestamp with time zone,
    tries integer DEFAULT 0 NOT NULL,
    last_error text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT write_backs_written_check CHECK ((written = ANY (ARRAY['delivered'::text, 'failed'::text])))
)
WITH (fillfactor='80', autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_threshold='2000', autovacuum_analyze_scale_factor='0.02', autovacuum_analyze_threshold='2000');
ALTER TABLE ONLY walhook.push_log_batches ATTACH PARTITION walhook.push_log_batches_20261130 FOR VALUES FROM ('2026-11-30 00:00:00+00') TO ('2026-12-01 00:00:00+00');
ALTER TABLE ONLY walhook.push_log_batches ATTACH PARTITION walhook.push_log_batches_20261201 FOR VALUES FROM ('2026-12-01 00:00:00+00') TO ('2026-12-02 00:00:00+00');
ALTER TABLE ONLY walhook.push_log_events ATTACH PARTITION walhook.push_log_events_20261130 FOR VALUES FROM ('2026-11-30 00:00:00+00') TO ('2026-12-01 00:00:00+00');
ALTER TABLE ONLY walhook.push_log_events ATTACH PARTITION walhook.push_log_events_20261201 FOR VALUES FROM ('2026-12-01 00:00:00+00') TO ('2026-12-02 00:00:00+00');
ALTER TABLE ONLY walhook.push_log_events ALTER COLUMN id SET DEFAULT nextval('walhook.push_log_id_seq'::regclass);
INSERT INTO public.notes VALUES (1, 'first');
INSERT INTO public.notes VALUES (2, 'second');
INSERT INTO public.notes VALUES (3, 'first');
INSERT INTO public.orders VALUES (1, 'good', 'new');
INSERT INTO public.orders VALUES (2, 'good', 'new');
INSERT INTO public.orders VALUES (3, 'good', 'new');
INSERT INTO public.orders VALUES (4, 'bad', 'new');
INSERT INTO public.orders VALUES (5, 'bad', 'new');
INSERT INTO public.orders VALUES (6, 'hang', 'new');
INSERT INTO public.orders VALUES (7, 'good', 'new');
INSERT INTO walhook.backlog OVERRIDING SYSTEM VALUE VALUES (1, 'waiting_slot', 'down', 'evt_0000000001a30d700000000039bff197090c9caf', '0/1A30D70', 0, 'order.placed', 'public', 'orders', '1', 9126843251008110152, NULL, '2026-11-30 09:47:42.170577+00', NULL, NULL, '{"id":"1"}', '\x0101000000847b2274797065223a226f726465722e706c61636564222c2274696d657374616d70223a22323032362d31312d33305430393a34373a34322e3137305a222c226f7065726174696f6e223a22696e73657274222c2264617461223a7b226964223a312c22637573746f6d6572223a22676f6f64222c22737461747573223a226e6577227d7d', DEFAULT, 1, '2026-11-30 10:27:52.388655+00', '2026-11-30 09:47:42.224473+00', 'retry', '2026-11-30 09:47:42.213249+00', '2026-11-30 09:47:42.213249+00', 503, 'status', '503 Service Unavailable', false, NULL);
INSERT INTO walhook.backlog OVERRIDING SYSTEM VALUE VALUES (2, 'waiting_slot', 'late', 'evt_0000000001a30d700000000039bff197090c9caf', '0/1A30D70', 0, 'order.placed', 'public', 'orders', '1', 9126843251008110152, NULL, '2026-11-30 09:47:42.170577+00', NULL, NULL, '{"id":"1"}', '\x0101000000847b2274797065223a226f726465722e706c61636564222c2274696d657374616d70223a22323032362d31312d33305430393a34373a34322e3137305a222c226f7065726174696f6e223a22696e73657274222c2264617461223a7b226964223a312c22637573746f6d6572223a22676f6f64222c22737461747573223a226e6577227d7d', DEFAULT, 0, NULL, '2026-11-30 09:47:42.216201+00', 'paused', NULL, NULL, NULL, NULL, NULL, false, NULL);
INSERT INTO walhook.backlog OVERRIDING SYSTEM VALUE VALUES (3, 'waiting_slot', 'late', 'evt_0000000001a318480000000039bff197090c9caf', '0/1A31848', 0, 'order.placed', 'public', 'orders', '2', 3944302075000379069, NULL, '2026-11-30 09:47:42.27967+00', NULL, NULL, '{"id":"2"}', '\x0101000000847b2274797065223a226f726465722e706c61636564222c2274696d657374616d70223a22323032362d31312d33305430393a34373a34322e3237395a222c226f7065726174696f6e223a22696e73657274222c2264617461223a7b226964223a322c22637573746f6d6572223a22676f6f64222c22737461747573223a226e6577227d7d', DEFAULT, 0, NULL, '2026-11-30 09:47:42.296218+00', 'paused', NULL, NULL, NULL, NULL, NULL, false, NULL);
INSERT INTO walhook.backlog OVERRIDING SYSTEM VALUE VALUES (4, 'waiting_slot', 'down', 'evt_0000000001a318480000000039bff197090c9caf', '0/1A31848', 0, 'order.placed', 'public', 'orders', '2', 3944302075000379069, NULL, '2026-11-30 09:47:42.27967+00', NULL, NULL, '{"id":"2"}', '\x0101000000847b2274797065223a226f726465722e706c61636564222c2274696d657374616d70223a22323032362d31312d33305430393a34373a34322e3237395a222c226f7065726174696f6e223a22696e73657274222c2264617461223a7b226964223a322c22637573746f6d6572223a22676f6f64222c22737461747573223a226e6577227d7d', DEFAULT, 1, '2026-11-30 10:32:24.269962+00', '2026-11-30 09:47:42.297021+00', 'retry', '2026-11-30 09:47:42.290238+00', '2026-11-30 09:47:42.290238+00', 503, 'status', '503 Service Unavailable', false, NULL);
INSERT INTO walhook.backlog OVERRIDING SYSTEM VALUE VALUES (5, 'waiting_slot', 'late', 'evt_0000000001a33fd00000000039bff197090c9caf', '0/1A33FD0', 0, 'order.placed', 'public', 'orders', '3', -5290707414911069271, NULL, '2026-11-30 09:47:42.42358+00', NULL, NULL, '{"id":"3"}', '\x0101000000847b2274797065223a226f726465722e706c61636564222c2274696d657374616d70223a22323032362d31312d33305430393a34373a34322e3432335a222c226f7065726174696f6e223a22696e73657274222c2264617461223a7b226964223a332c22637573746f6d6572223a22676f6f64222c22737461747573223a226e6577227d7d', DEFAULT, 0, NULL, '2026-11-30 09:47:42.440327+00', 'paused', NULL, NULL, NULL, NULL, NULL, false, NULL);
INSERT INTO walhook.backlog OVERRIDING SYSTEM VALUE VALUES (6, 'waiting_slot', 'down', 'evt_0000000001a33fd00000000039bff197090c9caf', '0/1A33FD0', 0, 'order.placed', 'public', 'orders', '3', -5290707414911069271, NULL, '2026-11-30 09:47:42.42358+00', NULL, NULL, '{"id":"3"}', '\x0101000000847b2274797065223a226f726465722e706c61636564222c2274696d657374616d70223a22323032362d31312d33305430393a34373a34322e3432335a222c226f7065726174696f6e223a22696e73657274222c2264617461223a7b226964223a332c22637573746f6d6572223a22676f6f64222c22737461747573223a226e6577227d7d', DEFAULT, 1, '2026-11-30 10:40:07.018619+00', '2026-11-30 09:47:42.440757+00', 'retry', '2026-11-30 09:47:42.434337+00', '2026-11-30 09:47:42.434337+00', 503, 'status', '503 Service Unavailable', false, NULL);
INSERT INTO walhook.backlog OVERRIDING SYSTEM VALUE VALUES (7, 'waiting_slot', 'late', 'evt_0000000001a357080000000039bff197090c9caf', '0/1A35708', 0, 'order.placed', 'public', 'orders', '4', 6330476193792581000, NULL, '2026-11-30 09:47:42.579919+00', NULL, NULL, '{"id":"4"}', '\x0101000000837b2274797065223a226f726465722e706c61636564222c2274696d657374616d70223a22323032362d31312d33305430393a34373a34322e3537395a222c226f7065726174696f6e223a22696e73657274222c2264617461223a7b226964223a342c22637573746f6d6572223a22626164222c22737461747573223a226e6577227d7d', DEFAULT, 0, NULL, '2026-11-30 09:47:42.609551+00', 'paused', NULL, NULL, NULL, NULL, NULL, false, NULL);
INSERT INTO walhook.backlog OVERRIDING SYSTEM VALUE VALUES (8, 'waiting_slot', 'down', 'evt_0000000001a357080000000039bff197090c9caf', '0/1A35708', 0, 'order.placed', 'public', 'orders', '4', 6330476193792581000, NULL, '2026-11-30 09:47:42.579919+00', NULL, NULL, '{"id":"4"}', '\x0101000000837b2274797065223a226f726465722e706c61636564222c2274696d657374616d70223a22323032362d31312d33305430393a34373a34322e3537395a222c226f7065726174696f6e223a22696e73657274222c2264617461223a7b226964223a342c22637573746f6d6572223a22626164222c22737461747573223a226e6577227d7d', DEFAULT, 1, '2026-11-30 10:45:50.894581+00', '2026-11-30 09:47:42.611677+00', 'retry', '2026-11-30 09:47:42.609274+00', '2026-11-30 09:47:42.609274+00', 503, 'status', '503 Service Unavailable', false, NULL);
INSERT INTO walhook.backlog OVERRIDING SYSTEM VALUE VALUES (9, 'waiting_slot', 'late', 'evt_0000000001a357080000000139bff197090c9caf', '0/1A35708', 1, 'order.placed', 'public', 'orders', '5', -5682240452699859665, NULL, '2026-11-30 09:47:42.579919+00', NULL, NULL, '{"id":"5"}', '\x0101000000837b2274797065223a226f726465722e706c61636564222c2274696d657374616d70223a22323032362d31312d33305430393a34373a34322e3537395a222c226f7065726174696f6e223a22696e73657274222c2264617461223a7b226964223a352c22637573746f6d6572223a22626164222c22737461747573223a226e6577227d7d', DEFAULT, 0, NULL, '2026-11-30 09:47:42.609551+00', 'paused', NULL, NULL, NULL, NULL, NULL, false, NULL);
INSERT INTO walhook.backlog OVERRIDING SYSTEM VALUE VALUES (10, 'waiting_slot', 'down', 'evt_0000000001a357080000000139bff197090c9caf', '0/1A35708', 1, 'order.placed', 'public', 'orders', '5', -5682240452699859665, NULL, '2026-11-30 09:47:42.579919+00', NULL, NULL, '{"id":"5"}', '\x0101000000837b2274797065223a226f726465722e706c61636564222c2274696d657374616d70223a22323032362d31312d33305430393a34373a34322e3537395a222c226f7065726174696f6e223a22696e73657274222c2264617461223a7b226964223a352c22637573746f6d6572223a22626164222c22737461747573223a226e6577227d7d', DEFAULT, 1, '2026-11-30 10:26:15.839843+00', '2026-11-30 09:47:42.611677+00', 'outage', '2026-11-30 09:47:42.610783+00', '2026-11-30 09:47:42.610783+00', 503, 'status', '503 Service Unavailable', false, NULL);
INSERT INTO walhook.backlog OVERRIDING SYSTEM VALUE VALUES (12, 'waiting_slot', 'late', 'evt_0000000001a387480000000039bff197090c9caf', '0/1A38748', 0, 'order.placed', 'public', 'orders', '6', -6952987221599982655, NULL, '2026-11-30 09:47:42.753865+00', NULL, NULL, '{"id":"6"}', '\x0101000000847b2274797065223a226f726465722e706c61636564222c2274696d657374616d70223a22323032362d31312d33305430393a34373a34322e3735335a222c226f7065726174696f6e223a22696e73657274222c2264617461223a7b226964223a362c22637573746f6d6572223a2268616e67222c22737461747573223a226e6577227d7d', DEFAULT, 0, NULL, '2026-11-30 09:47:42.760936+00', 'paused', NULL, NULL, NULL, NULL, NULL, false, NULL);
INSERT INTO walhook.backlog OVERRIDING SYSTEM VALUE VALUES (13, 'waiting_slot', 'down', 'evt_0000000001a393d80000000039bff197090c9caf', '0/1A393D8', 0, 'order.placed', 'public', 'orders', '7', 2786463897635813078, NULL, '2026-11-30 09:47:42.87987+00', NULL, NULL, '{"id":"7"}', '\x0101000000847b2274797065223a226f726465722e706c61636564222c2274696d657374616d70223a22323032362d31312d33305430393a34373a34322e3837395a222c226f7065726174696f6e223a22696e73657274222c2264617461223a7b226964223a372c22637573746f6d6572223a22676f6f64222c22737461747573223a226e6577227d7d', DEFAULT, 0, NULL, '2026-11-30 09:47:42.89852+00', 'outage', NULL, NULL, NULL, NULL, NULL, false, NULL);
INSERT INTO walhook.backlog OVERRIDING SYSTEM VALUE VALUES (14, 'waiting_slot', 'late', 'evt_0000000001a393d80000000039bff197090c9caf', '0/1A393D8', 0, 'order.placed', 'public', 'orders', '7', 2786463897635813078, NULL, '2026-11-30 09:47:42.87987+00', NULL, NULL, '{"id":"7"}', '\x0101000000847b2274797065223a226f726465722e706c61636564222c2274696d657374616d70223a22323032362d31312d33305430393a34373a34322e3837395a222c226f7065726174696f6e223a22696e73657274222c2264617461223a7b226964223a372c22637573746f6d6572223a22676f6f64222c22737461747573223a226e6577227d7d', DEFAULT, 0, NULL, '2026-11-30 09:47:42.898643+00', 'paused', NULL, NULL, NULL, NULL, NULL, false, NULL);
INSERT INTO walhook.backlog OVERRIDING SYSTEM VALUE VALUES (11, 'waiting_slot', 'down', 'evt_0000000001a387480000000039bff197090c9caf', '0/1A38748', 0, 'order.placed', 'public', 'orders', '6', -6952987221599982655, NULL, '2026-11-30 09:47:42.753865+00', NULL, NULL, '{"id":"6"}', '\x0101000000847b2274797065223a226f726465722e706c61636564222c2274696d657374616d70223a22323032362d31312d33305430393a34373a34322e3735335a222c226f7065726174696f6e223a22696e73657274222c2264617461223a7b226964223a362c22637573746f6d6572223a2268616e67222c22737461747573223a226e6577227d7d', DEFAULT, 0, '2026-11-30 09:47:49.987521+00', '2026-11-30 09:47:42.760854+00', 'outage', '2026-11-30 09:47:43.415699+00', '2026-11-30 09:47:45.064731+00', 503, 'status', '503 Service Unavailable', false, NULL);
INSERT INTO walhook.books VALUES ('waiting_slot', 'late', 'public', 'notes', 3, 0, 3, 0, 0);
INSERT INTO walhook.books VALUES ('waiting_slot', 'slow', 'public', 'notes', 3, 0, 3, 0, 0);
INSERT INTO walhook.books VALUES ('waiting_slot', 'down', 'public', 'notes', 3, 0, 3, 0, 0);
INSERT INTO walhook.books VALUES ('waiting_slot', 'crm', 'public', 'notes', 3, 2, 1, 0, 0);
INSERT INTO walhook.books VALUES ('waiting_slot', 'down', 'public', 'orders', 7, 0, 0, 0, 0);
INSERT INTO walhook.books VALUES ('waiting_slot', 'late', 'public', 'orders', 7, 0, 0, 0, 0);
INSERT INTO walhook.books VALUES ('waiting_slot', 'crm', 'public', 'orders', 6, 4, 0, 0, 2);
INSERT INTO walhook.counted VALUES ('waiting_slot', 'crm');
INSERT INTO walhook.counted VALUES ('waiting_slot', 'down');
INSERT INTO walhook.counted VALUES ('waiting_slot', 'late');
INSERT INTO walhook.counted VALUES ('waiting_slot', 'slow');
INSERT INTO walhook.dead_letters OVERRIDING SYSTEM VALUE VALUES (1, 'waiting_slot', 'crm', 'evt_0000000001a357080000000039bff197090c9caf', '0/1A35708', 0, 'order.placed', 'public', 'orders', '4', 6330476193792581000, NULL, '2026-11-30 09:47:42.579919+00', NULL, NULL, '{"id":"4"}', '\x0101000000837b2274797065223a226f726465722e706c61636564222c2274696d657374616d70223a22323032362d31312d33305430393a34373a34322e3537395a222c226f7065726174696f6e223a22696e73657274222c2264617461223a7b226964223a342c22637573746f6d6572223a22626164222c22737461747573223a226e6577227d7d', DEFAULT, 'rejected, status: 400 Bad Request', 'status', 400, 1, '2026-11-30 09:47:42.608338+00', '2026-11-30 09:47:42.608338+00', '2026-11-30 09:47:42.62448+00', 'dead', 0, NULL, NULL);
INSERT INTO walhook.dead_letters OVERRIDING SYSTEM VALUE VALUES (2, 'waiting_slot', 'crm', 'evt_0000000001a357080000000139bff197090c9caf', '0/1A35708', 1, 'order.placed', 'public', 'orders', '5', -5682240452699859665, NULL, '2026-11-30 09:47:42.579919+00', NULL, NULL, '{"id":"5"}', '\x0101000000837b2274797065223a226f726465722e706c61636564222c2274696d657374616d70223a22323032362d31312d33305430393a34373a34322e3537395a222c226f7065726174696f6e223a22696e73657274222c2264617461223a7b226964223a352c22637573746f6d6572223a22626164222c22737461747573223a226e6577227d7d', DEFAULT, 'rejected, status: 400 Bad Request', 'status', 400, 1, '2026-11-30 09:47:42.608338+00', '2026-11-30 09:47:42.608338+00', '2026-11-30 09:47:42.62448+00', 'dead', 0, NULL, NULL);
INSERT INTO walhook.endpoint_states VALUES ('waiting_slot', 'crm', NULL, NULL, 21833);
INSERT INTO walhook.endpoint_states VALUES ('waiting_slot', 'down', NULL, NULL, 59819);
INSERT INTO walhook.endpoint_states VALUES ('waiting_slot', 'slow', NULL, NULL, 42224);
INSERT INTO walhook.endpoint_states VALUES ('waiting_slot', 'late', '2026-11-30 09:47:41.682772+00', '127.0.0.1', NULL);
INSERT INTO walhook.endpoints VALUES ('waiting_slot', 'late', '{"message": null, "endpoint": {"url": "http://127.0.0.1:39001/late", "name": "late", "events": ["order.*"]}, "is_leaving": false}', NULL, true, '2026-11-30 09:47:41.564829+00', '127.0.0.1', '2026-11-30 09:47:41.564829+00', '127.0.0.1');
INSERT INTO walhook.fronts VALUES ('waiting_slot', 'crm', '0/1A35708', 2);
INSERT INTO walhook.fronts VALUES ('waiting_slot', 'down', '0/1A393D8', 1);
INSERT INTO walhook.fronts VALUES ('waiting_slot', 'late', '0/1A393D8', 1);
INSERT INTO walhook.progress VALUES ('waiting_slot', 7713898946892077954, 1, '{16675}', '0/1A307B0', 0, '0/1A307E0', 1, 12, 'walhook 0.1.0 on host vm, pid 7126', '2026-11-30 09:47:41.182996+00', '2026-11-30 09:47:47.07109+00', '{note.added,order.placed}', '{public.notes,public.orders}', '2026-11-30 09:47:41.865995+00');
INSERT INTO walhook.push_log_events_20261130 VALUES (1, '2026-11-30 09:47:41.876535+00', 'waiting_slot', 'crm', 'evt_0000000001a2f0480000000083a873477557315b', 'note.added', 'public', 'notes', '1', 0, 'delivered', 200, NULL, NULL, '{"accept":"*/*","content-type":"application/json","user-agent":"walhook/0.1.0","host":"127.0.0.1:39001","webhook-id":"evt_0000000001a2f0480000000083a873477557315b","webhook-timestamp":"1796032061"}', '{"type":"note.added","timestamp":"2026-11-30T09:47:41.865Z","operation":"insert","data":{"id":1,"text":"first"}}', '{"server":"BaseHTTP/0.6 Python/3.11.7","date":"Mon, 30 Nov 2026 09:47:41 GMT","content-length":"0"}', '', 12.080616000000001, false, -931525722832407750, NULL, NULL, NULL, true);
INSERT INTO walhook.push_log_events_20261130 VALUES (2, '2026-11-30 09:47:41.876864+00', 'waiting_slot', 'crm', 'evt_0000000001a2f0480000000183a873477557315b', 'note.added', 'public', 'notes', '2', 0, 'delivered', 200, NULL, NULL, '{"accept":"*/*","content-type":"application/json","user-agent":"walhook/0.1.0","host":"127.0.0.1:39001","webhook-id":"evt_0000000001a2f0480000000183a873477557315b","webhook-timestamp":"1796032061"}', '{"type":"note.added","timestamp":"2026-11-30T09:47:41.865Z","operation":"insert","data":{"id":2,"text":"second"}}', '{"server":"BaseHTTP/0.6 Python/3.11.7","date":"Mon, 30 Nov 2026 09:47:41 GMT","content-length":"0"}', '', 11.924453999999999, false, -3457186852788754249, NULL, NULL, NULL, true);
INSERT INTO walhook.push_log_events_20261130 VALUES (3, '2026-11-30 09:47:42.212944+00', 'waiting_slot', 'crm', 'evt_0000000001a30d700000000039bff197090c9caf', 'order.placed', 'public', 'orders', '1', 0, 'delivered', 200, NULL, NULL, '{"accept":"*/*","content-type":"application/json","user-agent":"walhook/0.1.0","host":"127.0.0.1:39001","webhook-id":"evt_0000000001a30d700000000039bff197090c9caf","webhook-timestamp":"1796032062"}', '{"type":"order.placed","timestamp":"2026-11-30T09:47:42.170Z","operation":"insert","data":{"id":1,"customer":"good","status":"new"}}', '{"server":"BaseHTTP/0.6 Python/3.11.7","date":"Mon, 30 Nov 2026 09:47:42 GMT","content-length":"0"}', '', 5.56738, false, 9126843251008110152, NULL, NULL, NULL, true);
INSERT INTO walhook.push_log_events_20261130 VALUES (4, '2026-11-30 09:47:42.213338+00', 'waiting_slot', 'down', 'evt_0000000001a30d700000000039bff197090c9caf', 'order.placed', 'public', 'orders', '1', 0, 'retry', 503, 'status', '503 Service Unavailable', '{"accept":"*/*","content-type":"application/json","user-agent":"walhook/0.1.0","host":"127.0.0.1:39001","webhook-id":"evt_0000000001a30d700000000039bff197090c9caf","webhook-timestamp":"1796032062"}', '{"type":"order.placed","timestamp":"2026-11-30T09:47:42.170Z","operation":"insert","data":{"id":1,"customer":"good","status":"new"}}', '{"server":"BaseHTTP/0.6 Python/3.11.7","date":"Mon, 30 Nov 2026 09:47:42 GMT","content-length":"0"}', '', 5.467077, false, 9126843251008110152, NULL, NULL, NULL, true);
INSERT INTO walhook.push_log_events_20261130 VALUES (5, '2026-11-30 09:47:42.288506+00', 'waiting_slot', 'crm', 'evt_0000000001a318480000000039bff197090c9caf', 'order.placed', 'public', 'orders', '2', 0, 'delivered', 200, NULL, NULL, '{"accept":"*/*","content-type":"application/json","user-agent":"walhook/0.1.0","host":"127.0.0.1:39001","webhook-id":"evt_0000000001a318480000000039bff197090c9caf","webhook-timestamp":"1796032062"}', '{"type":"order.placed","timestamp":"2026-11-30T09:47:42.279Z","operation":"insert","data":{"id":2,"customer":"good","status":"new"}}', '{"server":"BaseHTTP/0.6 Python/3.11.7","date":"Mon, 30 Nov 2026 09:47:42 GMT","content-length":"0"}', '', 2.27503, false, 3944302075000379069, NULL, NULL, NULL, true);
INSERT INTO walhook.push_log_events_20261130 VALUES (6, '2026-11-30 09:47:42.290371+00', 'waiting_slot', 'down', 'evt_0000000001a318480000000039bff197090c9caf', 'order.placed', 'public', 'orders', '2', 0, 'retry', 503, 'status', '503 Service Unavailable', '{"accept":"*/*","content-type":"application/json","user-agent":"walhook/0.1.0","host":"127.0.0.1:39001","webhook-id":"evt_0000000001a318480000000039bff197090c9caf","webhook-timestamp":"1796032062"}', '{"type":"order.placed","timestamp":"2026-11-30T09:47:42.279Z","operation":"insert","data":{"id":2,"customer":"good","status":"new"}}', '{"server":"BaseHTTP/0.6 Python/3.11.7","date":"Mon, 30 Nov 2026 09:47:42 GMT","content-length":"0"}', '', 6.539823, false, 3944302075000379069, NULL, NULL, NULL, true);
INSERT INTO walhook.push_log_events_20261130 VALUES (7, '2026-11-30 09:47:42.433042+00', 'waiting_slot', 'crm', 'evt_0000000001a33fd00000000039bff197090c9caf', 'order.placed', 'public', 'orders', '3', 0, 'delivered', 200, NULL, NULL, '{"accept":"*/*","content-type":"application/json","user-agent":"walhook/0.1.0","host":"127.0.0.1:39001","webhook-id":"evt_0000000001a33fd00000000039bff197090c9caf","webhook-timestamp":"1796032062"}', '{"type":"order.placed","timestamp":"2026-11-30T09:47:42.423Z","operation":"insert","data":{"id":3,"customer":"good","status":"new"}}', '{"server":"BaseHTTP/0.6 Python/3.11.7","date":"Mon, 30 Nov 2026 09:47:42 GMT","content-length":"0"}', '', 3.4703809999999997, false, -5290707414911069271, NULL, NULL, NULL, true);
INSERT INTO walhook.push_log_events_20261130 VALUES (8, '2026-11-30 09:47:42.434433+00', 'waiting_slot', 'down', 'evt_0000000001a33fd00000000039bff197090c9caf', 'order.placed', 'public', 'orders', '3', 0, 'retry', 503, 'status', '503 Service Unavailable', '{"accept":"*/*","content-type":"application/json","user-agent":"walhook/0.1.0","host":"127.0.0.1:39001","webhook-id":"evt_0000000001a33fd00000000039bff197090c9caf","webhook-timestamp":"1796032062"}', '{"type":"order.placed","timestamp":"2026-11-30T09:47:42.423Z","operation":"insert","data":{"id":3,"customer":"good","status":"new"}}', '{"server":"BaseHTTP/0.6 Python/3.11.7","date":"Mon, 30 Nov 2026 09:47:42 GMT","content-length":"0"}', '', 2.282671, false, -5290707414911069271, NULL, NULL, NULL, true);
INSERT INTO walhook.push_log_events_20261130 VALUES (9, '2026-11-30 09:47:42.60937+00', 'waiting_slot', 'down', 'evt_0000000001a357080000000039bff197090c9caf', 'order.placed', 'public', 'orders', '4', 0, 'retry', 503, 'status', '503 Service Unavailable', '{"accept":"*/*","content-type":"application/json","user-agent":"walhook/0.1.0","host":"127.0.0.1:39001","webhook-id":"evt_0000000001a357080000000039bff197090c9caf","webhook-timestamp":"1796032062"}', '{"type":"order.placed","timestamp":"2026-11-30T09:47:42.579Z","operation":"insert","data":{"id":4,"customer":"bad","status":"new"}}', '{"server":"BaseHTTP/0.6 Python/3.11.7","date":"Mon, 30 Nov 2026 09:47:42 GMT","content-length":"0"}', '', 1.3641619999999999, false, 6330476193792581000, NULL, NULL, NULL, true);
INSERT INTO walhook.push_log_events_20261130 VALUES (10, '2026-11-30 09:47:42.610873+00', 'waiting_slot', 'down', 'evt_0000000001a357080000000139bff197090c9caf', 'order.placed', 'public', 'orders', '5', 0, 'retry', 503, 'status', '503 Service Unavailable', '{"accept":"*/*","content-type":"application/json","user-agent":"walhook/0.1.0","host":"127.0.0.1:39001","webhook-id":"evt_0000000001a357080000000139bff197090c9caf","webhook-timestamp":"1796032062"}', '{"type":"order.placed","timestamp":"2026-11-30T09:47:42.579Z","operation":"insert","data":{"id":5,"customer":"bad","status":"new"}}', '{"server":"BaseHTTP/0.6 Python/3.11.7","date":"Mon, 30 Nov 2026 09:47:42 GMT","content-length":"0"}', '', 0.446158, false, -5682240452699859665, NULL, NULL, NULL, true);
INSERT INTO walhook.push_log_events_20261130 VALUES (11, '2026-11-30 09:47:42.60878+00', 'waiting_slot', 'crm', 'evt_0000000001a357080000000039bff197090c9caf', 'order.placed', 'public', 'orders', '4', 0, 'dead', 400, 'status', '400 Bad Request', '{"accept":"*/*","content-type":"application/json","user-agent":"walhook/0.1.0","host":"127.0.0.1:39001","webhook-id":"evt_0000000001a357080000000039bff197090c9caf","webhook-timestamp":"1796032062"}', '{"type":"order.placed","timestamp":"2026-11-30T09:47:42.579Z","operation":"insert","data":{"id":4,"customer":"bad","status":"new"}}', '{"server":"BaseHTTP/0.6 Python/3.11.7","date":"Mon, 30 Nov 2026 09:47:42 GMT","content-length":"0"}', '', 15.401238, false, 6330476193792581000, NULL, NULL, NULL, true);
INSERT INTO walhook.push_log_events_20261130 VALUES (12, '2026-11-30 09:47:42.609112+00', 'waiting_slot', 'crm', 'evt_0000000001a357080000000139bff197090c9caf', 'order.placed', 'public', 'orders', '5', 0, 'dead', 400, 'status', '400 Bad Request', '{"accept":"*/*","content-type":"application/json","user-agent":"walhook/0.1.0","host":"127.0.0.1:39001","webhook-id":"evt_0000000001a357080000000139bff197090c9caf","webhook-timestamp":"1796032062"}', '{"type":"order.placed","timestamp":"2026-11-30T09:47:42.579Z","operation":"insert","data":{"id":5,"customer":"bad","status":"new"}}', '{"server":"BaseHTTP/0.6 Python/3.11.7","date":"Mon, 30 Nov 2026 09:47:42 GMT","content-length":"0"}', '', 15.291933, false, -5682240452699859665, NULL, NULL, NULL, true);
INSERT INTO walhook.push_log_events_20261130 VALUES (13, '2026-11-30 09:47:42.896691+00', 'waiting_slot', 'crm', 'evt_0000000001a393d80000000039bff197090c9caf', 'order.placed', 'public', 'orders', '7', 0, 'delivered', 200, NULL, NULL, '{"accept":"*/*","content-type":"application/json","user-agent":"walhook/0.1.0","host":"127.0.0.1:39001","webhook-id":"evt_0000000001a393d80000000039bff197090c9caf","webhook-timestamp":"1796032062"}', '{"type":"order.placed","timestamp":"2026-11-30T09:47:42.879Z","operation":"insert","data":{"id":7,"customer":"good","status":"new"}}', '{"server":"BaseHTTP/0.6 Python/3.11.7","date":"Mon, 30 Nov 2026 09:47:42 GMT","content-length":"0"}', '', 1.3674279999999999, false, 2786463897635813078, NULL, NULL, NULL, true);
INSERT INTO walhook.push_log_events_20261130 VALUES (14, '2026-11-30 09:47:43.416058+00', 'waiting_slot', 'down', 'evt_0000000001a387480000000039bff197090c9caf', 'order.placed', 'public', 'orders', '6', 0, 'retry', 503, 'status', '503 Service Unavailable', '{"accept":"*/*","content-type":"application/json","user-agent":"walhook/0.1.0","host":"127.0.0.1:39001","webhook-id":"evt_0000000001a387480000000039bff197090c9caf","webhook-timestamp":"1796032063"}', '{"type":"order.placed","timestamp":"2026-11-30T09:47:42.753Z","operation":"insert","data":{"id":6,"customer":"hang","status":"new"}}', '{"server":"BaseHTTP/0.6 Python/3.11.7","date":"Mon, 30 Nov 2026 09:47:43 GMT","content-length":"0"}', '', 8.478556999999999, false, -6952987221599982655, NULL, NULL, NULL, true);
INSERT INTO walhook.push_log_events_20261130 VALUES (15, '2026-11-30 09:47:45.065281+00', 'waiting_slot', 'down', 'evt_0000000001a387480000000039bff197090c9caf', 'order.placed', 'public', 'orders', '6', 0, 'retry', 503, 'status', '503 Service Unavailable', '{"accept":"*/*","content-type":"application/json","user-agent":"walhook/0.1.0","host":"127.0.0.1:39001","webhook-id":"evt_0000000001a387480000000039bff197090c9caf","webhook-timestamp":"1796032065"}', '{"type":"order.placed","timestamp":"2026-11-30T09:47:42.753Z","operation":"insert","data":{"id":6,"customer":"hang","status":"new"}}', '{"server":"BaseHTTP/0.6 Python/3.11.7","date":"Mon, 30 Nov 2026 09:47:45 GMT","content-length":"0"}', '', 15.276983, false, -6952987221599982655, NULL, NULL, NULL, true);
INSERT INTO walhook.push_log_events_20261130 VALUES (16, '2026-11-30 09:47:46.020867+00', 'waiting_slot', 'crm', 'evt_0000000001a30d700000000039bff197090c9caf', 'order.placed', 'public', 'orders', '1', 0, 'delivered', 200, NULL, NULL, '{"accept":"*/*","content-type":"application/json","user-agent":"walhook/0.1.0","host":"127.0.0.1:39001","webhook-id":"evt_0000000001a30d700000000039bff197090c9caf","webhook-replay":"true","webhook-timestamp":"1796032066"}', '{"type":"order.placed","timestamp":"2026-11-30T09:47:42.170Z","operation":"insert","data":{"id":1,"customer":"good","status":"new"}}', '{"server":"BaseHTTP/0.6 Python/3.11.7","date":"Mon, 30 Nov 2026 09:47:46 GMT","content-length":"0"}', '', 5.4725269999999995, true, 9126843251008110152, NULL, NULL, NULL, true);
INSERT INTO walhook.push_log_events_20261130 VALUES (17, '2026-11-30 09:47:47.008727+00', 'waiting_slot', 'crm', 'evt_0000000001a318480000000039bff197090c9caf', 'order.placed', 'public', 'orders', '2', 0, 'delivered', 200, NULL, NULL, '{"accept":"*/*","content-type":"application/json","user-agent":"walhook/0.1.0","host":"127.0.0.1:39001","webhook-id":"evt_0000000001a318480000000039bff197090c9caf","webhook-replay":"true","webhook-timestamp":"1796032067"}', '{"type":"order.placed","timestamp":"2026-11-30T09:47:42.279Z","operation":"insert","data":{"id":2,"customer":"good","status":"new"}}', '{"server":"BaseHTTP/0.6 Python/3.11.7","date":"Mon, 30 Nov 2026 09:47:47 GMT","content-length":"0"}', '', 4.875373, true, 3944302075000379069, NULL, NULL, NULL, true);
INSERT INTO walhook.push_totals VALUES ('waiting_slot', 8, 2, 8, 47030, '2026-11-30 09:47:47.018383+00');
INSERT INTO walhook.replays OVERRIDING SYSTEM VALUE VALUES (1, 'waiting_slot', 'crm', NULL, 'order.placed', NULL, NULL, '2026-11-30 09:47:45.992074+00', 1, 'paused', '2026-11-30 09:47:45.992074+00', NULL, NULL, NULL, 0, 0, 0, 0);
INSERT INTO walhook.runs VALUES ('waiting_slot', true, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0);
INSERT INTO walhook.schema_version VALUES (1, 'state', '2026-11-30 09:47:40.563633+00', 'walhook 0.1.0');
INSERT INTO walhook.schema_version VALUES (2, 'replays', '2026-11-30 09:47:40.658983+00', 'walhook 0.1.0');
INSERT INTO walhook.schema_version VALUES (3, 'poison', '2026-11-30 09:47:40.681048+00', 'walhook 0.1.0');
INSERT INTO walhook.schema_version VALUES (4, 'write_backs', '2026-11-30 09:47:40.696724+00', 'walhook 0.1.0');
INSERT INTO walhook.schema_version VALUES (5, 'seen_values', '2026-11-30 09:47:40.730774+00', 'walhook 0.1.0');
INSERT INTO walhook.schema_version VALUES (6, 'fronts', '2026-11-30 09:47:40.743002+00', 'walhook 0.1.0');
INSERT INTO walhook.schema_version VALUES (7, 'headers', '2026-11-30 09:47:40.75545+00', 'walhook 0.1.0');
INSERT INTO walhook.schema_version VALUES (8, 'push_log_indexes', '2026-11-30 09:47:40.782772+00', 'walhook 0.1.0');
INSERT INTO walhook.schema_version VALUES (9, 'push_log_batches', '2026-11-30 09:47:40.79579+00', 'walhook 0.1.0');
INSERT INTO walhook.schema_version VALUES (10, 'books_common', '2026-11-30 09:47:40.824654+00', 'walhook 0.1.0');
INSERT INTO walhook.schema_version VALUES (11, 'slot_owner', '2026-11-30 09:47:40.852577+00', 'walhook 0.1.0');
INSERT INTO walhook.schema_version VALUES (12, 'crash_charges', '2026-11-30 09:47:40.867102+00', 'walhook 0.1.0');
INSERT INTO walhook.schema_version VALUES (13, 'gaps', '2026-11-30 09:47:40.869645+00', 'walhook 0.1.0');
INSERT INTO walhook.schema_version VALUES (14, 'endpoint_states', '2026-11-30 09:47:40.888255+00', 'walhook 0.1.0');
INSERT INTO walhook.schema_version VALUES (15, 'push_totals', '2026-11-30 09:47:40.892374+00', 'walhook 0.1.0');
INSERT INTO walhook.schema_version VALUES (16, 'body_pieces', '2026-11-30 09:47:40.914046+00', 'walhook 0.1.0');
INSERT INTO walhook.schema_version VALUES (17, 'resend_rates', '2026-11-30 09:47:40.934754+00', 'walhook 0.1.0');
INSERT INTO walhook.schema_version VALUES (18, 'renames', '2026-11-30 09:47:40.955022+00', 'walhook 0.1.0');
INSERT INTO walhook.schema_version VALUES (19, 'replay_pauses', '2026-11-30 09:47:40.9773+00', 'walhook 0.1.0');
INSERT INTO walhook.schema_version VALUES (20, 'backfills', '2026-11-30 09:47:40.988634+00', 'walhook 0.1.0');
INSERT INTO walhook.schema_version VALUES (21, 'endpoint_rows', '2026-11-30 09:47:41.018797+00', 'walhook 0.1.0');
INSERT INTO walhook.seen_values VALUES ('waiting_slot', 354020557533899147, 7670790982933663801, 'note.added', '0/1A2F048', 0, '2026-11-30 09:47:41.865995+00');
INSERT INTO walhook.seen_values VALUES ('waiting_slot', 3937153960589430926, -5507934902484779061, 'note.added', '0/1A2F048', 1, '2026-11-30 09:47:41.865995+00');
INSERT INTO walhook.settled_ahead VALUES ('waiting_slot', 'evt_0000000001a393d80000000039bff197090c9caf', 'crm');
INSERT INTO walhook.write_backs VALUES ('waiting_slot', 'evt_0000000001a30d700000000039bff197090c9caf', 'order.placed', 'public', 'orders', 9126843251008110152, '{"key":["id"],"values":{"id":"1","status":"new"}}', 4, 1, 0, NULL, NULL, 0, NULL, '2026-11-30 09:47:42.267445+00');
INSERT INTO walhook.write_backs VALUES ('waiting_slot', 'evt_0000000001a318480000000039bff197090c9caf', 'order.placed', 'public', 'orders', 3944302075000379069, '{"key":["id"],"values":{"id":"2","status":"new"}}', 4, 1, 0, NULL, NULL, 0, NULL, '2026-11-30 09:47:42.347199+00');
INSERT INTO walhook.write_backs VALUES ('waiting_slot', 'evt_0000000001a33fd00000000039bff197090c9caf', 'order.placed', 'public', 'orders', -5290707414911069271, '{"key":["id"],"values":{"id":"3","status":"new"}}', 4, 1, 0, NULL, NULL, 0, NULL, '2026-11-30 09:47:42.494793+00');
INSERT INTO walhook.write_backs VALUES ('waiting_slot', 'evt_0000000001a357080000000039bff197090c9caf', 'order.placed', 'public', 'orders', 6330476193792581000, '{"key":["id"],"values":{"id":"4","status":"new"}}', 4, 0, 1, NULL, NULL, 0, NULL, '2026-11-30 09:47:42.666815+00');
INSERT INTO walhook.write_backs VALUES ('waiting_slot', 'evt_0000000001a357080000000139bff197090c9caf', 'order.placed', 'public', 'orders', -5682240452699859665, '{"key":["id"],"values":{"id":"5","status":"new"}}', 4, 0, 1, NULL, NULL, 0, NULL, '2026-11-30 09:47:42.666815+00');
INSERT INTO walhook.write_backs VALUES ('waiting_slot', 'evt_0000000001a387480000000039bff197090c9caf', 'order.placed', 'public', 'orders', -6952987221599982655, '{"key":["id"],"values":{"id":"6","status":"new"}}', 4, 0, 0, NULL, NULL, 0, NULL, '2026-11-30 09:47:42.815537+00');
INSERT INTO walhook.write_backs VALUES ('waiting_slot', 'evt_0000000001a393d80000000039bff197090c9caf', 'order.placed', 'public', 'orders', 2786463897635813078, '{"key":["id"],"values":{"id":"7","status":"new"}}', 4, 1, 0, NULL, NULL, 0, NULL, '2026-11-30 09:47:42.951526+00');
SELECT pg_catalog.setval('walhook.backfills_id_seq', 1, false);
SELECT pg_catalog.setval('walhook.backlog_id_seq', 14, true);
SELECT pg_catalog.setval('walhook.dead_letters_id_seq', 2, true);
SELECT pg_catalog.setval('walhook.push_log_id_seq', 100, true);
SELECT pg_catalog.setval('walhook.replays_id_seq', 1, true);
ALTER TABLE ONLY public.notes
    ADD CONSTRAINT notes_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.orders
    ADD CONSTRAINT orders_pkey PRIMARY KEY (id);
ALTER TABLE ONLY walhook.backfills
    ADD CONSTRAINT backfills_pkey PRIMARY KEY (id);
ALTER TABLE ONLY walhook.backlog
    ADD CONSTRAINT backlog_pkey PRIMARY KEY (id);
ALTER TABLE ONLY walhook.backlog
    ADD CONSTRAINT backlog_slot_endpoint_event_id_replay_key UNIQUE (slot, endpoint, event_id, replay);
ALTER TABLE ONLY walhook.body_pieces
    ADD CONSTRAINT body_pieces_pkey PRIMARY KEY (slot, number);
ALTER TABLE ONLY walhook.books_common
    ADD CONSTRAINT books_common_pkey PRIMARY KEY (slot, table_schema, table_name);
ALTER TABLE ONLY walhook.books
    ADD CONSTRAINT books_pkey PRIMARY KEY (slot, endpoint, table_schema, table_name);
ALTER TABLE ONLY walhook.counted
    ADD CONSTRAINT counted_pkey PRIMARY KEY (slot, endpoint);
ALTER TABLE ONLY walhook.dead_letters
    ADD CONSTRAINT dead_letters_pkey PRIMARY KEY (id);
ALTER TABLE ONLY walhook.dead_letters
    ADD CONSTRAINT dead_letters_slot_endpoint_event_id_key UNIQUE (slot, endpoint, event_id);
ALTER TABLE ONLY walhook.endpoint_rows
    ADD CONSTRAINT endpoint_rows_pkey PRIMARY KEY (slot, row_id);
ALTER TABLE ONLY walhook.endpoint_rows
    ADD CONSTRAINT endpoint_rows_slot_endpoint_key UNIQUE (slot, endpoint);
ALTER TABLE ONLY walhook.endpoint_states
    ADD CONSTRAINT endpoint_states_pkey PRIMARY KEY (slot, endpoint);
ALTER TABLE ONLY walhook.endpoints
    ADD CONSTRAINT endpoints_pkey PRIMARY KEY (slot, name);
ALTER TABLE ONLY walhook.fronts
    ADD CONSTRAINT fronts_pkey PRIMARY KEY (slot, endpoint);
ALTER TABLE ONLY walhook.gaps
    ADD CONSTRAINT gaps_pkey PRIMARY KEY (slot, commit_lsn);
ALTER TABLE ONLY walhook.progress
    ADD CONSTRAINT progress_pkey PRIMARY KEY (slot);
ALTER TABLE ONLY walhook.push_log_batches
    ADD CONSTRAINT push_log_batches_pkey PRIMARY KEY (created_at, id);
ALTER TABLE ONLY walhook.push_log_batches_20261130
    ADD CONSTRAINT push_log_batches_20261130_pkey PRIMARY KEY (created_at, id);
ALTER TABLE ONLY walhook.push_log_batches_20261201
    ADD CONSTRAINT push_log_batches_20261201_pkey PRIMARY KEY (created_at, id);
ALTER TABLE ONLY walhook.push_log_events
    ADD CONSTRAINT push_log_events_pkey PRIMARY KEY (created_at, id);
ALTER TABLE ONLY walhook.push_log_events_20261130
    ADD CONSTRAINT push_log_events_20261130_pkey PRIMARY KEY (created_at, id);
ALTER TABLE ONLY walhook.push_log_events_20261201
    ADD CONSTRAINT push_log_events_20261201_pkey PRIMARY KEY (created_at, id);
ALTER TABLE ONLY walhook.push_totals
    ADD CONSTRAINT push_totals_pkey PRIMARY KEY (slot);
ALTER TABLE ONLY walhook.renames
    ADD CONSTRAINT renames_pkey PRIMARY KEY (slot, old_name, new_name);
ALTER TABLE ONLY walhook.replays
    ADD CONSTRAINT replays_pkey PRIMARY KEY (id);
ALTER TABLE ONLY walhook.runs
    ADD CONSTRAINT runs_pkey PRIMARY KEY (slot);
ALTER TABLE ONLY walhook.schema_version
    ADD CONSTRAINT schema_version_pkey PRIMARY KEY (version);
ALTER TABLE ONLY walhook.seen_values
    ADD CONSTRAINT seen_values_pkey PRIMARY KEY (slot, high, low);
ALTER TABLE ONLY walhook.settled_ahead
    ADD CONSTRAINT settled_ahead_pkey PRIMARY KEY (slot, event_id, endpoint);
ALTER TABLE ONLY walhook.write_backs
    ADD CONSTRAINT write_backs_pkey PRIMARY KEY (slot, event_id);
CREATE INDEX backfills_open ON walhook.backfills USING btree (slot, id) WHERE (state = ANY (ARRAY['running'::text, 'paused'::text]));
CREATE INDEX backlog_age ON walhook.backlog USING btree (slot, endpoint, parked_at);
CREATE INDEX backlog_expiry ON walhook.backlog USING btree (slot, expires_at) WHERE (expires_at IS NOT NULL);
CREATE INDEX backlog_order ON walhook.backlog USING btree (slot, endpoint, commit_lsn, ordinal, id);
CREATE INDEX backlog_resend ON walhook.backlog USING btree (resend_of) WHERE (resend_of IS NOT NULL);
CREATE INDEX backlog_waiting ON walhook.backlog USING btree (slot, endpoint, next_attempt_at) WHERE (next_attempt_at IS NOT NULL);
CREATE INDEX dead_letters_closed ON walhook.dead_letters USING btree (slot, closed_at) WHERE (closed_at IS NOT NULL);
CREATE INDEX dead_letters_event ON walhook.dead_letters USING btree (event_id);
CREATE INDEX dead_letters_resends ON walhook.dead_letters USING btree (slot, id) WHERE (state = ANY (ARRAY['requested'::text, 'resending'::text]));
CREATE INDEX dead_letters_row_key ON walhook.dead_letters USING btree (row_key) WHERE (row_key IS NOT NULL);
CREATE INDEX dead_letters_time ON walhook.dead_letters USING btree (slot, died_at);
CREATE INDEX push_log_event ON ONLY walhook.push_log_events USING btree (event_id);
CREATE INDEX push_log_failures ON ONLY walhook.push_log_events USING btree (endpoint, created_at) WHERE (outcome <> 'delivered'::text);
CREATE INDEX push_log_events_20261130_endpoint_created_at_idx ON walhook.push_log_events_20261130 USING btree (endpoint, created_at) WHERE (outcome <> 'delivered'::text);
CREATE INDEX push_log_events_20261130_event_id_idx ON walhook.push_log_events_20261130 USING btree (event_id);
CREATE INDEX push_log_row_key ON ONLY walhook.push_log_events USING btree (row_key) WHERE (row_key IS NOT NULL);
CREATE INDEX push_log_events_20261130_row_key_idx ON walhook.push_log_events_20261130 USING btree (row_key) WHERE (row_key IS NOT NULL);
CREATE INDEX push_log_events_20261201_endpoint_created_at_idx ON walhook.push_log_events_20261201 USING btree (endpoint, created_at) WHERE (outcome <> 'delivered'::text);
CREATE INDEX push_log_events_20261201_event_id_idx ON walhook.push_log_events_20261201 USING btree (event_id);
CREATE INDEX push_log_events_20261201_row_key_idx ON walhook.push_log_events_20261201 USING btree (row_key) WHERE (row_key IS NOT NULL);
CREATE INDEX replays_running ON walhook.replays USING btree (slot, endpoint, id) WHERE (state = 'running'::text);
CREATE INDEX seen_values_time ON walhook.seen_values USING btree (slot, event_type, committed);
CREATE INDEX write_backs_due ON walhook.write_backs USING btree (slot, due_at) WHERE (due_at IS NOT NULL);
CREATE INDEX write_backs_row ON walhook.write_backs USING btree (slot, row_id, event_id) WHERE (due_at IS NOT NULL);
ALTER INDEX walhook.push_log_batches_pkey ATTACH PARTITION walhook.push_log_batches_20261130_pkey;
ALTER INDEX walhook.push_log_batches_pkey ATTACH PARTITION walhook.push_log_batches_20261201_pkey;
ALTER INDEX walhook.push_log_failures ATTACH PARTITION walhook.push_log_events_20261130_endpoint_created_at_idx;
ALTER INDEX walhook.push_log_event ATTACH PARTITION walhook.push_log_events_20261130_event_id_idx;
ALTER INDEX walhook.push_log_events_pkey ATTACH PARTITION walhook.push_log_events_20261130_pkey;
ALTER INDEX walhook.push_log_row_key ATTACH PARTITION walhook.push_log_events_20261130_row_key_idx;
ALTER INDEX walhook.push_log_failures ATTACH PARTITION walhook.push_log_events_20261201_endpoint_created_at_idx;
ALTER INDEX walhook.push_log_event ATTACH PARTITION walhook.push_log_events_20261201_event_id_idx;
ALTER INDEX walhook.push_log_events_pkey ATTACH PARTITION walhook.push_log_events_20261201_pkey;
ALTER INDEX walhook.push_log_row_key ATTACH PARTITION walhook.push_log_events_20261201_row_key_idx;
