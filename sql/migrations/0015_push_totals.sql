-- The sums of /api/v1/webhook/stats, kept through restarts: what the books do not say is how long the
-- pushes took, when the last one was, and what expired while its endpoint was down.
CREATE TABLE walhook.push_totals (
    slot            text COLLATE "C" PRIMARY KEY,
    succeeded       bigint NOT NULL DEFAULT 0,
    -- Given up, and expired while the endpoint was down.
    failed          bigint NOT NULL DEFAULT 0,
    -- Those of `succeeded` whose response time is known, and the sum of these times.
    timed           bigint NOT NULL DEFAULT 0,
    response_micros bigint NOT NULL DEFAULT 0,
    last_push_at    timestamptz
) WITH (
    fillfactor = 20,
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500
);

-- Where the books stand is where the sums go on.
INSERT INTO walhook.push_totals (slot, succeeded, failed)
SELECT slot, sum(delivered), sum(dead) FROM walhook.books GROUP BY slot;
