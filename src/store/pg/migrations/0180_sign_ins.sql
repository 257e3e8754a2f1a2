-- Signed-in browsers: each has a token of its own, whose secret is in its cookie, and the source of
-- the sign-in.
create table sign_in (
  org_id text not null references org on delete cascade,
  token_id uuid not null,
  method text not null check (method in ('link', 'token', 'oidc')),
  -- The token that made the sign-in or its link, and ends it. Null: made by a provider.
  maker_id uuid,
  address text not null,
  user_agent text not null,
  primary key (org_id, token_id),
  foreign key (org_id, token_id) references token on delete cascade
);
-- tokens.revoke, tokens.rotate
create index sign_in_maker on sign_in (org_id, maker_id);
call protect_tenant_table('sign_in');

-- Links, logins of commands and visits at a provider, before the person is known: of no tenant, so
-- not for requests.
create table sign_in_code (
  sha256 bytea primary key,
  kind text not null check (kind in ('link', 'login', 'oidc')),
  -- For a login: the code that a person compares and types.
  user_code text unique,
  address text not null,
  data jsonb not null,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  used_at timestamptz
);
-- signInCodes.create: the number of open codes of an address
create index sign_in_code_address on sign_in_code (address, created_at);
grant select, insert, update, delete on sign_in_code to pinion_scheduler;

-- A provider's identities: the issuer and its subject, which is no email address.
create table user_identity (
  issuer text not null,
  subject text not null,
  user_id uuid not null references "user" on delete cascade,
  created_at timestamptz not null default now(),
  primary key (issuer, subject)
);
create index user_identity_user on user_identity (user_id);
grant select, insert, update, delete on user_identity to pinion_scheduler;
