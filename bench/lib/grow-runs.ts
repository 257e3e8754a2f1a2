import type pg from "pg";
import { openDatabase, transaction } from "../../src/store/pg/database.ts";
import { closePast, countOpenDay } from "../../src/store/work/service/partitions.ts";
import { days, type Growing, numberWatchers } from "./grow.ts";

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
export async function settleRuns({ client, url }: Growing): Promise<void> {
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
  await closeDays(url);
}

/**
 * As replicas have closed all past days by now, and counted the open day until some minutes ago.
 */
async function closeDays(url: string): Promise<void> {
  const { db, close } = openDatabase({ url, poolMax: 1 });
  try {
    while (await transaction(db, (tx) => closePast(tx)));
    while (await countOpenDay(db));
  } finally {
    await close();
  }
}
