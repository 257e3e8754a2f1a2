-- Chat platforms of agents.
create table platform (
  org_id text not null,
  stable_id text not null,
  agent_id text not null,
  kind text not null,
  -- The readable settings, by key.
  config jsonb not null default '{}',
  -- By key: "enc:v1:…" (src/secrets.ts), or "secret://NAME".
  secrets jsonb not null default '{}',
  version int not null default 1,
  status text not null check (status in ('stopped', 'starting', 'running', 'failed')),
  status_reason text not null default '',
  -- Grows with every start and stop. A start's outcome is written only under its own epoch.
  epoch bigint not null default 0,
  -- While starting: the time from which the start counts as failed, even without a report (R7).
  start_deadline_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (org_id, stable_id),
  foreign key (org_id, agent_id) references agent,
  check ((status = 'starting') = (start_deadline_at is not null))
);
-- platforms.list for an agent, platforms.removeAllOfAgent
create index platform_agent on platform (org_id, agent_id, stable_id);

call protect_tenant_table('platform');
