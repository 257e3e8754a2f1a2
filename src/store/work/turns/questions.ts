import { sql } from "kysely";
import { refuse } from "../../../errors.ts";
import type { Db } from "../../pg/database.ts";
import type { Look } from "../../pg/looks.ts";
import type { Json } from "../../pg/schema/schema-columns.ts";
import { storableJson, storableText } from "../../pg/values/storable.ts";
import type { NotifyEntry } from "../messages/deliveries.ts";

/**
 * Questions of an attempt's agent to a person. A question is open until its first end: a person's
 * answer, the default at its deadline, or a withdrawal by the agent. The transaction that finds the
 * question open under its row lock decides.
 */

export type QuestionState = "open" | "answered" | "expired" | "withdrawn";

export type QuestionRow = {
  orgId: string;
  /** The run or turn of the attempt. */
  workId: string;
  /** The same id by the kind of work; the other id is null. */
  runId: string | null;
  turnId: string | null;
  attemptToken: string;
  id: string;
  attempt: number;
  /** Null: a turn that continues no watcher's run. */
  watcherId: string | null;
  watcherSlug: string | null;
  /** The watcher's current notify entries. */
  notify: readonly NotifyEntry[] | null;
  deviceId: string;
  /** JSON of the proto's Question and QuestionPolicy. */
  question: Json;
  policy: Json;
  askedAt: Date;
  deadlineAt: Date;
  state: QuestionState;
  optionId: string;
  text: string;
  answeredBy: string;
  answeredAt: Date | null;
};

/** Maximum questions of an attempt; further questions receive the default at once. */
export const questionsPerAttemptMax = 200;

/**
 * Maximum milliseconds for which a turn's timeout stands still while its questions are open; the
 * same as the device's.
 */
export const turnWaitMsMax = 3_600_000;

/** Milliseconds before the end of its turn at which an unanswered question receives its default. */
const turnTailMs = 30_000;

/** For a question `q`: whether the asking attempt is live. */
const isWaitedFor = sql`(
  exists (select from run r where r.org_id = q.org_id and r.id = q.work_id and r.attempt_token = q.attempt_token)
  or q.is_turn and exists (select from turn t
    where t.org_id = q.org_id and t.id = q.work_id and t.attempt_token = q.attempt_token))`;

const columns = sql`
  q.org_id as "orgId", q.work_id as "workId",
  case when not q.is_turn then q.work_id end as "runId", case when q.is_turn then q.work_id end as "turnId",
  q.attempt_token as "attemptToken", q.id, q.attempt,
  q.watcher_id as "watcherId", w.slug as "watcherSlug", w.notify, q.device_id as "deviceId", q.question, q.policy,
  q.asked_at as "askedAt",
  q.deadline_at as "deadlineAt", q.state, q.option_id as "optionId", q.text, q.answered_by as "answeredBy",
  q.answered_at as "answeredAt"`;

const withSlug = sql`left join watcher w on w.org_id = q.org_id and w.id = q.watcher_id`;

export type Asked = {
  orgId: string;
  deviceId: string;
  workId: string;
  attemptToken: string;
  id: string;
  question: Json;
  /** The option for each default; empty: no option. */
  denies: string;
  allows: string;
};

/**
 * Stores a question of a live attempt of the device, once, and returns its row. Undefined: the
 * attempt is no longer the device's, or has reached {@link questionsPerAttemptMax}. `isNew`: the
 * call stored the question.
 */
