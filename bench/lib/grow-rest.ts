import { bigOrg, days, type Growing } from "./grow.ts";

/**
 * Conversations with turns, destinations with deliveries, hooks, questions, tokens, waiting runs.
 */
export async function growRest({ client }: Growing, scale: number): Promise<void> {
  const statements = [...turnsOf(scale), ...restOf(scale)];
  for (const statement of statements) await client.query(statement);
  await client.query(
    `vacuum analyze conversation, turn_message, turn_finished, destination, delivery, hook, hook_delivery, question, token, run,
      window_kept, bulk_operation, bulk_item`,
  );
}

const count = (scale: number, full: number) => Math.max(20, Math.round(scale * full));

function turnsOf(scale: number): string[] {
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
  ];
}

function restOf(scale: number): string[] {
  return [
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
      insert into bulk_operation (org_id, id, kind, filter, reason, actor, state, created_at, finished_at, counts)
      select '${bigOrg}', pg_temp.id_at(now() - i * interval '1 hour', 'bulk ' || i), 'retry', '{"statuses": ["failed"]}', '', 'pinion', 'finished',
        now() - i * interval '1 hour', now() - i * interval '1 hour',
        '{"matched": 5000, "done": 5000, "passed_over": 0, "failed": 0}' from generate_series(1, 60) i returning org_id, id
    )
    insert into bulk_item (org_id, bulk_id, run_id, state)
    select m.org_id, m.id, gen_random_uuid(), 'done' from made m, generate_series(1, ${count(scale, 5_000)})`,
  ];
}
