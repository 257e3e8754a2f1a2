-- A slot is known by its run, whose id is made of it; `slot` has those alone whose run has another id (docs/decisions/0011).

-- The latest slot that has a row: a slot of the schedule beyond it has none, and is not looked for.
alter table watcher add column last_slot_at timestamptz;
-- Slots are recorded a minute ahead at most.
update watcher set last_slot_at = now() + interval '2 min';
