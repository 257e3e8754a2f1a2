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
  return { client, runs: 0, events: 0, additions: 0 };
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

/** Orgs, people with their grants, and devices without a stream. Nine in ten devices belong to somebody. */
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

/** The partitions of the last month, as a replica would have made them, one a day. */
async function createPartitions(client: pg.Client): Promise<void> {
  for (const table of ["run_finished", "turn_finished", "run_report", "late_result"]) {
    await client.query(`do $$ declare day date; begin
      for day in select d from generate_series((now() at time zone 'UTC')::date - ${days - 1}, (now() at time zone 'UTC')::date, interval '1 day') d loop
        if to_regclass('${table}_' || to_char(day, 'YYYYMMDD')) is null then
          execute format('create table %I partition of ${table} for values from (%L) to (%L) with (autovacuum_analyze_scale_factor = 1)',
            '${table}_' || to_char(day, 'YYYYMMDD'), day || ' 00:00:00+00', (day + 1) || ' 00:00:00+00');
        end if;
      end loop; end $$`);
  }
}

/**
 * The watchers by number: the big org's first. Half of the big org's runs are of a hundredth of its
 * watchers, which run every few minutes.
 */
async function numberWatchers(client: pg.Client): Promise<{ big: number; all: number }> {
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

/** Ended runs of the last month with their slots, reports, inputs and late results. */
export async function growRuns(growing: Growing, count: number): Promise<void> {
  if (count <= 0) return;
  const { client } = growing;
  await createPartitions(client);
  // Its slots are in no order of the index, which is therefore made afterwards.
  await client.query("alter table slot drop constraint slot_pkey");
  const watchers = await numberWatchers(client);
  growing.additions++;
  const perDay = Math.ceil(count / days);
  for (let day = 0; day < days; day++) await growDay(growing, { day, perDay, ...watchers });
  await client.query(
    "alter table slot add constraint slot_pkey primary key (org_id, watcher_id, scheduled_for)",
  );
  growing.runs += perDay * days;
}

type Day = { day: number; perDay: number; big: number; all: number };

async function growDay({ client, additions }: Growing, { day, perDay, big, all }: Day): Promise<void> {
  const small = Math.max(1, all - big);
  const hash = (salt: number) =>
    `((i::bigint + ${salt}) * 2654435761 + $2::bigint * 40503 + ${salt}) % 4294967291`;
  const hot = Math.max(1, Math.floor(big / 100));
  await client.query(
    `with drawn as materialized (
      select i, (${hash(7)} % 1000)::int as luck, at, pg_temp.id_at(at, i::text || ' ' || $2 || ' ' || $3) as id,
        case when i % 4 = 0 then ${hash(1)} % ${hot} when i % 4 = 2 or ${all} = ${big} then ${hash(2)} % ${big}
          else ${big} + ${hash(3)} % ${small} end as ord
      from generate_series(0, $1::int - 1) i
        cross join lateral (select date_trunc('day', now(), 'UTC') - ($2::int * interval '1 day')
          + (i * (case when $2 = 0 then greatest(extract(epoch from now() - date_trunc('day', now(), 'UTC')) - 60, 1) else 86000 end
            / $1::float8)) * interval '1 second' + $3::int * interval '1 microsecond' as at) t
    ), ran as materialized (
      select d.*, w.org_id, w.id as watcher_id, w.device_id, case when luck < 900 then 'completed' when luck < 950 then 'failed'
        when luck < 960 then 'timeout' when luck < 970 then 'cancelled' else 'skipped' end as status,
        case when luck % 10 = 3 then 'manual' else 'scheduled' end as source
      from drawn d join grown_watcher w on w.ord = d.ord
    ), slots as (
      insert into slot (org_id, watcher_id, scheduled_for, run_id, created_at)
      select org_id, watcher_id, at, id, at from ran where source = 'scheduled' order by org_id, watcher_id
      on conflict do nothing
    ), starts as (
      insert into run_start (org_id, run_id, watcher_id, input, actor, created_at)
      select org_id, id, watcher_id, '{"n": 1}', 'pinion', at from ran where source = 'manual'
    ), reports as (
      insert into run_report (org_id, run_id, finished_at, attempt_token, attention, facts)
      select org_id, id, at + interval '4 s', gen_random_uuid(), case when luck % 100 = 3 then '{permission_denied}'::text[] else '{}' end,
        '{"modelUsed": "model-1", "usage": {"inputTokens": "1000", "outputTokens": "200"}}'
      from ran where status = 'completed' and luck % 10 = 3
    ), late as (
      insert into late_result (org_id, subject_id, kind, attempt, attempt_token, device_id, outcome, has_settled, output,
        is_output_truncated, signal, reason, duration_ms, finished_at)
      select org_id, id, 'run', 1, gen_random_uuid(), device_id, 'completed', false, 'late', false, '', '', 4000, at + interval '9 s'
      from ran where luck = 955 and device_id is not null
    )
    insert into run_finished (org_id, id, watcher_id, watcher_version, agent_id, agent_version, device_id, agent_kind,
      notification, source, scheduled_for, window_start, window_end, due_at, created_at, timeout_ms, max_attempts, status, attempt,
      attempt_token, claimed_at, claimed_epoch, pushed_at, started_at, reason, past_attempts, finished_at, skip_reason, is_reported,
      exit_code, duration_ms, window_id, output, is_output_truncated)
    select org_id, id, watcher_id, 1, 'bench', 1, case when status <> 'skipped' then device_id end, 'test', 'none', source,
      case when source = 'scheduled' then at end, at - interval '1 hour', at, at, at - interval '1 s', 3600000, 1, status,
      case when status = 'skipped' then 0 else 1 end, case when status <> 'skipped' then gen_random_uuid() end,
      at, 1, at, at + interval '50 ms', '', '[]', at + interval '4 s', case when status = 'skipped' then 'overlap' end,
      status in ('completed', 'failed'), case when status = 'completed' then 0 when status = 'failed' then 1 end, 3950,
      case when status = 'completed' then id end, case when status = 'completed' then 'nothing new, number ' || i end,
      case when status = 'completed' then false end
    from ran`,
    [perDay, day, additions],
  );
}

/** As the completions of the last runs leave the watchers; some last ran a month ago. */
export async function settleRuns({ client }: Growing): Promise<void> {
  await client.query(
    `with last as (
      select distinct on (org_id, watcher_id) org_id, watcher_id, id, window_end, finished_at from run_finished
      where output is not null and (finished_at > now() - interval '3 days' or finished_at < now() - interval '28 days')
      order by org_id, watcher_id, id desc
    )
    update watcher w set last_fired_at = l.finished_at, last_window_id = l.id, last_window_at = l.finished_at, window_cursor_at = l.window_end
    from last l where w.org_id = l.org_id and w.id = l.watcher_id`,
  );
  await client.query(
    `insert into usage_day (org_id, day, watcher_id, agent_id, device_id, runs, input_tokens, output_tokens)
    select f.org_id, (f.finished_at at time zone 'UTC')::date, f.watcher_id, 'bench', coalesce(f.device_id, '00000000-0000-0000-0000-000000000000'),
      count(*), 1000 * count(*), 200 * count(*)
    from run_finished f join run_report r on r.org_id = f.org_id and r.run_id = f.id and r.finished_at = f.finished_at
    group by 1, 2, 3, 5 on conflict do nothing`,
  );
  await client.query(
    "vacuum analyze run_finished, run_report, late_result, slot, run_start, watcher, usage_day",
  );
}

/**
 * Events of the last month: eight in ten are of runs, packed by four as from batches; the others are
 * alone, of rarer kinds.
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

/** Conversations with turns, destinations with deliveries, hooks, questions, tokens, waiting runs. */
export async function growRest({ client }: Growing, scale: number): Promise<void> {
  const statements = restOf(scale);
  for (const statement of statements) await client.query(statement);
  await client.query(
    `vacuum analyze conversation, turn_message, turn_finished, destination, delivery, hook, hook_delivery, question, token, run,
      window_kept, bulk_operation, bulk_item`,
  );
}

const count = (scale: number, full: number) => Math.max(20, Math.round(scale * full));

function restOf(scale: number): string[] {
  const orgOf = `case when i % 2 = 0 or o.n = 0 then '${bigOrg}' else 'small-' || (1 + i / 2 % greatest(o.n, 1)) end`;
  const orgs = "(select count(*)::int as n from org where id like 'small-%') o";
  const conversations = count(scale, 200_000);
  const turns = count(scale, 1_000_000);
  const month = `now() - (i::float8 / N) * interval '${days - 1} days'`;
  const monthOf = (total: number) => month.replace("N", String(total));
  return [
    `insert into conversation (org_id, agent_id, id, snapshot_version, created_at, last_turn_at)
    select ${orgOf}, 'bench', 'bench_person-' || i || '_x', 5, ${monthOf(conversations)}, ${monthOf(conversations)}
    from ${orgs}, generate_series(0, ${conversations - 1}) i`,
    `with t as materialized (
      select i, i % ${conversations} as c, ${monthOf(turns)} as at from generate_series(0, ${turns - 1}) i
    ), named as materialized (
      select t.i, t.at, 'bench_person-' || c || '_x' as conversation_id, pg_temp.id_at(at, 'turn ' || i) as id,
        ${orgOf.replaceAll("i ", "c ").replaceAll("i/", "c/")} as org_id from ${orgs}, t
    ), messages as (
      insert into turn_message (org_id, agent_id, conversation_id, message_id, turn_id, input_sha256, created_at)
      select org_id, 'bench', conversation_id, 'm' || i, id, sha256(i::text::bytea), at from named
    )
    insert into turn_finished (org_id, id, agent_id, agent_version, conversation_id, message_id, agent_kind, input, is_gated,
      timeout_ms, created_at, start_deadline_at, status, attempt, reason, finished_at, is_retryable, is_reported, reply,
      is_reply_truncated, signal, duration_ms)
    select org_id, id, 'bench', 1, conversation_id, 'm' || i, 'test', 'hello', true, 600000, at, at + interval '10 min',
      case when i % 50 = 0 then 'failed' else 'completed' end, 1, '', at + interval '3 s', false, true, 'hello', false, '', 3000 from named`,
    `insert into destination (org_id, slug, name, kind, config, takes_alerts)
    select id, 'hook-' || n, 'Hook', 'webhook', '{"url": "http://127.0.0.1:9/"}', false from org, generate_series(1, 3) n`,
    `insert into delivery (org_id, id, destination_id, lane, watcher_id, run_id, kind, reason, state, attempts, last_status, created_at,
      next_at, since, ended_at)
    select f.org_id, pg_temp.id_at(f.finished_at, f.id::text), d.id, f.watcher_id, f.watcher_id, f.id, 'run.ended', 'failed',
      case when get_byte(uuid_send(f.id), 15) < 5 then 'dead' else 'delivered' end, 1, 200, f.finished_at, f.finished_at, f.finished_at, f.finished_at
    from run_finished f join destination d on d.org_id = f.org_id and d.slug = 'hook-1'
    where f.status in ('failed', 'timeout')`,
    `insert into hook (org_id, slug, watcher_id, kind, secret, created_by)
    select org_id, 'hook-' || row_number() over (), id, 'standard', 'enc:v1:x', 'pinion'
    from (select org_id, id from watcher where name = 'idle' order by right(id::text, 6) limit ${count(scale, 2_000)}) w`,
    `insert into hook_delivery (org_id, id, hook_id, delivery_key, received_at, outcome, body_bytes)
    select h.org_id, pg_temp.id_at(at, h.id::text || n), h.id, n::text, at, 'started', 100
    from hook h, generate_series(1, 150) n cross join lateral (select now() - n * interval '4 hours' as at) t`,
    `insert into question (org_id, work_id, attempt_token, id, attempt, watcher_id, device_id, question, policy, asked_at, deadline_at,
      state, option_id, answered_by, answered_at)
    select f.org_id, f.id, gen_random_uuid(), 'q', 1, f.watcher_id, coalesce(f.device_id, gen_random_uuid()), '{"title": "May I?"}', '{}',
      f.started_at, f.started_at + interval '10 min', 'answered', 'yes', 'pinion', f.finished_at
    from run_finished f join run_report r on r.org_id = f.org_id and r.run_id = f.id and r.finished_at = f.finished_at
    where r.attention <> '{}'`,
    `insert into token (org_id, kind, label, sha256, scopes, user_id, created_at, last_used_at)
    select org_id, 'pat', 'laptop', sha256(user_id::text::bytea), '{read,write}', user_id, now(), now() from member`,
    `insert into run (org_id, watcher_id, watcher_version, agent_id, agent_version, device_id, agent_kind, notification, source,
      window_start, window_end, due_at, timeout_ms, max_attempts, is_pinned)
    select org_id, id, 1, 'bench', 1, device_id, 'test', 'none', 'manual', now() - interval '1 hour', now(), now(), 3600000, 1, true
    from (select * from watcher where name = 'idle' and device_id is not null order by id desc limit ${count(scale, 5_000)}) w`,
    `insert into window_kept (org_id, id, watcher_id, run_id, window_start, window_end, model_used, extracted_data)
    select w.org_id, v.id, w.id, v.id, now() - interval '60 days', now() - interval '59 days', 'device-cli', '{"output": "old"}'
    from (select org_id, id from watcher where name = 'idle' order by id limit ${count(scale, 50_000)}) w
      cross join lateral (select pg_temp.id_at(now() - interval '59 days', w.id::text) as id) v`,
    `with made as (
      insert into bulk_operation (org_id, id, kind, filter, reason, actor, state, created_at, finished_at)
      select '${bigOrg}', pg_temp.id_at(now() - i * interval '1 hour', 'bulk ' || i), 'retry', '{"statuses": ["failed"]}', '', 'pinion', 'finished',
        now() - i * interval '1 hour', now() - i * interval '1 hour' from generate_series(1, 60) i returning org_id, id
    )
    insert into bulk_item (org_id, bulk_id, run_id, state)
    select m.org_id, m.id, gen_random_uuid(), 'done' from made m, generate_series(1, ${count(scale, 5_000)})`,
  ];
}
