import { type RawBuilder, sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import { relaxed } from "../../pg/relaxed.ts";
import { ofAnySize, unnest } from "../../pg/values/unnest.ts";
import type { Acceptance } from "../attempts/attempts.ts";
import type { AttemptName } from "../attempts/settlements.ts";
import type { Want } from "../runs/run-claims.ts";
import { type Adopted, adoptedColumns } from "../service/presence.ts";

/**
 * Attempts of turns: a session claims a turn together with its conversation's lease, accepts it,
 * and sends heartbeats. In the fields of attempts, `workId` is the turn's id. turn-settlements.ts
 * ends attempts.
 */

/** The content of an assignment. */
export type ClaimedTurn = {
  orgId: string;
  turnId: string;
  /** The claiming device. */
  deviceId: string;
  attemptToken: string;
  attempt: number;
  agentKind: string;
  timeoutMs: number;
  agentId: string;
  agentVersion: number;
  agentName: string | null;
  agentSettings: unknown;
  conversationId: string;
  messageId: string;
  runId: string | null;
  input: string;
  /** The agent session to continue; empty: a new session. */
  agentSessionId: string;
  resumeRunId: string | null;
  isGated: boolean;
  snapshot: Buffer | null;
  snapshotVersion: number;
  deadlineAt: Date;
};

/** The pool of unpinned turns (migrations/…turns). */
const fleetPoolId = "00000000-0000-0000-0000-000000000000";

export type TurnTimers = {
  /** Milliseconds that a claim or heartbeat keeps a turn, and its lease, with its holder. */
  ttlMs: number;
  /**
   * Milliseconds beyond its timeout that a turn's holder may still report, because the holder's
   * report is better.
   */
  timeoutGraceMs: number;
};

/**
 * Claims, for each session, at most `slots` turns: fleet workers share the org's unpinned turns
 * that ask for no agent kind or for a kind of the worker; a device takes turns pinned to it. Only a
 * device's current session, by epoch and id, claims anything. Of a conversation only the oldest
 * live turn is claimed, and only with the lease; an expired lease does not block the next turn.
 * Devices must be distinct, and workers of one org offer the same kinds (see runClaims.partsOf).
 */
export async function claim(db: Db, wants: readonly Want[], timers: TurnTimers): Promise<ClaimedTurn[]> {
  if (wants.length === 0) return [];
  const { rows } = await sql<ClaimedTurn>`
    -- Rows are looked up by their keys, and each set carries the columns that later sets need: the planner takes each
    -- set for a few rows, and a join of two sets would be a loop within a loop.
    with seated as materialized (${openSessions(inputOf(wants))}),
    pool as materialized (${slotsOfPools}),
    picked as materialized (${oldestTurns}),
    ready as materialized (${turnsWithLease}),
    slot as (${slotsInTurn}),
    granted as materialized (${turnsWithSession(wants)}),
    held as (${leasesTaken(timers)}),
    claimed as (${turnsClaimed(timers)})
    ${assignments}
  `.execute(db);
  return rows;
}

/** The end of a claim or heartbeat that comes at this moment. */
const untilOf = (ttlMs: number) => sql`now() + ${ttlMs} * interval '1 ms'`;

const inputOf = (wants: readonly Want[]) =>
  unnest("w", wants, {
    org_id: ["text", (w) => w.orgId],
    device_id: ["uuid", (w) => w.deviceId],
    epoch: ["bigint", (w) => w.epoch],
    session_id: ["uuid", (w) => w.sessionId],
    slots: ["int", (w) => w.slots],
    kinds: ["jsonb", (w) => w.kinds && JSON.stringify([...w.kinds].sort())],
  });

/**
 * The wanting sessions that are still the current sessions of their devices, each with its pool of
 * turns.
 */
const openSessions = (input: RawBuilder<unknown>) => sql`
select p.org_id, p.device_id, p.epoch, p.session_id, w.slots, case when d.is_worker then w.kinds end as kinds,
  case when d.is_worker then ${fleetPoolId}::uuid else d.id end as pool_id
from ${input}
  cross join lateral (
    select org_id, device_id, epoch, session_id from presence
    where org_id = w.org_id and device_id = w.device_id and epoch = w.epoch and session_id = w.session_id
      and disconnected_at is null
    -- Heartbeats pass this lock. A newer hello does not: either the hello waits for this commit, or this claim skips the session.
    for key share skip locked
  ) p
  cross join lateral (select id, is_worker from device where org_id = p.org_id and id = p.device_id) d`;

/**
 * The free slots of each pool: all sessions that share a pool claim together, because rows locked
 * by a first look would be free to a second look of the same transaction.
 */
const slotsOfPools = sql`
select org_id, pool_id, kinds, sum(slots)::int as slots from seated group by org_id, pool_id, kinds`;

/** A turn behind an earlier live turn of its conversation. */
const isBehind = sql`(t.is_gated and exists (
        select from turn e
        where e.org_id = t.org_id and e.agent_id = t.agent_id and e.conversation_id = t.conversation_id
          and e.seq < t.seq and e.is_gated and (e.status = 'pending' or e.deadline_at > now())))`;

/** For each pool its oldest waiting turns, locked; of a conversation only the oldest live turn. */
const oldestTurns = sql`
select t.* from pool q
  cross join lateral (
    select t.org_id, t.id, t.seq, t.pool_id, t.agent_id, t.conversation_id, t.is_gated from turn t
    where t.org_id = q.org_id and t.pool_id = q.pool_id and t.status = 'pending'
      and (t.not_before is null or t.not_before <= now()) and t.start_deadline_at > now()
      and (q.kinds is null or t.agent_kind = '' or q.kinds ? t.agent_kind)
      and not ${isBehind}
    order by t.seq limit q.slots
    for update of t skip locked
  ) t`;

/** The turns that may start: without a conversation gate, or with a lease that is free, locked. */
const turnsWithLease = sql`
select k.*, l.snapshot_version, l.snapshot,
  row_number() over (partition by k.org_id, k.pool_id order by k.seq) as place
from picked k
  left join lateral (
    select snapshot_version, snapshot from conversation
    where k.is_gated and org_id = k.org_id and agent_id = k.agent_id and id = k.conversation_id
      and (lease_turn_id is null or lease_expires_at < now())
    for update skip locked
  ) l on true
where not k.is_gated or l.snapshot_version is not null`;

/** The slots of the sessions, in turn. */
const slotsInTurn = sql`
-- Round robin: the first slots of all sessions come before the second slots.
select s.org_id, s.pool_id, s.device_id, s.epoch, s.session_id,
  row_number() over (partition by s.org_id, s.pool_id order by n, s.device_id) as place
from seated s cross join lateral generate_series(1, s.slots) n`;

/** Each turn with the session that gets it, and the epoch of its lease. */
const turnsWithSession = (wants: readonly Want[]) => sql`
select r.*, s.device_id, s.epoch, s.session_id, case when r.is_gated then nextval('conversation_epoch') end as lease_epoch
from ready r join slot s on s.org_id = r.org_id and s.pool_id = r.pool_id and s.place = r.place
-- No more rows exist; with the limit the planner looks the turns up and does not read all live turns.
limit ${wants.reduce((sum, want) => sum + want.slots, 0)}`;

/** The leases of the claimed turns, written. */
const leasesTaken = (timers: TurnTimers) => sql`
update conversation c set lease_epoch = g.lease_epoch, lease_turn_id = g.id, lease_device_id = g.device_id,
  lease_expires_at = ${untilOf(timers.ttlMs)}
from granted g
where g.is_gated and c.org_id = g.org_id and c.agent_id = g.agent_id and c.id = g.conversation_id`;

/** The claimed turns, written. */
const turnsClaimed = (timers: TurnTimers) => sql`
update turn t set status = 'claimed', attempt = t.attempt + 1, attempt_token = gen_random_uuid(),
  holder_id = g.device_id, claimed_epoch = g.epoch, claimed_session = g.session_id, claimed_at = now(), deadline_at = ${untilOf(timers.ttlMs)},
  expires_at = now() + (t.timeout_ms + ${timers.timeoutGraceMs}) * interval '1 ms',
  lease_epoch = g.lease_epoch, snapshot_version = g.snapshot_version
from granted g where t.org_id = g.org_id and t.id = g.id
returning t.*, g.snapshot`;

/** The contents of the assignments, oldest turn first. */
const assignments = sql`
  select c.org_id as "orgId", c.id as "turnId", c.holder_id as "deviceId", c.attempt_token as "attemptToken", c.attempt,
    c.agent_kind as "agentKind", c.timeout_ms as "timeoutMs", c.agent_id as "agentId",
    c.agent_version as "agentVersion", r.name as "agentName", r.settings as "agentSettings",
    c.conversation_id as "conversationId", c.message_id as "messageId", c.run_id as "runId", c.input,
    c.agent_session_id as "agentSessionId", c.resume_run_id as "resumeRunId",
    c.is_gated as "isGated", c.snapshot, coalesce(c.snapshot_version, 0) as "snapshotVersion",
    c.deadline_at as "deadlineAt"
  from claimed c
    left join agent_revision r on r.org_id = c.org_id and r.agent_id = c.agent_id and r.version = c.agent_version
  order by c.seq`;

/** The given devices and workers with waiting turns. Reads only, and locks nothing. */
export async function findWaited(
  db: Db,
  seats: readonly { orgId: string; deviceId: string; isWorker: boolean }[],
): Promise<Set<string>> {
  if (seats.length === 0) return new Set();
  const input = unnest("i", seats, {
    org_id: ["text", (s) => s.orgId],
    device_id: ["uuid", (s) => s.deviceId],
    pool_id: ["uuid", (s) => (s.isWorker ? fleetPoolId : s.deviceId)],
  });
  const { rows } = await sql<{ deviceId: string }>`
    select i.device_id as "deviceId" from ${input}
    where exists (
      select from turn t where t.org_id = i.org_id and t.pool_id = i.pool_id and t.status = 'pending'
        and (t.not_before is null or t.not_before <= now()) and not ${isBehind})
  `.execute(db);
  return new Set(rows.map((row) => row.deviceId));
}

const nameColumns = {
  org_id: ["text", (a: AttemptName) => a.orgId],
  device_id: ["uuid", (a: AttemptName) => a.deviceId],
  turn_id: ["uuid", (a: AttemptName) => a.workId],
  token: ["uuid", (a: AttemptName) => a.attemptToken],
} as const satisfies Parameters<typeof unnest<AttemptName>>[2];

/**
 * Marks turns as running. Returns for each, in order, whether the turn is the holder's: `gone`
 * means withdrawn or ended meanwhile. A second accept has no effect.
 */
export async function accept(
  db: Db,
  acceptances: readonly (AttemptName & Pick<Acceptance, "acceptedAgoMs">)[],
): Promise<("running" | "gone")[]> {
  if (acceptances.length === 0) return [];
  const input = unnest("i", acceptances, {
    ...nameColumns,
    accepted_ago_ms: ["int", (a) => Math.max(0, Math.round(a.acceptedAgoMs))],
  });
  const { rows } = await sql<{ isMine: boolean }>`${ofAnySize}
    with ${relaxed}, input as materialized (select i.* from relaxed cross join ${input}),
    mine as materialized (
      select t.*, i.accepted_ago_ms
      from (
        select org_id, turn_id, device_id, token, min(accepted_ago_ms) as accepted_ago_ms
        from input group by org_id, turn_id, device_id, token order by org_id, turn_id
      ) i
        cross join lateral (
          select org_id, id, holder_id, attempt_token from turn
          where org_id = i.org_id and id = i.turn_id and attempt_token = i.token
          for update
        ) t
      -- Asked outside of the lookup: with the holder inside, the planner would read all turns of the holder by its index.
      where t.holder_id = i.device_id
    ),
    started as (
      update turn t set status = 'running',
        started_at = coalesce(t.started_at, greatest(t.claimed_at, clock_timestamp() - m.accepted_ago_ms * interval '1 ms'))
      from mine m where t.org_id = m.org_id and t.id = m.id and t.status = 'claimed'
      returning t.id
    )
    select (i.org_id, i.turn_id, i.device_id, i.token) in (select org_id, id, holder_id, attempt_token from mine) as "isMine"
    from input i
      left join (select count(*) from started) done on true
    order by i.ord
  `.execute(db);
  return rows.map((row) => (row.isMine ? "running" : "gone"));
}

/**
 * Records heartbeats of turns: each extends the turn's deadline and its lease. A turn whose lease
 * has passed to a later turn is not extended. Rows that another transaction is settling are
 * skipped.
 */
export async function beat(db: Db, names: readonly AttemptName[], ttlMs: number): Promise<void> {
  if (names.length === 0) return;
  const until = untilOf(ttlMs);
  await sql`
    with beating as materialized (
      select t.*, v.is_leased, l.is_locked
      from ${unnest("i", names, nameColumns)}
        cross join lateral (
          select org_id, id, is_gated, agent_id, conversation_id, lease_epoch from turn
          where org_id = i.org_id and id = i.turn_id and attempt_token = i.token
          for update skip locked
        ) t
        left join lateral (
          select lease_turn_id = t.id and lease_epoch = t.lease_epoch as is_leased from conversation
          where t.is_gated and org_id = t.org_id and agent_id = t.agent_id and id = t.conversation_id
        ) v on true
        -- A transaction that has the conversation locked, perhaps to start its next turn, is not waited for: the turn's
        -- deadline alone keeps the lease, too.
        left join lateral (
          select true as is_locked from conversation
          where v.is_leased and org_id = t.org_id and agent_id = t.agent_id and id = t.conversation_id
            and lease_turn_id = t.id and lease_epoch = t.lease_epoch
          for update skip locked
        ) l on true
    ),
    extended as (
      update conversation c set lease_expires_at = ${until}
      from beating b
      where b.is_locked and c.org_id = b.org_id and c.agent_id = b.agent_id and c.id = b.conversation_id
    )
    update turn t set last_beat_at = now(), deadline_at = ${until}
    from beating b where t.org_id = b.org_id and t.id = b.id and (not b.is_gated or b.is_leased)
  `.execute(db);
}

/** Moves turns to a new session; their lease stays under its epoch. */
export async function adopt(
  tx: Db,
  { ttlMs, attempts }: { ttlMs: number; attempts: readonly Adopted[] },
): Promise<void> {
  if (attempts.length === 0) return;
  const until = untilOf(ttlMs);
  await sql`
    with mine as (
      update turn t set status = 'running', claimed_epoch = i.epoch, claimed_session = i.session_id,
        started_at = coalesce(t.started_at, now()), last_beat_at = now(), deadline_at = ${until}
      from ${unnest("i", attempts, adoptedColumns)}
      where t.org_id = i.org_id and t.id = i.work_id and t.holder_id = i.device_id and t.status <> 'pending'
      returning t.org_id, t.id, t.agent_id, t.conversation_id, t.lease_epoch
    )
    update conversation c set lease_expires_at = ${until}
    from (select * from mine order by org_id, agent_id, conversation_id) m
    where c.org_id = m.org_id and c.agent_id = m.agent_id and c.id = m.conversation_id and c.lease_turn_id = m.id
      and c.lease_epoch = m.lease_epoch
  `.execute(tx);
}

/**
 * The worker of the token that holds a turn's attempt, or held the attempt at its end or at its
 * withdrawal; undefined if the attempt belongs to none of the token's workers.
 */
export async function findHolder(
  db: Db,
  attempt: { orgId: string; tokenId: string; workId: string; attemptToken: string },
): Promise<string | undefined> {
  const { rows } = await sql<{ deviceId: string }>`
    select d.id as "deviceId"
    from (
      select org_id, id, attempt_token, holder_id from turn
      union all
      select org_id, id, attempt_token, holder_id from turn_finished
      union all
      -- Claims that were withdrawn.
      select t.org_id, t.id, (entry->>'token')::uuid, (entry->>'holder_id')::uuid
      from (
        select org_id, id, past_attempts from turn union all select org_id, id, past_attempts from turn_finished
      ) t cross join lateral jsonb_array_elements(t.past_attempts) entry
    ) t join device d on d.org_id = t.org_id and d.id = t.holder_id
    where t.org_id = ${attempt.orgId} and t.id = ${attempt.workId} and t.attempt_token = ${attempt.attemptToken}
      and d.is_worker and d.token_id = ${attempt.tokenId}
  `.execute(db);
  return rows[0]?.deviceId;
}
