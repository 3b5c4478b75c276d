-- A replay can be held back and go on later.
ALTER TABLE walhook.replays DROP CONSTRAINT replays_state_check;
ALTER TABLE walhook.replays ADD CONSTRAINT replays_state_check
    CHECK (state IN ('running', 'paused', 'done', 'cancelled'));