export async function ask(tx: Db, asked: Asked): Promise<(QuestionRow & { isNew: boolean }) | undefined> {
  const { orgId, deviceId, workId, attemptToken, id } = asked;
  const { rows: stored } = await sql`
    insert into question (org_id, work_id, is_turn, attempt_token, id, attempt, watcher_id, device_id, question, policy,
      deadline_at, option_id)
    select r.org_id, r.id, r.is_turn, r.attempt_token, ${storableText(id)}, r.attempt, r.watcher_id, r.device_id,
      ${storableJson(asked.question)}::jsonb, p.policy,
      least(now() + coalesce((p.policy->>'timeout')::interval, interval '10 min'), r.ends_at),
      case when p.policy->>'defaultAnswer' = 'QUESTION_DEFAULT_ALLOW' and ${asked.allows} <> ''
        then ${asked.allows} else ${asked.denies} end
    from (
        select org_id, id, false as is_turn, attempt_token, attempt, watcher_id, watcher_version, device_id,
          'infinity'::timestamptz as ends_at
        from run
        where org_id = ${orgId} and id = ${workId} and attempt_token = ${attemptToken} and device_id = ${deviceId}
        union all
        -- A turn's timeout stands still for a bounded time: the default is taken while its agent can still make use of it.
        select t.org_id, t.id, true, t.attempt_token, t.attempt, o.watcher_id, o.watcher_version, t.holder_id,
          t.expires_at + ${turnWaitMsMax - turnTailMs} * interval '1 ms'
        from turn t
          left join run_all o on o.org_id = t.org_id and o.id = t.resume_run_id
        where t.org_id = ${orgId} and t.id = ${workId} and t.attempt_token = ${attemptToken} and t.holder_id = ${deviceId}
      ) r
      left join watcher_revision v
        on v.org_id = r.org_id and v.watcher_id = r.watcher_id and v.version = r.watcher_version
      cross join lateral (select coalesce(v.agent_work->'questions', '{}') as policy) p
    where (select count(*) from question o
        where o.org_id = r.org_id and o.work_id = r.id and o.attempt_token = r.attempt_token) < ${questionsPerAttemptMax}
    on conflict do nothing
    returning 1
  `.execute(tx);
  const row = await find(tx, { orgId, workId, attemptToken, id });
  return row && row.deviceId === deviceId ? { ...row, isNew: stored.length > 0 } : undefined;
}

async function find(
  db: Db,
  which: { orgId: string; workId: string; attemptToken: string; id: string },
): Promise<QuestionRow | undefined> {
  const { rows } = await sql<QuestionRow>`
    select ${columns} from question q ${withSlug}
    where q.org_id = ${which.orgId} and q.work_id = ${which.workId} and q.attempt_token = ${which.attemptToken}
      and q.id = ${storableText(which.id)}
  `.execute(db);
  return rows[0];
}

/**
 * Locks the question of an answer: the named question of the work's latest attempt, or its only
 * open question. Refuses with `not_found`, and with `failed_precondition` if several are open and
 * none is named.
 */
export async function lockForAnswer(
  tx: Db,
  which: { orgId: string; workId: string; questionId: string },
): Promise<QuestionRow> {
  const { orgId, workId, questionId } = which;
  const match = questionId === "" ? sql`q.state = 'open'` : sql`q.id = ${storableText(questionId)}`;
  const { rows } = await sql<QuestionRow>`
    select ${columns} from question q ${withSlug}
    where q.org_id = ${orgId} and q.work_id = ${workId} and ${match}
    order by q.attempt desc, q.asked_at desc
    limit 2
    for update of q
  `.execute(tx);
  if (!rows[0]) {
    refuse(
      "not_found",
      questionId === "" ? `${workId} has no open question` : `${workId} has no question "${questionId}"`,
    );
  }
  if (questionId === "" && rows.length > 1) {
    refuse("failed_precondition", "several questions are open; name one in question_id", {
      field: "question_id",
    });
  }
  return rows[0];
}

/**
 * Ends an open question, locked or not; undefined if the question has ended already, or is another
 * device's than the named one.
 */
export async function close(
  tx: Db,
  which: { orgId: string; deviceId?: string; workId: string; attemptToken: string; id: string },
  end: { state: "answered" | "expired" | "withdrawn"; optionId?: string; text?: string; answeredBy?: string },
): Promise<QuestionRow | undefined> {
  const { rows } = await sql<{ id: string }>`
    update question set state = ${end.state}, answered_at = now(), text = ${storableText(end.text ?? "")},
      answered_by = ${end.answeredBy ?? ""}, option_id = coalesce(${end.optionId ?? null}, option_id)
    where org_id = ${which.orgId} and work_id = ${which.workId} and attempt_token = ${which.attemptToken}
      and id = ${storableText(which.id)} and state = 'open'
      and device_id = coalesce(${which.deviceId ?? null}::uuid, device_id)
    returning id
  `.execute(tx);
  return rows[0] && find(tx, which);
}

/**
 * Ends up to `limit` open questions past their deadline with their defaults, and withdraws
 * questions whose attempt has ended. Rows locked by other transactions are skipped, so all replicas
 * may call at once.
 */
