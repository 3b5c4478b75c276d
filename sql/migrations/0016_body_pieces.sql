-- Where a large body gathers, piece by piece, within the one transaction that writes its row: neither
-- walhook nor PostgreSQL's protocol then has it in one message. Empty at all other times.
CREATE UNLOGGED TABLE walhook.body_pieces (
    slot   text COLLATE "C" NOT NULL,
    number integer NOT NULL,
    piece  bytea NOT NULL,
    PRIMARY KEY (slot, number)
);
-- It is about to be copied: to compress it would be for nothing.
ALTER TABLE walhook.body_pieces ALTER piece SET STORAGE EXTERNAL;
