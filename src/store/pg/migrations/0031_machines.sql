-- What a device says of the file that configures it: the one before it is in force while it is wrong.
alter table device add column config_problem text not null default '';
-- The machine of the last session that was opened: {machineHash, bootHash, hostName}; see devices.isOtherMachine.
alter table device add column machine jsonb not null default '{}';
-- Another machine that was turned down because it has a copy of the device's identity: {hostName, seenAt}.
alter table device add column duplicate jsonb;
