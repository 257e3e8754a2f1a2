import { type RawBuilder, sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import { ofAnySize, unnest } from "../../pg/values/unnest.ts";
import { endsAsCancelled, isOfSession, pastAttemptsWith } from "../attempts/attempt-rules.ts";
import type { PastVerdict } from "../attempts/completions.ts";
import { type AttemptName, outputTailCharacters } from "../attempts/settlements.ts";
import type { SessionKey } from "../service/presence.ts";
import type { FinishedTurnStatus } from "./turns.ts";

/**
 * The ends of turns. A live turn is a marker: one terminal reply is owed. {@link
 * commitTerminalReply} is the only statement that deletes the marker, and it writes the reply. The
 * first writer deletes the row and stores its reply; the second writer finds the marker deleted,
 * and its reply is not the turn's.
 *
 *   pending ──claim──▶ claimed ──accept──▶ running ──reply──▶ turn_finished
 *      ▲                  │                   └─lease lost──▶ turn_finished, as failed
 *      └────withdraw──────┘
 *   any live state ──end──▶ turn_finished, without a reply
 */

export type TerminalReply = {
  orgId: string;
  turnId: string;
  /** The attempt that ends with the turn; null for a pending turn. */
  attemptToken: string | null;
  /** The reporting worker; null if Pinion itself ends the turn. */
  holderId: string | null;
  /**
   * The ending session, which ends only its own turns. Undefined: the end comes from no session.
   */
  session?: SessionKey | undefined;
  status: FinishedTurnStatus;
  reason: string;
  isRetryable: boolean;
  reply?: string;
  isReplyTruncated?: boolean;
  /** The snapshot for the conversation's next turn; undefined leaves the stored snapshot. */
  nextSnapshot?: Uint8Array | undefined;
  /** The agent's own id of its session; empty or undefined: none is kept. */
  agentSessionId?: string | undefined;
  exitCode?: number | undefined;
  signal?: string;
  durationMs?: number | undefined;
  /**
   * Set when the accept may not be stored yet: the milliseconds since the accept, by the replica's
   * monotonic clock.
   */
  startedAgoMs?: number | undefined;
};

export type EndedTurn = {
  orgId: string;
  turnId: string;
  agentId: string;
  conversationId: string;
  messageId: string;
  runId: string | null;
  attemptToken: string | null;
  attempt: number;
  /** The last holder. */
  holderId: string | null;
  status: FinishedTurnStatus;
  reason: string;
  isRetryable: boolean;
  /**
   * Superseded: the reporter had lost the lease, so the turn ended, but without the reporter's
   * reply.
   */
  verdict: "stored" | "superseded";
  /**
   * The possible claimant of the conversation's next turn: a device, or null for the org's fleet
   * workers; undefined: no turn waits.
   */
  next: { deviceId: string | null } | undefined;
};

/**
 * Ends turns, each with its one reply, in one statement; returns the turns whose marker existed.
 * The statement deletes the marker, writes the reply, stores the snapshot if the turn still has its
 * conversation's lease and the stored version is the version the turn has read, and frees the
 * lease. A reporter that has lost the lease ends its turn as failed. Turn ids must be distinct.
 */
export async function commitTerminalReply(db: Db, replies: readonly TerminalReply[]): Promise<EndedTurn[]> {
  if (replies.length === 0) return [];
  const { rows } = await sql<
    Omit<EndedTurn, "next"> & { hasNext: boolean; nextDeviceId: string | null }
  >`${ofAnySize}
    -- "held" has all decisions about a turn; the other parts only write, each from "held" alone. (The planner takes
    -- "held" for a few rows; a join of two of these sets would be a loop within a loop.)
    with taken as materialized (${turnsTaken(inputOf(replies))}),
    held as materialized (${turnsToEnd}),
    gone as (${markersDeleted}),
    freed as (${leasesFreed}),
    ended as (${turnsFinished})
    ${endedTurnsWithNext}
  `.execute(db);
  return rows.map(({ hasNext, nextDeviceId, ...ended }) => ({
    ...ended,
    next: hasNext ? { deviceId: nextDeviceId } : undefined,
  }));
}

const inputOf = (replies: readonly TerminalReply[]) =>
  unnest("i", replies, {
    org_id: ["text", (r) => r.orgId],
    turn_id: ["uuid", (r) => r.turnId],
    token: ["uuid", (r) => r.attemptToken],
    reporter: ["uuid", (r) => r.holderId],
    epoch: ["bigint", (r) => r.session?.epoch ?? null],
    session_id: ["uuid", (r) => r.session?.sessionId ?? null],
    outcome: ["text", (r) => r.status],
    why: ["text", (r) => r.reason],
    may_retry: ["boolean", (r) => r.isRetryable],
    reply: ["text", (r) => r.reply ?? ""],
    is_truncated: ["boolean", (r) => r.isReplyTruncated ?? false],
    next_snapshot: ["text", (r) => r.nextSnapshot && Buffer.from(r.nextSnapshot).toString("base64")],
    agent_session: ["text", (r) => r.agentSessionId ?? ""],
    exit_code: ["int", (r) => r.exitCode ?? null],
    signal: ["text", (r) => r.signal ?? ""],
    duration_ms: ["bigint", (r) => r.durationMs ?? null],
    started_ago_ms: ["bigint", (r) => r.startedAgoMs ?? null],
  });

/** The turns under the attempts of their replies, locked, each with its reply. */
const turnsTaken = (input: RawBuilder<unknown>) => sql`
  select t.*, i.reporter, i.outcome, i.why, i.may_retry, i.reply, i.is_truncated, i.next_snapshot, i.agent_session,
    i.exit_code, i.signal, i.duration_ms, ${startedBefore} as was_started_at, ${endsAsCancelled("t")} as is_cancelled
  -- One order for all statements that lock several turns.
  from (select * from ${input} order by org_id, turn_id) i
    cross join lateral (
      select * from turn
      where org_id = i.org_id and id = i.turn_id and attempt_token is not distinct from i.token
        and (i.reporter is null or holder_id = i.reporter) and ${isOfSession}
      for update
    ) t`;

/** The start of the turn, which the reply may know before the row does. */
const startedBefore = sql`
  coalesce(t.started_at, case when i.started_ago_ms is not null
    then greatest(t.claimed_at, now() - i.started_ago_ms * interval '1 ms') end)`;

/** The lease of the turn's conversation, locked, if the turn still has the lease. */
const heldLease = sql`
  left join lateral (
    select snapshot_version as leased_version from conversation
    where t.is_gated and org_id = t.org_id and agent_id = t.agent_id and id = t.conversation_id
      and lease_turn_id = t.id and lease_epoch = t.lease_epoch
    for update
  ) l on true`;

/**
 * The turns to end, each with its reply, its lease and the decisions: `is_fenced` (the reporter has
 * lost the lease), `is_storing` (the snapshot is stored), and the status and reason of the end.
 */
const turnsToEnd = sql`
  select t.*, l.leased_version is not null as is_leased, f.is_fenced, s.is_storing, l.leased_version + 1 as next_version,
    e.end_status, e.end_status <> 'cancelled' and (f.is_fenced or t.may_retry) as is_retryable,
    case when f.is_fenced then 'its worker had lost the conversation''s lease when it answered'
      when t.is_cancelled then concat_ws('; ', nullif(t.cancel_reason, ''), nullif(t.why, ''))
      when t.outcome = 'cancelled' then coalesce(nullif(t.why, ''), t.cancel_reason, '')
      else t.why end as end_reason
  -- All turns are locked by now; their conversations follow, in one order for all statements that lock several.
  from (select * from taken order by org_id, agent_id, conversation_id) t
    ${heldLease}
    cross join lateral (
      select t.is_gated and t.reporter is not null and not coalesce(l.leased_version = t.snapshot_version, false) as is_fenced
    ) f
    cross join lateral (
      select case when f.is_fenced then 'failed' when t.is_cancelled then 'cancelled' else t.outcome end as end_status
    ) e
    cross join lateral (
      select coalesce(l.leased_version is not null and not f.is_fenced and t.next_snapshot is not null
        and t.outcome = 'completed', false) as is_storing
    ) s`;

/** The markers: rows of `turn`, deleted. */
const markersDeleted = sql`
  delete from turn t using held h where t.org_id = h.org_id and t.id = h.id`;

/** The leases of the ended turns, freed; the snapshot that a turn leaves is stored. */
const leasesFreed = sql`
  update conversation c set lease_turn_id = null, lease_device_id = null, lease_expires_at = null,
    last_turn_at = now(),
    snapshot = case when h.is_storing then decode(h.next_snapshot, 'base64') else c.snapshot end,
    snapshot_version = c.snapshot_version + h.is_storing::int
  from held h
  where h.is_leased and c.org_id = h.org_id and c.agent_id = h.agent_id and c.id = h.conversation_id`;

/** The ended turns with their replies, as rows of `turn_finished`. */
const turnsFinished = sql`
  insert into turn_finished (org_id, id, agent_id, agent_version, conversation_id, message_id, run_id, device_id,
    agent_kind, input, is_gated, timeout_ms, created_at, start_deadline_at, status, attempt, attempt_token, holder_id,
    claimed_at, started_at, last_beat_at, cancel_requested_at, reason, is_retryable, is_reported, reply,
    is_reply_truncated, exit_code, signal, duration_ms, snapshot_version, past_attempts, agent_session_id, output_tail,
    finished_at)
  select h.org_id, h.id, h.agent_id, h.agent_version, h.conversation_id, h.message_id, h.run_id, h.device_id,
    h.agent_kind, h.input, h.is_gated, h.timeout_ms, h.created_at, h.start_deadline_at, h.end_status, h.attempt,
    h.attempt_token, h.holder_id, h.claimed_at, h.was_started_at, h.last_beat_at, h.cancel_requested_at, h.end_reason,
    h.is_retryable, h.reporter is not null and not h.is_fenced,
    case when h.end_status = 'completed' then h.reply else '' end, h.end_status = 'completed' and h.is_truncated,
    h.exit_code, h.signal, h.duration_ms, case when h.is_storing then h.next_version end, h.past_attempts,
    h.agent_session,
    case when h.end_status <> 'completed' and not h.is_fenced then right(h.reply, ${outputTailCharacters}) else '' end,
    -- The claim or the accept may have been written while this transaction waited for it.
    greatest(now(), h.claimed_at, h.was_started_at)
  from held h`;

/** The ended turns for the caller, each with the next turn of its conversation. */
const endedTurnsWithNext = sql`
  select h.org_id as "orgId", h.id as "turnId", h.agent_id as "agentId", h.conversation_id as "conversationId",
    h.message_id as "messageId", h.run_id as "runId", h.attempt_token as "attemptToken", h.attempt,
    h.holder_id as "holderId", h.end_status as status, h.end_reason as reason, h.is_retryable as "isRetryable",
    case when h.is_fenced then 'superseded' else 'stored' end as verdict,
    n.id is not null as "hasNext", n.device_id as "nextDeviceId"
  from held h
    left join lateral (
      select t.id, t.device_id from turn t
      where h.is_gated and t.org_id = h.org_id and t.agent_id = h.agent_id and t.conversation_id = h.conversation_id
        and t.is_gated and t.status = 'pending' and t.id <> h.id
      order by t.seq limit 1
    ) n on true`;

export type Withdrawal = {
  orgId: string;
  turnId: string;
  attemptToken: string;
  /**
   * The session that gives the claim back, while the claim is its own. Undefined: the withdrawal
   * comes from no session.
   */
  session?: SessionKey;
  reason: string;
  /** Milliseconds until the turn is offered again. */
  delayMs: number;
};

export type WithdrawnTurn = {
  orgId: string;
  turnId: string;
  attemptToken: string;
  holderId: string;
  deviceId: string | null;
  notBefore: Date;
};

/**
 * Takes back claims that no worker accepted: the turn is pending again and its lease is free. A
 * turn with a requested cancel is left, locked, to the caller to end. An accepted turn, or a turn
 * adopted by a newer session, is left unchanged. Turn ids must be distinct.
 */
export async function withdraw(
  db: Db,
  withdrawals: readonly Withdrawal[],
): Promise<{ withdrawn: WithdrawnTurn[]; unwanted: { turnId: string }[] }> {
  if (withdrawals.length === 0) return { withdrawn: [], unwanted: [] };
  const input = inputOfWithdrawals(withdrawals);
  const { rows } = await sql<Omit<WithdrawnTurn, "notBefore"> & { notBefore: Date | null }>`
    with taken as materialized (
      select t.*, i.why, now() + i.delay_ms * interval '1 ms' as again_at
      from (select * from ${input} order by org_id, turn_id) i
        cross join lateral (
          select org_id, id, agent_id, conversation_id, is_gated, lease_epoch, attempt_token, holder_id, device_id,
            claimed_at, past_attempts, attempt, cancel_requested_at is null as is_wanted
          from turn
          where org_id = i.org_id and id = i.turn_id and attempt_token = i.token and status = 'claimed'
            and ${isOfSession}
          for update
        ) t
    ),
    held as materialized (
      select t.*, l.is_leased
      -- In the order of the statement above.
      from (select * from taken order by org_id, agent_id, conversation_id) t
        left join lateral (
          select true as is_leased from conversation
          where t.is_wanted and t.is_gated and org_id = t.org_id and agent_id = t.agent_id and id = t.conversation_id
            and lease_turn_id = t.id and lease_epoch = t.lease_epoch
          for update
        ) l on true
    ),
    freed as (
      update conversation c set lease_turn_id = null, lease_device_id = null, lease_expires_at = null
      from held h
      where h.is_leased and c.org_id = h.org_id and c.agent_id = h.agent_id and c.id = h.conversation_id
    ),
    returned as (
      update turn t set status = 'pending', attempt_token = null, holder_id = null, claimed_epoch = null, claimed_session = null, claimed_at = null,
        started_at = null, last_beat_at = null, deadline_at = null, expires_at = null, lease_epoch = null,
        snapshot_version = null, attempt = greatest(t.attempt - 1, 0), reason = h.why, not_before = h.again_at,
        -- The worker may have begun the turn nevertheless; past_attempts lets Pinion know its reply.
        past_attempts = ${pastAttemptsWith(
          "h",
          sql`'holder_id', h.holder_id, 'ended_at', greatest(now(), h.claimed_at),
          'reason', h.why`,
        )}
      from held h where h.is_wanted and t.org_id = h.org_id and t.id = h.id
    )
    select h.org_id as "orgId", h.id as "turnId", h.attempt_token as "attemptToken", h.holder_id as "holderId",
      h.device_id as "deviceId", case when h.is_wanted then h.again_at end as "notBefore"
    from held h
  `.execute(db);
  return {
    withdrawn: rows.flatMap(({ notBefore, ...turn }) => (notBefore ? [{ ...turn, notBefore }] : [])),
    unwanted: rows.filter((turn) => !turn.notBefore),
  };
}

const inputOfWithdrawals = (withdrawals: readonly Withdrawal[]) =>
  unnest("i", withdrawals, {
    org_id: ["text", (w) => w.orgId],
    turn_id: ["uuid", (w) => w.turnId],
    token: ["uuid", (w) => w.attemptToken],
    epoch: ["bigint", (w) => w.session?.epoch ?? null],
    session_id: ["uuid", (w) => w.session?.sessionId ?? null],
    why: ["text", (w) => w.reason],
    delay_ms: ["bigint", (w) => w.delayMs],
  });

/** The verdicts of attempts at turns whose token is not current, in their order. */
export async function findVerdicts(db: Db, names: readonly AttemptName[]): Promise<PastVerdict["verdict"][]> {
  if (names.length === 0) return [];
  const input = unnest("i", names, {
    org_id: ["text", (a) => a.orgId],
    device_id: ["uuid", (a) => a.deviceId],
    turn_id: ["uuid", (a) => a.workId],
    token: ["uuid", (a) => a.attemptToken],
  });
  const { rows } = await sql<{ verdict: PastVerdict["verdict"] }>`
    select case
        when f.attempt_token = i.token and f.holder_id = i.device_id and f.is_reported then 'already_stored'
        when f.attempt_token = i.token and f.holder_id = i.device_id then 'superseded'
        -- A claim that was withdrawn.
        when exists (select from jsonb_array_elements(coalesce(f.past_attempts, t.past_attempts)) entry
          where entry->>'token' = i.token::text and (entry->>'holder_id')::uuid = i.device_id) then 'superseded'
        else 'unknown'
      end as verdict
    from ${input}
      left join turn_finished f on f.org_id = i.org_id and f.id = i.turn_id
      left join turn t on t.org_id = i.org_id and t.id = i.turn_id
    order by i.ord
  `.execute(db);
  return rows.map((row) => row.verdict);
}
