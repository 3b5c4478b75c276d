-- A source's endpoints can be shared among several walhooks: each partition of them has a stream, progress
-- and an epoch of its own. `slot` names the source, as it always did: one source is one slot, however many
-- partitions it has. Partition 0 is the source itself, whoever has the slot; a walhook that is alone has no other.
--
-- What belongs to an endpoint, to an event or to the source stays as it is, so that whatever waits is found
-- by every partition's owner, and an endpoint that moves is no row that moves. What is in here counts for a
-- stream. A walhook of the version before that still has the slot writes on: none of its flushes names a key
-- that is changed here.

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
