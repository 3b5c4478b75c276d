-- Transactions that PostgreSQL could not send and that walhook went past on the operator's word: what
-- of them is missing has to be sent from the tables.
CREATE TABLE walhook.gaps (
    slot       text COLLATE "C" NOT NULL,
    commit_lsn pg_lsn NOT NULL,
    -- Changes of the transaction that were sent before the one that could not be.
    sent       bigint NOT NULL,
    reason     text NOT NULL,
    skipped_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (slot, commit_lsn)
);
