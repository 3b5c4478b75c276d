-- What an administrator runs, for the database of deploy/compose.yaml.

CREATE TABLE orders (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    item    text NOT NULL,
    status  text NOT NULL DEFAULT 'new',
    created timestamptz NOT NULL DEFAULT now()
);

CREATE ROLE walhook LOGIN REPLICATION PASSWORD 'walhook';
-- Where walhook keeps its own tables, which it makes itself.
CREATE SCHEMA walhook AUTHORIZATION walhook;
GRANT SELECT ON TABLE orders TO walhook;
CREATE PUBLICATION walhook FOR TABLE orders;
