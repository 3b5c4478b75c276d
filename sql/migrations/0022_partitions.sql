-- A source's endpoints can be shared among several walhooks: each partition of them has a stream, progress
-- and an epoch of its own. `slot` names the source, as it always did: one source is one slot, however many
-- partitions it has. Partition 0 is the source itself, whoever has the slot; a walhook that is alone has no other.
--
-- What belongs to an endpoint, to an event or to the source stays as it is, so that whatever waits is found
-- by every partition's owner, and an endpoint that moves is no row that moves. What is in here counts for a
-- stream, or would have all streams' flushes wait for one row.

ALTER TABLE walhook.progress
    ADD COLUMN partition integer NOT NULL DEFAULT 0,
    DROP CONSTRAINT progress_pkey,
    ADD PRIMARY KEY (slot, partition);

-- Of an event and an endpoint there is one stream: the key stays. But one stream's prefix passes its own alone.
ALTER TABLE walhook.settled_ahead ADD COLUMN partition integer NOT NULL DEFAULT 0;

ALTER TABLE walhook.runs
    ADD COLUMN partition integer NOT NULL DEFAULT 0,
    DROP CONSTRAINT runs_pkey,
    ADD PRIMARY KEY (slot, partition);

ALTER TABLE walhook.push_totals
    ADD COLUMN partition integer NOT NULL DEFAULT 0,
    DROP CONSTRAINT push_totals_pkey,
    ADD PRIMARY KEY (slot, partition);

ALTER TABLE walhook.books_common
    ADD COLUMN partition integer NOT NULL DEFAULT 0,
    DROP CONSTRAINT books_common_pkey,
    ADD PRIMARY KEY (slot, partition, table_schema, table_name);

-- For which partition's lines an endpoint counts.
ALTER TABLE walhook.counted ADD COLUMN partition integer NOT NULL DEFAULT 0;

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
          FROM walhook.books_common JOIN walhook.counted USING (slot, partition)) AS lines
 GROUP BY slot, endpoint, table_schema, table_name
HAVING sum(captured) <> 0 OR sum(delivered) <> 0 OR sum(filtered) <> 0 OR sum(expired) <> 0
    OR sum(dead) <> 0;
