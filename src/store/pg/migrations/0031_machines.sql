-- The problem of the device's configuration file; while set, the previous configuration is in
-- force.
alter table device add column config_problem text not null default '';
-- The machine of the last opened session: {machineHash, bootHash, hostName}; see
-- devices.isOtherMachine.
alter table device add column machine jsonb not null default '{}';
-- Another machine, refused because of a copy of the device's identity: {hostName, seenAt}.
alter table device add column duplicate jsonb;
