-- Deliveries of the past, sent again on an operator's word.

-- What the push log keeps so that an attempt can be made again as it was: the keys that order
-- events, the expiry, headers that the body's shape asked for, and whether the kept body is all of it.
ALTER TABLE walhook.push_log
    ADD COLUMN first_key bigint,
    ADD COLUMN second_key bigint,
    ADD COLUMN expires_at timestamptz,
    ADD COLUMN shape_headers jsonb,
    ADD COLUMN body_whole boolean NOT NULL DEFAULT false;

-- Orders to send delivered events again: each for one endpoint, worked off along the push log.
CREATE TABLE walhook.replays (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    slot         text COLLATE "C" NOT NULL,
    endpoint     text COLLATE "C" NOT NULL,
    -- Which deliveries: null does not matter. What came after the order is not part of it.
    event_id     text COLLATE "C",
    event_type   text,
    row_key      text,
    from_time    timestamptz,
    before_time  timestamptz NOT NULL,
    per_second   integer NOT NULL,
    -- running -> done | cancelled.
    state        text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done', 'cancelled')),
    created_at   timestamptz NOT NULL,
    finished_at  timestamptz,
    -- All attempts up to and including this one are dealt with.
    done_time    timestamptz,
    done_id      bigint,
    delivered    bigint NOT NULL DEFAULT 0,
    expired      bigint NOT NULL DEFAULT 0,
    failed       bigint NOT NULL DEFAULT 0,
    -- Those whose body was not kept, or not all of it.
    without_body bigint NOT NULL DEFAULT 0
);
CREATE INDEX replays_running ON walhook.replays (slot, endpoint, id) WHERE state = 'running';
