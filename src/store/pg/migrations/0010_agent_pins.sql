-- The reason why no device takes the agent's turns: the pinned device was removed. Empty: turns are
-- taken. The next decision about the pin clears the reason.
alter table agent add column no_executor_reason text not null default '';
