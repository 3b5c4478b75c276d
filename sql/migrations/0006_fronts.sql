-- How far each endpoint has come by itself, where that is further than the settled prefix: all that
-- it was owed of the changes before this one is settled. A row that progress has passed means nothing.
CREATE TABLE walhook.fronts (
    slot           text COLLATE "C" NOT NULL,
    endpoint       text COLLATE "C" NOT NULL,
    before_lsn     pg_lsn NOT NULL,
    before_ordinal bigint NOT NULL,
    PRIMARY KEY (slot, endpoint)
) WITH (
    fillfactor = 20,
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500
);
