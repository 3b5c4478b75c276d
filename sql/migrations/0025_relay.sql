-- Who delivers for which partition, where several walhooks share the endpoints of a source over a broker. A
-- walhook that is alone has no rows of partitions and writes none of this. No table is rewritten.

ALTER TABLE walhook.progress
    -- How many partitions the source has; in the row of the source itself.
    ADD COLUMN partitions integer,
    -- The member that owns the partition, until this time.
    ADD COLUMN member text,
    ADD COLUMN lease_until timestamptz,
    -- It is in the hands of whoever has the slot: nobody else may take it.
    ADD COLUMN at_source boolean NOT NULL DEFAULT false,
    -- The epoch of the source whose messages its owner has not got whole: they have to come again under
    -- another one.
    ADD COLUMN rewind bigint NOT NULL DEFAULT 0;

-- Those who deliver. A row decides only who tries to own what: the right to write is the epoch above.
CREATE TABLE walhook.members (
    slot       text NOT NULL,
    member     text NOT NULL,
    -- For people: host, version and process.
    name       text NOT NULL,
    -- Where its HTTP surface listens.
    address    text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (slot, member)
);
