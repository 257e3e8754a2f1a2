-- A session is named by a random id beside its epoch. The epoch alone is not enough: a failover to a standby that lags
-- takes it back, and two sessions of one device then have the same one.
alter table presence add column session_id uuid not null default gen_random_uuid();

-- Which session has an attempt: its device's newer one goes on with it under the same token.
alter table run add column claimed_session uuid;
alter table turn add column claimed_session uuid;
