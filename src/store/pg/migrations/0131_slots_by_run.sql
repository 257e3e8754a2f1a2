-- A slot is identified by its run, whose id is derived from the slot; `slot` has only the slots
-- whose run has another id (docs/decisions/0011).

-- The latest slot with a row: later slots of the schedule have none, and are not looked up.
alter table watcher add column last_slot_at timestamptz;
-- Slots are recorded a minute ahead at most.
update watcher set last_slot_at = now() + interval '2 min';
