-- Why nobody takes the agent's turns: the device that it was pinned to is gone. Empty: somebody does. The next decision about
-- its pin clears it.
alter table agent add column no_executor_reason text not null default '';
