-- One word for one thing: the operating system of a device is its os ("platform" is a chat platform); a run has a deadline
-- for its start, as a turn has; a question belongs to a run or a turn, which together are work.
alter table device rename column platform to os;
alter table run rename column expires_at to start_deadline_at;
alter table run_finished rename column expires_at to start_deadline_at;
alter index run_expires rename to run_start_deadline;
alter table question rename column run_id to work_id;
alter view run_all rename column expires_at to start_deadline_at;
