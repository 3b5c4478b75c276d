-- Which endpoint each row of the table of [endpoints_from] was, by the column that `id` names: a row that has
-- another name after walhook was away is the same endpoint, and what waits goes along.
CREATE TABLE walhook.endpoint_rows (
    slot     text COLLATE "C" NOT NULL,
    -- Table and column whose values tell rows apart.
    source   text COLLATE "C" NOT NULL,
    row_id   text COLLATE "C" NOT NULL,
    endpoint text COLLATE "C" NOT NULL,
    PRIMARY KEY (slot, row_id),
    UNIQUE (slot, endpoint)
);
