import { sql } from "kysely";
import type { Db } from "./database.ts";
import type { AttemptName, PastVerdict } from "./settlements.ts";
import type { FinishedTurnStatus, LiveTurnStatus } from "./turns.ts";
import { unnest } from "./unnest.ts";

/**
 * How turns end. A live turn is a marker that one terminal reply is owed; {@link commitTerminalReply} is the one
 * statement that takes the marker away, and it writes the reply. Whoever deletes the row has answered; everybody else
 * finds no row, and has not.
 */

export type TerminalReply = {
  orgId: string;
  turnId: string;
  /** The attempt that ends with the turn; null for a turn that is pending. */
  attemptToken: string | null;
  /** The worker that reports; null if Pinion itself ends the turn. */
  holderId: string | null;
  /** The session that ends the turn; it ends only what is still its own. Absent for whoever is no session. */
  epoch?: number | undefined;
  status: FinishedTurnStatus;
  reason: string;
  isRetryable: boolean;
  reply?: string;
  isReplyTruncated?: boolean;
  /** What the next turn of the conversation is given; absent leaves the snapshot as it is. */
  nextSnapshot?: Uint8Array | undefined;
  exitCode?: number | undefined;
  signal?: string;
  durationMs?: number | undefined;
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
  /** Who had it. */
  holderId: string | null;
  status: FinishedTurnStatus;
  reason: string;
  isRetryable: boolean;
  /** Superseded: the reporter had lost the lease, so the turn ended, but not with its reply. */
  verdict: "stored" | "superseded";
  /** Who may claim the conversation's next turn: a device, null for the org's fleet workers; undefined: none waits. */
  next: { deviceId: string | null } | undefined;
};

/**
 * Ends turns, each with its one reply, in one statement; returns those whose marker was there. In that statement the
 * marker goes, the reply is written, the snapshot is stored if the turn still has its conversation's lease and the
 * version is the one that it read, and the lease is freed. A reporter that has lost the lease ends its turn as failed.
 * Turn ids must be distinct.
 */
