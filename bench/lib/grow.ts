import pg from "pg";

/**
 * A service after a month, in rows: half of everything belongs to one org, the rest to many small
 * ones. The statements write the forms that the replicas write, a day at a time. All of it is idle:
 * no watcher is due before January.
 */

export const days = 30;
/** The org with half of the watchers, devices, runs and events. */
export const bigOrg = "org-0";

export type Grown = {
  smallOrgs: number;
  devices: number;
  /** People of the big org; a small one has one. */
  people: number;
};

/** One connection, which keeps the names of watchers in a temporary table. */
export type Growing = {
  url: string;
  client: pg.Client;
  runs: number;
  events: number;
  /** Numbers the additions of runs, so that no two have a slot in common. */
  additions: number;
};

export async function startGrowing(url: string): Promise<Growing> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  await client.query("set synchronous_commit = off");
  await client.query("set work_mem = '256MB'");
  await client.query("set maintenance_work_mem = '512MB'");
  await client.query("set jit = off");
  await client.query(`create function pg_temp.id_at(at timestamptz, seed text) returns uuid language sql immutable as $$
    select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7' || substr(md5(seed), 1, 3) || 'a'
      || substr(md5(seed), 4, 15))::uuid $$`);
  return { url, client, runs: 0, events: 0, additions: 0 };
}

/** Settings of the cluster while rows are only seeded, which nobody minds losing. */
const careless = {
  fsync: "off",
  full_page_writes: "off",
  max_wal_size: "16GB",
  checkpoint_timeout: "1h",
  autovacuum: "off",
};

/** Seeds without durability; afterwards everything is on the disk, and the cluster as it was. */
export async function carelessly({ client }: Growing, seed: () => Promise<void>): Promise<void> {
  for (const [name, value] of Object.entries(careless))
    await client.query(`alter system set ${name} = '${value}'`);
  await client.query("select pg_reload_conf()");
  try {
    await seed();
  } finally {
    for (const name of Object.keys(careless)) await client.query(`alter system reset ${name}`);
    await client.query("select pg_reload_conf()");
    await client.query("checkpoint");
  }
}

/**
 * Orgs, people with their grants, and devices without a stream. Nine in ten devices belong to
 * somebody.
 */
export async function growFleet({ client }: Growing, grown: Grown): Promise<void> {
  const { smallOrgs, devices, people } = grown;
  await client.query(
    `with orgs as (insert into org (id, name) select 'small-' || i, 'Small ' || i from generate_series(1, $1::int) i returning id),
      agents as (insert into agent (org_id, id, name) select id, 'bench', 'bench' from orgs)
    insert into agent_revision (org_id, agent_id, version, name, settings) select id, 'bench', 1, 'bench', '{}' from orgs`,
    [smallOrgs],
  );
  await client.query(
    `with made as (
      insert into "user" (name, email) select 'Person ' || i, 'person-' || i || '@example.org' from generate_series(1, $1::int + $2::int) i
      returning id, email
    ), placed as (select id, split_part(split_part(email, '@', 1), '-', 2)::int as i from made)
    insert into member (org_id, user_id, role)
    select case when i <= $1 then $3 else 'small-' || (i - $1) end, id, case when i % 100 = 1 then 'owner' else 'member' end from placed`,
    [people, smallOrgs, bigOrg],
  );
  await client.query(
    `with owners as materialized (select org_id, array_agg(user_id order by user_id) as ids from member group by 1),
    numbered as (
      select i, case when i % 2 = 0 or $2 = 0 then $3 else 'small-' || (1 + i / 2 % greatest($2, 1)) end as org_id
      from generate_series(0, $1::int - 1) i
    )
    insert into device (org_id, owner_id, install_id, os, label, agent_kinds, max_concurrency, labels)
    select n.org_id, case when i % 10 <> 9 then o.ids[1 + i / 2 % cardinality(o.ids)] end, 'grown-' || i,
      (array['linux', 'macos', 'windows'])[1 + i % 3], 'machine ' || i, array['test'], 2,
      array['site:' || i / 2 % 50] || case when i % 1000 = 0 then array['rare:yes'] else '{}' end
    from numbered n join owners o on o.org_id = n.org_id`,
    [devices, smallOrgs, bigOrg],
  );
  await client.query(
    `insert into presence (org_id, device_id, epoch, connected_at, disconnected_at, last_beat_at)
    select org_id, id, 1, now() - interval '2 days', now() - interval '1 day', now() - interval '1 day'
    from device where install_id like 'grown-%'`,
  );
  // A person has rights on a few devices of others.
  await client.query(
    `with people as materialized (
        select user_id, row_number() over (order by user_id) as i from member where org_id = $1),
      devices as materialized (
        select id, row_number() over (order by id) - 1 as i from device where org_id = $1 and install_id like 'grown-%')
    insert into device_grant (org_id, device_id, permission, user_id, granted_by)
    select $1, d.id, p.permission, people.user_id, 'pinion'
    from people cross join generate_series(1, 2) n cross join (values ('use'), ('read')) p (permission)
      join devices d on d.i = (people.i * 7 + n) % (select count(*) from devices)
    on conflict do nothing`,
    [bigOrg],
  );
  await client.query(
    'vacuum analyze org, "user", member, agent, agent_revision, device, presence, device_grant',
  );
}

