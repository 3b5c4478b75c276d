-- Endpoints that have got another name: what waited, what is dead and the books went along, and the push
-- log says what happened under the name of that time. Written once for each, so that a `renamed_from` that
-- stays in the file is carried out once.
CREATE TABLE walhook.renames (
    slot       text COLLATE "C" NOT NULL,
    old_name   text COLLATE "C" NOT NULL,
    new_name   text COLLATE "C" NOT NULL,
    renamed_at timestamptz NOT NULL DEFAULT now(),
    renamed_by text NOT NULL,
    PRIMARY KEY (slot, old_name, new_name)
);