export async function commitTerminalReply(db: Db, replies: readonly TerminalReply[]): Promise<EndedTurn[]> {
  if (replies.length === 0) return [];
  const input = unnest("i", replies, {
    org_id: ["text", (r) => r.orgId],
    turn_id: ["uuid", (r) => r.turnId],
    token: ["uuid", (r) => r.attemptToken],
    reporter: ["uuid", (r) => r.holderId],
    epoch: ["bigint", (r) => r.epoch ?? null],
    outcome: ["text", (r) => r.status],
    why: ["text", (r) => r.reason],
    may_retry: ["boolean", (r) => r.isRetryable],
    reply: ["text", (r) => r.reply ?? ""],
    is_truncated: ["boolean", (r) => r.isReplyTruncated ?? false],
    next_snapshot: ["text", (r) => r.nextSnapshot && Buffer.from(r.nextSnapshot).toString("base64")],
    exit_code: ["int", (r) => r.exitCode ?? null],
    signal: ["text", (r) => r.signal ?? ""],
    duration_ms: ["bigint", (r) => r.durationMs ?? null],
  });
  const { rows } = await sql<Omit<EndedTurn, "next"> & { hasNext: boolean; nextDeviceId: string | null }>`
    with held as materialized (
      select t.*, i.reporter, i.outcome, i.why, i.may_retry, i.reply, i.is_truncated, i.next_snapshot, i.exit_code,
        i.signal, i.duration_ms
      from turn t join ${input} on t.org_id = i.org_id and t.id = i.turn_id
        and t.attempt_token is not distinct from i.token
        and (i.reporter is null or t.holder_id = i.reporter)
        and (i.epoch is null or t.claimed_epoch = i.epoch)
      -- One order for all who lock several turns; their conversations come after them.
      order by t.org_id, t.id
      for update of t
    ),
    leased as materialized (
      select c.org_id, c.agent_id, c.id, h.id as turn_id, c.snapshot_version = h.snapshot_version as is_unchanged
      from conversation c join held h on h.is_gated and c.org_id = h.org_id and c.agent_id = h.agent_id
        and c.id = h.conversation_id and c.lease_turn_id = h.id and c.lease_epoch = h.lease_epoch
      order by c.org_id, c.agent_id, c.id
      for update of c
    ),
    judged as materialized (
      select h.*, l.turn_id is not null as is_leased, f.is_fenced,
        not f.is_fenced and h.is_gated and h.next_snapshot is not null and h.outcome = 'completed' as is_storing,
        case when f.is_fenced then 'failed' when a.is_cancelled then 'cancelled' else h.outcome end as end_status,
        case when f.is_fenced then 'its worker had lost the conversation''s lease when it answered'
          when a.is_cancelled then concat_ws('; ', nullif(h.cancel_reason, ''), nullif(h.why, ''))
          when h.outcome = 'cancelled' then coalesce(nullif(h.why, ''), h.cancel_reason, '')
          else h.why end as end_reason
      from held h left join leased l on l.turn_id = h.id
        cross join lateral (
          select h.is_gated and h.reporter is not null and not coalesce(l.is_unchanged, false) as is_fenced
        ) f
        -- What Pinion itself ends after a cancellation was asked for was cancelled; what a worker reports, counts.
        cross join lateral (
          select h.cancel_requested_at is not null and h.reporter is null and h.outcome in ('failed', 'timeout') as is_cancelled
        ) a
    ),
    gone as (
      delete from turn t using judged j where t.org_id = j.org_id and t.id = j.id
      returning t.id
    ),
    freed as (
      update conversation c set lease_turn_id = null, lease_device_id = null, lease_expires_at = null,
        last_turn_at = now(),
        snapshot = case when j.is_storing then decode(j.next_snapshot, 'base64') else c.snapshot end,
        snapshot_version = c.snapshot_version + j.is_storing::int
      from judged j
      where j.is_leased and c.org_id = j.org_id and c.agent_id = j.agent_id and c.id = j.conversation_id
      returning j.id as turn_id, c.snapshot_version
    ),
    ended as (
      insert into turn_finished (org_id, id, agent_id, agent_version, conversation_id, message_id, run_id, device_id,
        agent_kind, input, is_gated, timeout_ms, created_at, start_deadline_at, status, attempt, attempt_token, holder_id,
        claimed_at, started_at, last_beat_at, cancel_requested_at, reason, is_retryable, is_reported, reply,
        is_reply_truncated, exit_code, signal, duration_ms, snapshot_version)
      select j.org_id, j.id, j.agent_id, j.agent_version, j.conversation_id, j.message_id, j.run_id, j.device_id,
        j.agent_kind, j.input, j.is_gated, j.timeout_ms, j.created_at, j.start_deadline_at, j.end_status, j.attempt,
        j.attempt_token, j.holder_id, j.claimed_at, j.started_at, j.last_beat_at, j.cancel_requested_at, j.end_reason,
        j.end_status <> 'cancelled' and (j.is_fenced or j.may_retry), j.reporter is not null and not j.is_fenced,
        case when j.end_status = 'completed' then j.reply else '' end, j.end_status = 'completed' and j.is_truncated,
        j.exit_code, j.signal, j.duration_ms, case when j.is_storing then f.snapshot_version end
      from judged j left join freed f on f.turn_id = j.id
      returning id
    )
    select j.org_id as "orgId", j.id as "turnId", j.agent_id as "agentId", j.conversation_id as "conversationId",
      j.message_id as "messageId", j.run_id as "runId", j.attempt_token as "attemptToken", j.attempt,
      j.holder_id as "holderId", j.end_status as status, j.end_reason as reason,
      j.end_status <> 'cancelled' and (j.is_fenced or j.may_retry) as "isRetryable",
      case when j.is_fenced then 'superseded' else 'stored' end as verdict,
      n.id is not null as "hasNext", n.device_id as "nextDeviceId"
    from judged j
      left join gone g on g.id = j.id
      left join ended e on e.id = j.id
      left join lateral (
        select t.id, t.device_id from turn t
        where j.is_gated and t.org_id = j.org_id and t.agent_id = j.agent_id and t.conversation_id = j.conversation_id
          and t.is_gated and t.status = 'pending' and t.id <> j.id
        order by t.seq limit 1
      ) n on true
  `.execute(db);
  return rows.map(({ hasNext, nextDeviceId, ...ended }) => ({
    ...ended,
    next: hasNext ? { deviceId: nextDeviceId } : undefined,
  }));
}

