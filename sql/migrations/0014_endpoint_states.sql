-- What walhook knows of an endpoint beside its settings, wherever it was made.
CREATE TABLE walhook.endpoint_states (
    slot       text COLLATE "C" NOT NULL,
    endpoint   text COLLATE "C" NOT NULL,
    -- Since when and by whom it is paused: its deliveries wait in the backlog.
    paused_at  timestamptz,
    paused_by  text,
    -- A fingerprint of where its requests go and how they are signed. What waits when another one is
    -- seen at a start is tried at once.
    target     int,
    PRIMARY KEY (slot, endpoint)
);

COMMENT ON TABLE walhook.endpoint_states IS
    'Endpoints that are paused, and where each was last seen to point';
