-- Endpoints that several members of a source change while they share it. A walhook that is alone writes none of
-- this but the columns' defaults. No table is rewritten.

-- How far the changes have come, of which each raises the version: a member that knows an older one looks anew.
CREATE TABLE walhook.shared_endpoints (
    slot      text PRIMARY KEY,
    -- Whoever has the slot shares it with others.
    is_shared boolean NOT NULL,
    -- The epoch of the source under which it was begun.
    epoch     bigint NOT NULL,
    version   bigint NOT NULL,
    -- The version as of which the table of [endpoints_from] was changed the last time.
    of_table  bigint NOT NULL DEFAULT 0,
    -- The version by which whoever has the slot chooses who gets an event.
    routed    bigint NOT NULL
);

ALTER TABLE walhook.endpoints
    -- The version of which this row is.
    ADD COLUMN version bigint NOT NULL DEFAULT 0;

ALTER TABLE walhook.endpoint_states
    ADD COLUMN version bigint NOT NULL DEFAULT 0;

-- What operators want of an endpoint at once; the owner of its partition carries it out and removes the row.
CREATE TABLE walhook.endpoint_orders (
    slot       text NOT NULL,
    endpoint   text NOT NULL,
    what       text NOT NULL CHECK (what IN ('enable', 'try_now')),
    ordered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (slot, endpoint, what)
);
