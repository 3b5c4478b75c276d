-- How often in a row the suspect was in hand, alone, when walhook crashed: several times, and it is set
-- aside. See src/store/runs.rs.
ALTER TABLE walhook.runs ADD COLUMN charges bigint NOT NULL DEFAULT 0;
