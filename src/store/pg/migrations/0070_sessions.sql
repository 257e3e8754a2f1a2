-- A session is named by its epoch and a random id. The epoch alone is not enough: a failover to a
-- standby that lags resets the epoch, and two sessions of a device then have the same epoch.
alter table presence add column session_id uuid not null default gen_random_uuid();

-- The session with the attempt: the device's newer session continues the attempt under the same
-- token.
alter table run add column claimed_session uuid;
alter table turn add column claimed_session uuid;
