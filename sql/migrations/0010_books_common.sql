-- What all endpoints count alike is kept once: a change that few of many endpoints take costs a row for
-- each of the few, and one for all the others together.

-- What was captured and filtered for every endpoint of walhook.counted, by table. When an endpoint comes,
-- these numbers are taken off its own in walhook.books, and when it leaves they are added to them.
CREATE TABLE walhook.books_common (
    slot         text COLLATE "C" NOT NULL,
    table_schema text COLLATE "C" NOT NULL,
    table_name   text COLLATE "C" NOT NULL,
    captured     bigint NOT NULL,
    filtered     bigint NOT NULL,
    PRIMARY KEY (slot, table_schema, table_name)
) WITH (
    fillfactor = 20,
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500
);

-- The endpoints for which they count.
CREATE TABLE walhook.counted (
    slot     text COLLATE "C" NOT NULL,
    endpoint text COLLATE "C" NOT NULL,
    PRIMARY KEY (slot, endpoint)
);

COMMENT ON TABLE walhook.books IS
    'what each endpoint counts by itself; read walhook.balance, which adds what all count alike';

CREATE OR REPLACE VIEW walhook.balance AS
SELECT slot, endpoint, table_schema, table_name,
       sum(captured)::bigint AS captured, sum(delivered)::bigint AS delivered,
       sum(filtered)::bigint AS filtered, sum(expired)::bigint AS expired,
       sum(dead)::bigint AS dead,
       sum(captured - delivered - filtered - expired - dead)::bigint AS pending
  FROM (SELECT slot, endpoint, table_schema, table_name, captured, delivered, filtered, expired, dead
          FROM walhook.books
         UNION ALL
        SELECT slot, endpoint, table_schema, table_name, captured, 0, filtered, 0, 0
          FROM walhook.books_common JOIN walhook.counted USING (slot)) AS lines
 GROUP BY slot, endpoint, table_schema, table_name
HAVING sum(captured) <> 0 OR sum(delivered) <> 0 OR sum(filtered) <> 0 OR sum(expired) <> 0
    OR sum(dead) <> 0;
