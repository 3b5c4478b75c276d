-- How many dead letters a second are to be sent again, as whoever asked for it said; null: as
-- [dead_letters] resend_rate says.
ALTER TABLE walhook.dead_letters ADD COLUMN resend_rate integer;
