-- A turn that continues the session of a run's agent (StartTurn with resume_run_id), on the run's
-- device.
alter table turn add column agent_session_id text not null default '';
alter table turn add column resume_run_id uuid;
-- The agent's own id of the turn's session, for the next turn.
alter table turn_finished add column agent_session_id text not null default '';
