-- A row for each event of a batch is half of what a delivery in batches costs. So a batch that was
-- delivered, and whose bodies are not kept, is one row, and walhook.push_log a view that shows a row for
-- each event of it.

ALTER TABLE walhook.push_log RENAME TO push_log_events;
ALTER INDEX walhook.push_log_pkey RENAME TO push_log_events_pkey;
DO $$
DECLARE day text;
BEGIN
    FOR day IN
        SELECT relname FROM pg_class
         WHERE relnamespace = 'walhook'::regnamespace AND relkind = 'r'
           AND relname ~ '^push_log_[0-9]{8}$'
    LOOP
        EXECUTE format('ALTER TABLE walhook.%I RENAME TO %I', day,
                       replace(day, 'push_log_', 'push_log_events_'));
    END LOOP;
END $$;

-- To check of each row that its headers are JSON is a twelfth of what the row costs: the view does it
-- for what is read. This rewrites the push log, about a minute for ten million rows.
ALTER TABLE walhook.push_log_events
    ALTER COLUMN request_headers TYPE text,
    ALTER COLUMN response_headers TYPE text;

-- One row for each request that carried many events of one type and was delivered, unless bodies are
-- kept. One partition for each day (UTC), as of push_log_events: both are named <table>_YYYYMMDD.
CREATE TABLE walhook.push_log_batches (
    -- From the same sequence as those of push_log_events.
    id               bigint NOT NULL DEFAULT nextval('walhook.push_log_id_seq'),
    created_at       timestamptz NOT NULL,
    slot             text COLLATE "C" NOT NULL,
    endpoint         text COLLATE "C" NOT NULL,
    event_type       text NOT NULL,
    table_schema     text NOT NULL,
    table_name       text NOT NULL,
    -- 0 for the first attempt.
    retry_count      integer NOT NULL,
    http_status      integer,
    request_headers  text,
    response_headers text,
    duration_ms      double precision NOT NULL,
    replay           boolean NOT NULL,
    -- How many events; the arrays have as many elements, in the order of the request.
    events           integer NOT NULL,
    event_ids        text[] COLLATE "C" NOT NULL,
    row_keys         text[] COLLATE "C" NOT NULL,
    PRIMARY KEY (created_at, id)
) PARTITION BY RANGE (created_at);

CREATE VIEW walhook.push_log AS
SELECT id, created_at, slot, endpoint, event_id, event_type, table_schema, table_name, row_key,
       retry_count, outcome, http_status, failure_class, error_message,
       request_headers::json, request_body, response_headers::json, response_body, duration_ms,
       replay
  FROM walhook.push_log_events
UNION ALL
SELECT b.id, b.created_at, b.slot, b.endpoint, e.event_id, b.event_type, b.table_schema,
       b.table_name, e.row_key, b.retry_count, 'delivered'::text, b.http_status, NULL::text,
       NULL::text, b.request_headers::json, NULL::text, b.response_headers::json, NULL::text,
       b.duration_ms, b.replay
  FROM walhook.push_log_batches b,
       unnest(b.event_ids, b.row_keys) AS e (event_id, row_key);
COMMENT ON VIEW walhook.push_log IS 'one row for each attempt and event';

-- The operator's questions, without a row for each event where a number is enough.

CREATE OR REPLACE VIEW walhook.success_last_day AS
SELECT slot, coalesce(endpoint, '*') AS endpoint,
       sum(events)::bigint AS attempts,
       coalesce(sum(events) FILTER (WHERE outcome = 'delivered'), 0)::bigint AS delivered,
       coalesce(sum(events) FILTER (WHERE outcome = 'dead'), 0)::bigint AS given_up,
       coalesce(sum(events) FILTER (WHERE outcome = 'delivered'), 0)::double precision
           / sum(events) FILTER (WHERE outcome IN ('delivered', 'dead')) AS success_rate,
       coalesce(sum(events) FILTER (WHERE outcome = 'delivered'), 0)::double precision
           / sum(events) AS attempt_success_rate
  FROM (SELECT slot, endpoint, created_at, outcome, 1 AS events FROM walhook.push_log_events
        UNION ALL
        SELECT slot, endpoint, created_at, 'delivered', events FROM walhook.push_log_batches) AS log
 WHERE created_at >= now() - interval '1 day'
 GROUP BY GROUPING SETS ((slot, endpoint), (slot));

CREATE OR REPLACE VIEW walhook.duration_last_day AS
SELECT slot, coalesce(endpoint, '*') AS endpoint,
       sum(events)::bigint AS attempts,
       sum(duration_ms * events) / sum(events) AS mean_ms,
       sum(duration_ms * events) FILTER (WHERE outcome = 'delivered')
           / sum(events) FILTER (WHERE outcome = 'delivered') AS mean_delivered_ms,
       max(duration_ms) AS longest_ms
  FROM (SELECT slot, endpoint, created_at, outcome, duration_ms, 1 AS events
          FROM walhook.push_log_events
        UNION ALL
        SELECT slot, endpoint, created_at, 'delivered', duration_ms, events
          FROM walhook.push_log_batches) AS log
 WHERE created_at >= now() - interval '1 day'
 GROUP BY GROUPING SETS ((slot, endpoint), (slot));

CREATE OR REPLACE VIEW walhook.retries_last_day AS
SELECT slot, coalesce(endpoint, '*') AS endpoint, retry_count,
       sum(events)::bigint AS deliveries,
       coalesce(sum(events) FILTER (WHERE outcome = 'delivered'), 0)::bigint AS delivered
  FROM (SELECT slot, endpoint, created_at, outcome, retry_count, 1 AS events
          FROM walhook.push_log_events
        UNION ALL
        SELECT slot, endpoint, created_at, 'delivered', retry_count, events
          FROM walhook.push_log_batches) AS log
 WHERE created_at >= now() - interval '1 day' AND outcome IN ('delivered', 'dead')
 GROUP BY GROUPING SETS ((slot, endpoint, retry_count), (slot, retry_count));