export async function closeDue(tx: Db, limit: number): Promise<QuestionRow[]> {
  const { rows } = await sql<QuestionRow>`
    with due as materialized (
      select q.org_id, q.work_id, q.attempt_token, q.id,
        ${isWaitedFor} as is_waited_for
      from question q
      where q.state = 'open' and (q.deadline_at <= now() or not ${isWaitedFor})
      order by q.org_id, q.work_id, q.attempt_token, q.id
      limit ${limit}
      for update of q skip locked
    ),
    q as (
      update question o set state = case when d.is_waited_for then 'expired' else 'withdrawn' end, answered_at = now()
      from due d
      where o.org_id = d.org_id and o.work_id = d.work_id and o.attempt_token = d.attempt_token and o.id = d.id
      returning o.*
    )
    select ${columns} from q ${withSlug}
  `.execute(tx);
  return rows;
}

/**
 * Milliseconds until the next deadline, by the database's clock; undefined without open questions.
 */
export const nextDeadlineMs: Look<number | undefined> = {
  expression: sql`
    select greatest(0, extract(epoch from deadline_at - clock_timestamp()) * 1000)::float8
    from question where state = 'open' order by deadline_at limit 1`,
  read: (ms) => (ms as number | null) ?? undefined,
};

/**
 * Questions of the devices answered within `withinMs` milliseconds, to repeat answers whose message
 * was lost.
 */
export async function listAnswered(
  db: Db,
  devices: readonly { orgId: string; deviceId: string }[],
  withinMs: number,
): Promise<QuestionRow[]> {
  if (devices.length === 0) return [];
  const { rows } = await sql<QuestionRow>`
    select ${columns} from question q ${withSlug}
    where q.state in ('answered', 'expired') and q.asked_at > now() - interval '8 days'
      and q.answered_at > now() - ${withinMs} * interval '1 ms'
      and (q.org_id, q.device_id) in (
        select * from unnest(${devices.map((d) => d.orgId)}::text[], ${devices.map((d) => d.deviceId)}::uuid[]))
      and ${isWaitedFor}
  `.execute(db);
  return rows;
}

/** The number of open questions of each run or turn; runs and turns without any are absent. */
export async function countOpen(
  db: Db,
  runs: { orgId: string; runIds: readonly string[] },
): Promise<Map<string, number>> {
  if (runs.runIds.length === 0) return new Map();
  const { rows } = await sql<{ workId: string; count: number }>`
    select work_id as "workId", count(*)::int as count from question
    where org_id = ${runs.orgId} and work_id = any(${runs.runIds as string[]}::uuid[]) and state = 'open'
    group by work_id
  `.execute(db);
  return new Map(rows.map(({ workId, count }) => [workId, count]));
}

/** The org's questions, the newest first, from before `before`. */
export async function list(
  db: Db,
  filter: {
    orgId: string;
    runId?: string | undefined;
    turnId?: string | undefined;
    watcherId?: string | undefined;
    isOpen: boolean;
    before?: { askedAtMicros: number; runId: string; id: string } | undefined;
    limit: number;
  },
): Promise<(QuestionRow & { askedAtMicros: number })[]> {
  const where = [sql`q.org_id = ${filter.orgId}`];
  if (filter.runId) where.push(sql`q.work_id = ${filter.runId} and not q.is_turn`);
  if (filter.turnId) where.push(sql`q.work_id = ${filter.turnId} and q.is_turn`);
  if (filter.watcherId) where.push(sql`q.watcher_id = ${filter.watcherId}`);
  if (filter.isOpen) where.push(sql`q.state = 'open'`);
  const { before } = filter;
  if (before) {
    where.push(
      sql`(q.asked_at, q.work_id, q.id) < (
        timestamptz 'epoch' + ${before.askedAtMicros}::float8 * interval '1 microsecond', ${before.runId}, ${before.id})`,
    );
  }
  const { rows } = await sql<QuestionRow & { askedAtMicros: number }>`
    select ${columns}, (extract(epoch from q.asked_at) * 1e6)::float8 as "askedAtMicros" from question q ${withSlug}
    where ${sql.join(where, sql` and `)}
    order by q.asked_at desc, q.work_id desc, q.id desc
    limit ${filter.limit}
  `.execute(db);
  return rows;
}
