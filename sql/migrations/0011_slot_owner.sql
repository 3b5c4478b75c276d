-- Whose slot it is: the events of the configuration that reads it, in two columns of the same length.
-- A walhook whose events are of other tables is another system's, and does not take the slot; see
-- src/store/slot_owner.rs. Null for slots that were read before this was noted.
-- confirmed_at is the commit time of the last transaction before confirmed_lsn, for the operator.
ALTER TABLE walhook.progress
    ADD COLUMN event_types  text[],
    ADD COLUMN event_tables text[],
    ADD COLUMN confirmed_at timestamptz;
