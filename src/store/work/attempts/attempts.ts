import { sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import type { Look } from "../../pg/looks.ts";
import { relaxed } from "../../pg/relaxed.ts";
import { ofAnySize, unnest } from "../../pg/values/unnest.ts";
import { isPending } from "../runs/run-claims.ts";
import { type Adopted, adoptedColumns } from "../service/presence.ts";
import { timeAsked } from "./attempt-rules.ts";
import type { AttemptName } from "./settlements.ts";

/**
 * Attempts: a device session claims a run (run-claims.ts), accepts it, and sends heartbeats.
 * settlements.ts ends attempts.
 *
 *   pending ──claim──▶ claimed ──accept──▶ running ──heartbeat──▶ running
 *      ▲                  │                   │
 *      └───── settle ─────┴─────────┬─────────┘
 *                                   └─▶ run_finished
 */

/** The schemas for the answers of runs, by run id; runs without a schema are absent. */
export async function findSchemas(
  db: Db,
  attempts: readonly { orgId: string; workId: string }[],
  options: { isLate?: boolean } = {},
): Promise<Map<string, unknown>> {
  if (attempts.length === 0) return new Map();
  const input = unnest("i", attempts, {
    org_id: ["text", (a) => a.orgId],
    run_id: ["uuid", (a) => a.workId],
  });
  const { rows } = await sql<{ runId: string; schema: unknown }>`
    select r.id as "runId", v.extraction_schema as schema
    from ${input}
      join ${sql.table(options.isLate ? "run_all" : "run")} r on r.org_id = i.org_id and r.id = i.run_id
      join watcher_revision v
        on v.org_id = r.org_id and v.watcher_id = r.watcher_id and v.version = r.watcher_version
    where v.extraction_schema is not null
  `.execute(db);
  return new Map(rows.map(({ runId, schema }) => [runId, schema]));
}

export type Acceptance = AttemptName & {
  /**
   * Milliseconds since the assignment was written to the stream, and since the device's accept, by
   * the replica's monotonic clock.
   */
  pushedAgoMs: number;
  acceptedAgoMs: number;
};

/**
 * Marks attempts as running. Returns for each, in order, whether the attempt is the device's:
 * `gone` means withdrawn, fenced or settled meanwhile. A second accept has no effect.
 */
export async function accept(db: Db, acceptances: readonly Acceptance[]): Promise<("running" | "gone")[]> {
  if (acceptances.length === 0) return [];
  const input = unnest("i", acceptances, {
    org_id: ["text", (a) => a.orgId],
    device_id: ["uuid", (a) => a.deviceId],
    run_id: ["uuid", (a) => a.workId],
    token: ["uuid", (a) => a.attemptToken],
    pushed_ago_ms: ["int", (a) => Math.max(0, Math.round(a.pushedAgoMs))],
    accepted_ago_ms: ["int", (a) => Math.max(0, Math.round(a.acceptedAgoMs))],
  });
  const { rows } = await sql<{ isMine: boolean }>`
    with ${relaxed}, input as materialized (select i.* from relaxed cross join ${input}),
    mine as materialized (
      select r.*
      from (select distinct org_id, run_id, device_id, token from input order by org_id, run_id) i
        cross join lateral (
          select org_id, id, device_id, attempt_token from run
          where org_id = i.org_id and id = i.run_id and device_id = i.device_id and attempt_token = i.token
          for update
        ) r
    ),
    started as (
      update run r set status = 'running', started_at = coalesce(r.started_at,
          greatest(r.claimed_at, clock_timestamp() - i.accepted_ago_ms * interval '1 ms')),
        pushed_at = coalesce(r.pushed_at, clock_timestamp() - i.pushed_ago_ms * interval '1 ms')
      from mine m join input i on i.org_id = m.org_id and i.run_id = m.id
      where r.org_id = m.org_id and r.id = m.id and r.status = 'claimed'
      returning r.id
    )
    select m.id is not null as "isMine"
    from input i
      left join mine m on m.org_id = i.org_id and m.id = i.run_id and m.device_id = i.device_id
        and m.attempt_token = i.token
      left join (select count(*) from started) done on true
    order by i.ord
  `.execute(db);
  return rows.map((row) => (row.isMine ? "running" : "gone"));
}

/** Records heartbeats of attempts. Rows that another transaction is settling are skipped. */
export async function beat(db: Db, attempts: readonly AttemptName[]): Promise<void> {
  if (attempts.length === 0) return;
  const input = unnest("i", attempts, {
    org_id: ["text", (a) => a.orgId],
    run_id: ["uuid", (a) => a.workId],
    token: ["uuid", (a) => a.attemptToken],
  });
  await sql`
    with ${relaxed}, beating as materialized (
      select r.*
      from relaxed cross join ${input}
        cross join lateral (
          select org_id, id from run where org_id = i.org_id and id = i.run_id and attempt_token = i.token
          for update skip locked
        ) r
    )
    update run r set last_beat_at = now() from beating b where r.org_id = b.org_id and r.id = b.id
  `.execute(db);
}

/**
 * Moves attempts to a new session and marks them as running, whether or not the old session's
 * accept arrived.
 */
export async function adopt(tx: Db, attempts: readonly Adopted[]): Promise<void> {
  if (attempts.length === 0) return;
  await sql`
    ${ofAnySize} update run r set status = 'running', claimed_epoch = i.epoch, claimed_session = i.session_id,
      started_at = coalesce(r.started_at, now()), last_beat_at = now()
    from ${unnest("i", attempts, adoptedColumns)}
    where r.org_id = i.org_id and r.id = i.work_id and r.device_id = i.device_id and r.status <> 'pending'
  `.execute(tx);
}

export type LostAttempt = {
  /** The time by which it is lost. */
  now: Date;
  orgId: string;
  runId: string;
  deviceId: string | null;
  attemptToken: string;
  rule: "cancelled" | "stream_broken" | "never_accepted" | "not_listed" | "silent" | "never_beat" | "overdue";
  status: "claimed" | "running";
  cancelReason: string | null;
  lastBeatAt: Date | null;
  silentMs: number;
};

export type ReapRules = {
  /** Milliseconds of silence after which the attempts of a device with a broken stream are lost. */
  ttlMs: number;
  /**
   * Milliseconds of silence after which an attempt is lost, in spite of its device's heartbeats: an
   * attempt once listed by a heartbeat, or never accepted.
   */
  silentAttemptMs: number;
  /** Milliseconds after which an attempt without any heartbeat is lost. */
  neverBeatMs: number;
  /** Milliseconds beyond a run's own timeout that its device may still report. */
  runTimeoutGraceMs: number;
};

/**
 * Share of the TTL that separates one missed heartbeat from two: the interval is a third of the
 * TTL, or half of the TTL for a large fleet.
 */
const unlistedShare = 0.6;

/**
 * Milliseconds below which no attempt is lost: each rule wants one of the attempt's own moments to
 * be older. So a crowd of new attempts is passed over by its own rows alone.
 */
const youngestMs = ({ ttlMs, silentAttemptMs, neverBeatMs, runTimeoutGraceMs }: ReapRules) =>
  Math.min(unlistedShare * ttlMs, silentAttemptMs, neverBeatMs, runTimeoutGraceMs);

/** Active attempts with the rule that takes each for lost; null: none does. */
function suspects(rules: ReapRules) {
  const ms = (value: number) => sql`${value} * interval '1 ms'`;
  return sql`
    select r.org_id, r.id, r.attempt_token, r.last_beat_at, r.status,
      greatest(p.last_beat_at, p.connected_at, r.last_beat_at, r.claimed_at) as heard_at,
      case
        when r.cancel_requested_at < now() - ${ms(rules.ttlMs)} then 'cancelled'
        when (p.epoch is null or p.disconnected_at is not null or v.last_beat_at is null
            or v.last_beat_at < now() - ${ms(rules.ttlMs)})
          and greatest(p.last_beat_at, p.connected_at, r.last_beat_at, r.claimed_at) < now() - ${ms(rules.ttlMs)}
          then 'stream_broken'
        -- The answer to the claim was lost, or the session: no other part asks whether the device accepted.
        when r.status = 'claimed' and r.last_beat_at is null
          and greatest(r.claimed_at, r.due_at) < now() - ${ms(rules.silentAttemptMs)}
          then 'never_accepted'
        -- The device is online, and two of its heartbeats did not list the attempt. The attempt's session finds that by
        -- itself; this rule finds attempts that no session remembers, as after a failover that undid an end.
        when r.status = 'running' and p.disconnected_at is null
          and p.last_beat_at > greatest(r.last_beat_at, r.started_at, r.claimed_at) + ${ms(unlistedShare * rules.ttlMs)}
          then 'not_listed'
        when r.last_beat_at < now() - ${ms(rules.silentAttemptMs)} then 'silent'
        when r.last_beat_at is null and greatest(r.claimed_at, r.due_at) < now() - ${ms(rules.neverBeatMs)} then 'never_beat'
        -- Without the first condition PostgreSQL looks for questions of attempts that have not started, too.
        when r.started_at is not null
          and r.started_at + r.timeout_ms * interval '1 ms' < now() - ${ms(rules.runTimeoutGraceMs)}
          and r.started_at + r.timeout_ms * interval '1 ms' < now() - ${ms(rules.runTimeoutGraceMs)} - (${timeAsked("r")})
          then 'overdue'
      end as rule
    from run r
      left join presence p on p.org_id = r.org_id and p.device_id = r.device_id
      left join replica v on v.id = p.replica_id
    where r.status <> 'pending'
      and coalesce(least(r.claimed_at, r.started_at, r.last_beat_at, r.cancel_requested_at), '-infinity')
        < now() - ${ms(youngestMs(rules))}`;
}

/** Whether there may be lost attempts. */
export function lookLost(rules: ReapRules): Look<boolean> {
  return {
    expression: sql`exists (select from (${suspects(rules)}) s where s.rule is not null)`,
    read: Boolean,
  };
}

/**
 * Locks up to `limit` lost attempts, by the database's clock (R7), with the rule that applies to
 * each. Rows locked by another replica are skipped, so any number of replicas may reap at once.
 */
export async function lockLost(tx: Db, rules: ReapRules, limit: number): Promise<LostAttempt[]> {
  const { rows } = await sql<LostAttempt>`
    with suspect as materialized (
      ${suspects(rules)}
    )
    select r.org_id as "orgId", r.id as "runId", r.device_id as "deviceId", r.attempt_token as "attemptToken", s.rule,
      r.status, r.cancel_reason as "cancelReason", r.last_beat_at as "lastBeatAt",
      (extract(epoch from now() - s.heard_at) * 1000)::bigint as "silentMs", now()
    -- Judged again on the row as it is locked: another replica may have reaped it, and the run may have begun anew.
    from run r join suspect s on s.org_id = r.org_id and s.id = r.id and s.attempt_token = r.attempt_token
      and s.last_beat_at is not distinct from r.last_beat_at and s.status = r.status
    where s.rule is not null
    order by r.org_id, r.id
    limit ${limit}
    for update of r skip locked
  `.execute(tx);
  return rows;
}

/** The given devices and workers with claimable runs. Reads only, and locks nothing. */
export async function findWaited(
  db: Db,
  seats: readonly { orgId: string; deviceId: string; isWorker: boolean }[],
): Promise<Set<string>> {
  if (seats.length === 0) return new Set();
  const input = unnest("i", seats, {
    org_id: ["text", (s) => s.orgId],
    device_id: ["uuid", (s) => s.deviceId],
    is_worker: ["boolean", (s) => s.isWorker],
  });
  const { rows } = await sql<{ deviceId: string }>`
    select i.device_id as "deviceId" from ${input}
    where case
      when i.is_worker then exists (
        select from run where org_id = i.org_id and device_id is null and ${isPending} and due_at <= now())
      else exists (
        select from run where org_id = i.org_id and device_id = i.device_id and ${isPending})
    end
  `.execute(db);
  return new Set(rows.map((row) => row.deviceId));
}

/** A claimed or running attempt. */
export type LiveAttempt = {
  orgId: string;
  runId: string;
  watcherId: string;
  deviceId: string;
  attemptToken: string;
};

/** The run's current attempt; undefined for none. */
export async function findLive(
  db: Db,
  { orgId, runId }: { orgId: string; runId: string },
): Promise<LiveAttempt | undefined> {
  const { rows } = await sql<LiveAttempt>`
    select org_id as "orgId", id as "runId", watcher_id as "watcherId", device_id as "deviceId",
      attempt_token as "attemptToken"
    from run where org_id = ${orgId} and id = ${runId} and attempt_token is not null and device_id is not null
  `.execute(db);
  return rows[0];
}
