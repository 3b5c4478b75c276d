-- Rows of the backlog are found by their event. Three more indexes begin with slot and endpoint, and before the
-- table is analyzed for the first time the planner takes each of them for as good as the one of the event: it read
-- all rows of an endpoint for each that was delivered (seen on PostgreSQL 17 and 18).
ALTER TABLE walhook.backlog DROP CONSTRAINT backlog_slot_endpoint_event_id_replay_key;
ALTER TABLE walhook.backlog
    ADD CONSTRAINT backlog_event_key UNIQUE (event_id, endpoint, slot, replay);