/** Watchers with a yearly schedule, nine in ten pinned; one in twenty is paused. */
export async function growWatchers({ client }: Growing, count: number): Promise<void> {
  if (count <= 0) return;
  await client.query(
    `with devices as materialized (
      select org_id, id, org_id = $2 as is_big, row_number() over (partition by org_id = $2 order by id) - 1 as ord
      from device where install_id like 'grown-%'
    ), counts as materialized (
      select count(*) filter (where is_big) as big, count(*) filter (where not is_big) as small from devices
    ), numbered as (
      select i, i % 2 = 0 or c.small = 0 as is_big, i / 2 as nth, c.* from counts c, generate_series(1, $1::int) i
    ), made as (
      insert into watcher (org_id, slug, name, agent_id, device_id, agent_kind, schedule, overlap, status)
      select d.org_id, 'grown-' || i || '-' || substr(md5(random()::text), 1, 8), 'idle', 'bench', case when i % 10 <> 9 then d.id end, 'test',
        '0 0 1 1 *', 'skip', case when i % 20 = 7 then 'paused' else 'active' end
      from numbered n join devices d on d.is_big = n.is_big and d.ord = n.nth % case when n.is_big then n.big else n.small end
      returning org_id, id, status
    ), positions as (
      insert into schedule_position (org_id, watcher_id, next_slot_at, next_due_at)
      select org_id, id, at, at from (
        select *, case when status = 'active' then date_trunc('year', now(), 'UTC') + interval '1 year' end as at from made) m
    ) insert into watcher_revision (org_id, watcher_id, version, name, prompt)
    select org_id, id, 1, 'idle', 'Say hello' from made`,
    [count, bigOrg],
  );
  await client.query("vacuum analyze watcher, schedule_position, watcher_revision");
}

/**
 * The watchers by number: the big org's first. Half of the big org's runs are of a hundredth of its
 * watchers, which run every few minutes.
 */
export async function numberWatchers(client: pg.Client): Promise<{ big: number; all: number }> {
  await client.query("drop table if exists grown_watcher");
  await client.query(
    `create temporary table grown_watcher as
    select (row_number() over (order by org_id <> '${bigOrg}', name <> 'idle', id) - 1)::int as ord, org_id, id, device_id from watcher`,
  );
  await client.query("analyze grown_watcher");
  const { rows } = await client.query(
    `select count(*) filter (where org_id = '${bigOrg}')::int as big, count(*)::int as all from grown_watcher`,
  );
  return rows[0];
}

/**
 * Events of the last month: eight in ten are of runs, packed by four as from batches; the others
 * are alone, of rarer kinds.
 */
export async function growEvents(growing: Growing, count: number): Promise<void> {
  if (count <= 0) return;
  const { client } = growing;
  const watchers = await numberWatchers(client);
  const slices = days;
  const perSlice = Math.ceil(count / slices);
  // Eight of ten events in rows of four, and two alone: four rows for ten events.
  const rowsPerSlice = Math.ceil(perSlice / 10) * 4;
  for (let day = slices - 1; day >= 0; day--) {
    await client.query(
      `insert into event_row (org_id, seq, at, kind, actor, run_id, watcher_id, device_id, data, seqs, run_ids, watcher_ids, device_ids)
      overriding system value
      select w.org_id, case when packed then seqs[4] else seqs[1] end, at,
        case when packed then case when i % 4 = 0 then 'run.created' else 'run.completed' end
          else (array['run.failed', 'run.skipped', 'watcher.updated', 'device.connected', 'run.failed', 'run.timeout', 'token.created'])[1 + i / 4 % 7] end,
        case when packed and i % 4 = 1 then 'device' else 'pinion' end,
        case when not packed then e.id end, case when not packed then w.id end, case when not packed then w.device_id end, '{}',
        case when packed then seqs end, case when packed then array[e.id, gen_random_uuid(), gen_random_uuid(), gen_random_uuid()] end,
        case when packed then array[w.id, w.id, w.id, w.id] end,
        case when packed then array[w.device_id, w.device_id, w.device_id, w.device_id] end
      from (
        select i, i % 4 < 2 as packed, at, pg_temp.id_at(at, 'event ' || i || ' ' || $2) as id,
          case when i % 2 = 0 and i % 8 < 4 or i % 2 = 1 and i % 8 >= 4 then (i::bigint * 2654435761) % ${watchers.big}
            else (i::bigint * 2654435761) % ${watchers.all} end as ord,
          array(select nextval('event_seq_seq') from generate_series(1, case when i % 4 < 2 then 4 else 1 end) offset 0) as seqs
        from generate_series(0, $1::int - 1) i
          cross join lateral (select now() - ($2::int * interval '1 day') - interval '1 minute'
            - (($1 - i) * (86000 / $1::float8)) * interval '1 second' as at) t
        order by i
      ) e join grown_watcher w on w.ord = e.ord order by seqs[1]`,
      [rowsPerSlice, day],
    );
  }
  growing.events += rowsPerSlice * slices * 2.5;
  await client.query("vacuum analyze event_row");
}