export type Withdrawal = {
  orgId: string;
  turnId: string;
  attemptToken: string;
  /** The session that gives it back; it does so only while the claim is still its own. */
  epoch: number;
  reason: string;
  /** How long the turn is not offered again. */
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
 * Takes claims back that no worker took on: the turn is pending again and its lease is free. One whose end was asked for is
 * left to the caller to end, locked. One that was accepted, or that a newer session has adopted, is left as it is. Turn
 * ids must be distinct.
 */
export async function withdraw(
  db: Db,
  withdrawals: readonly Withdrawal[],
): Promise<{ withdrawn: WithdrawnTurn[]; unwanted: { turnId: string }[] }> {
  if (withdrawals.length === 0) return { withdrawn: [], unwanted: [] };
  const input = unnest("i", withdrawals, {
    org_id: ["text", (w) => w.orgId],
    turn_id: ["uuid", (w) => w.turnId],
    token: ["uuid", (w) => w.attemptToken],
    epoch: ["bigint", (w) => w.epoch],
    why: ["text", (w) => w.reason],
    delay_ms: ["bigint", (w) => w.delayMs],
  });
  const { rows } = await sql<Omit<WithdrawnTurn, "notBefore"> & { notBefore: Date | null }>`
    with held as materialized (
      select t.org_id, t.id, t.agent_id, t.conversation_id, t.lease_epoch, t.attempt_token, t.holder_id, t.device_id,
        t.cancel_requested_at is null as is_wanted, i.why, i.delay_ms
      from turn t join ${input} on t.org_id = i.org_id and t.id = i.turn_id and t.attempt_token = i.token
        and t.claimed_epoch = i.epoch and t.status = 'claimed'
      order by t.org_id, t.id
      for update of t
    ),
    leased as materialized (
      select c.org_id, c.agent_id, c.id, h.is_wanted
      from conversation c join held h on c.org_id = h.org_id and c.agent_id = h.agent_id and c.id = h.conversation_id
        and c.lease_turn_id = h.id and c.lease_epoch = h.lease_epoch
      order by c.org_id, c.agent_id, c.id
      for update of c
    ),
    freed as (
      update conversation c set lease_turn_id = null, lease_device_id = null, lease_expires_at = null
      from leased l where l.is_wanted and c.org_id = l.org_id and c.agent_id = l.agent_id and c.id = l.id
    ),
    returned as (
      update turn t set status = 'pending', attempt_token = null, holder_id = null, claimed_epoch = null, claimed_at = null,
        started_at = null, last_beat_at = null, deadline_at = null, expires_at = null, lease_epoch = null,
        snapshot_version = null, attempt = greatest(t.attempt - 1, 0), reason = h.why,
        not_before = now() + h.delay_ms * interval '1 ms'
      from held h where h.is_wanted and t.org_id = h.org_id and t.id = h.id
      returning t.id, t.not_before
    )
    select h.org_id as "orgId", h.id as "turnId", h.attempt_token as "attemptToken", h.holder_id as "holderId",
      h.device_id as "deviceId", r.not_before as "notBefore"
    from held h left join returned r on r.id = h.id
  `.execute(db);
  return {
    withdrawn: rows.flatMap(({ notBefore, ...turn }) => (notBefore ? [{ ...turn, notBefore }] : [])),
    unwanted: rows.filter((turn) => !turn.notBefore),
  };
}

/** A live turn that is to be ended, locked. */
export type OverdueTurn = {
  orgId: string;
  turnId: string;
  attemptToken: string | null;
  status: LiveTurnStatus;
  rule: "not_started" | "expired" | "cancelled" | "silent";
  lastBeatAt: Date | null;
};

/**
 * Locks up to `limit` turns whose deadline has passed, by the database's clock (R7), and says by which rule. Only live
 * turns are looked at, however many have ended. Rows that another replica holds are passed over. `isQuiet` leaves out
 * the rules about silence: after the database was away, everybody seems to have been silent.
 */
export async function lockOverdue(
  tx: Db,
  options: { ttlMs: number; isQuiet: boolean; limit: number },
): Promise<OverdueTurn[]> {
  const { rows } = await sql<OverdueTurn>`
    with overdue as materialized (
      select t.org_id, t.id, t.attempt_token, t.deadline_at, r.rule
      from turn t cross join lateral (
        select case
          when t.status = 'pending' then case when t.start_deadline_at < now() then 'not_started' end
          when t.expires_at < now() then 'expired'
          when ${options.isQuiet} then null
          when t.cancel_requested_at < now() - ${options.ttlMs} * interval '1 ms' then 'cancelled'
          when t.deadline_at < now() then 'silent'
        end as rule
      ) r
      where r.rule is not null
      limit ${options.limit}
    )
    select t.org_id as "orgId", t.id as "turnId", t.attempt_token as "attemptToken", t.status, o.rule,
      t.last_beat_at as "lastBeatAt"
    -- Judged again on the row as it is locked: it may have been claimed, or have beaten.
    from turn t join overdue o on o.org_id = t.org_id and o.id = t.id
      and t.attempt_token is not distinct from o.attempt_token and t.deadline_at is not distinct from o.deadline_at
    order by t.org_id, t.id
    for update of t skip locked
  `.execute(tx);
  return rows;
}

export type LockedTurn = {
  orgId: string;
  turnId: string;
  attemptToken: string;
  status: "claimed" | "running";
};

/** Locks the live turns that only this device may take. */
export async function lockOfDevice(
  tx: Db,
  device: { orgId: string; deviceId: string },
): Promise<{ orgId: string; turnId: string; attemptToken: string | null }[]> {
  const { rows } = await sql<{ orgId: string; turnId: string; attemptToken: string | null }>`
    select org_id as "orgId", id as "turnId", attempt_token as "attemptToken"
    from turn where org_id = ${device.orgId} and pool_id = ${device.deviceId}
    order by org_id, id
    for update
  `.execute(tx);
  return rows;
}

/** Locks the turns that these sessions hold: their streams broke. Those that a newer session has adopted are not theirs. */
export async function lockOfSessions(
  tx: Db,
  sessions: readonly { orgId: string; deviceId: string; epoch: number }[],
): Promise<LockedTurn[]> {
  if (sessions.length === 0) return [];
  const input = unnest("i", sessions, {
    org_id: ["text", (s) => s.orgId],
    device_id: ["uuid", (s) => s.deviceId],
    epoch: ["bigint", (s) => s.epoch],
  });
  const { rows } = await sql<LockedTurn>`
    select t.org_id as "orgId", t.id as "turnId", t.attempt_token as "attemptToken", t.status
    from turn t join ${input} on t.org_id = i.org_id and t.holder_id = i.device_id and t.claimed_epoch = i.epoch
    where t.status <> 'pending'
    order by t.org_id, t.id
    for update of t
  `.execute(tx);
  return rows;
}

/** What became of attempts at turns whose token is not current, in their order. */
export async function findVerdicts(db: Db, names: readonly AttemptName[]): Promise<PastVerdict["verdict"][]> {
  if (names.length === 0) return [];
  const input = unnest("i", names, {
    org_id: ["text", (a) => a.orgId],
    device_id: ["uuid", (a) => a.deviceId],
    turn_id: ["uuid", (a) => a.runId],
    token: ["uuid", (a) => a.attemptToken],
  });
  const { rows } = await sql<{ verdict: PastVerdict["verdict"] }>`
    select case
        when f.id is null then 'unknown'
        when f.attempt_token = i.token and f.is_reported then 'already_stored'
        else 'superseded'
      end as verdict
    from ${input}
      left join turn_finished f on f.org_id = i.org_id and f.id = i.turn_id and f.holder_id = i.device_id
    order by i.ord
  `.execute(db);
  return rows.map((row) => row.verdict);
}
