import { type RawBuilder, sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import type { Look } from "../../pg/looks.ts";
import { ofAnySize, unnest } from "../../pg/values/unnest.ts";
import { type DeviceName, deviceColumns, type SessionName, sessionColumns } from "../service/presence.ts";
import type { AttemptName } from "./settlements.ts";

/**
 * The active attempts of live runs and live turns: the statements that are the same for both
 * tables. Claims, accepts, heartbeats and ends differ, and are in attempts.ts, turn-attempts.ts,
 * settlements.ts and turn-settlements.ts.
 */

/** The kinds of work of an attempt; for a turn, the field `workId` has the turn's id. */
export type WorkKind = "run" | "turn";

/** The table of a kind's live rows, and the column with the device that has the attempt. */
const tables = {
  run: { live: sql.table("run"), holder: sql.ref("device_id") },
  turn: { live: sql.table("turn"), holder: sql.ref("holder_id") },
} as const satisfies Record<WorkKind, unknown>;

const nameColumns = {
  org_id: ["text", (a: AttemptName) => a.orgId],
  work_id: ["uuid", (a: AttemptName) => a.workId],
  token: ["uuid", (a: AttemptName) => a.attemptToken],
} as const satisfies Parameters<typeof unnest<AttemptName>>[2];

export type HeldByServer = {
  workId: string;
  attemptToken: string;
  attempt: number;
  status: "claimed" | "running";
  cancelReason: string | null;
  isCancelRequested: boolean;
};

export type HeldOnDevice = HeldByServer & DeviceName & { kind: WorkKind };

/**
 * The active attempts on devices or workers, locked: all runs before all turns, each in the order
 * of their ids.
 */
export async function lockActive(tx: Db, devices: readonly DeviceName[]): Promise<HeldOnDevice[]> {
  const locked = (kind: WorkKind) => sql`
    select ${sql.lit(kind)} as kind, i.org_id, i.device_id, w.id, w.attempt_token, w.attempt, w.status,
      w.cancel_reason, w.cancel_requested_at
    from input i join ${tables[kind].live} w on w.org_id = i.org_id and w.${tables[kind].holder} = i.device_id
    where w.status <> 'pending'
    order by w.org_id, w.id
    for update of w`;
  const { rows } = await sql<HeldOnDevice>`
    ${ofAnySize} with input as materialized (select i.org_id, i.device_id from ${unnest("i", devices, deviceColumns)}),
    run_locked as materialized (${locked("run")}), turn_locked as materialized (${locked("turn")})
    select kind, org_id as "orgId", device_id as "deviceId", id as "workId", attempt_token as "attemptToken", attempt,
      status, cancel_reason as "cancelReason", cancel_requested_at is not null as "isCancelRequested"
    from (select * from run_locked union all select * from turn_locked) as active
  `.execute(tx);
  return rows;
}

/** The given attempts that are no longer active: ended, and the notification was lost. */
export async function findGone(
  db: Db,
  kind: WorkKind,
  names: readonly AttemptName[],
): Promise<AttemptName[]> {
  if (names.length === 0) return [];
  const { rows } = await sql<{ ord: number }>`
    select i.ord from ${unnest("i", names, nameColumns)}
    where not exists (
      select from ${tables[kind].live} w where w.org_id = i.org_id and w.id = i.work_id and w.attempt_token = i.token)
  `.execute(db);
  return rows.flatMap(({ ord }) => names.slice(ord - 1, ord));
}

type OfKind = { kind: WorkKind };

/**
 * Unaccepted attempts that the sessions claimed at least `ageMs` milliseconds ago: a session
 * without such an attempt never received the answer to its claim.
 */
export async function listClaimed(
  db: Db,
  sessions: readonly SessionName[],
  ageMs: number,
): Promise<(AttemptName & OfKind)[]> {
  if (sessions.length === 0) return [];
  const claimed = (kind: WorkKind) => sql`
    select ${sql.lit(kind)} as kind, w.org_id, w.${tables[kind].holder} as device_id, w.id, w.attempt_token
    from input i join ${tables[kind].live} w on w.org_id = i.org_id and w.${tables[kind].holder} = i.device_id
      and w.claimed_epoch = i.epoch and w.claimed_session = i.session_id
    where w.status = 'claimed' and w.claimed_at < now() - ${ageMs} * interval '1 ms'`;
  const { rows } = await sql<AttemptName & OfKind>`
    with input as materialized (select * from ${unnest("i", sessions, sessionColumns)})
    select kind, org_id as "orgId", device_id as "deviceId", id as "workId", attempt_token as "attemptToken"
    from (${claimed("run")} union all ${claimed("turn")}) as claimed
  `.execute(db);
  return rows;
}

export type Waiting = { isCancelling: boolean; isClaimed: boolean; isWaiting: Record<WorkKind, boolean> };

/**
 * Whether there is work for sessions to look for, anywhere: attempts with a requested cancel,
 * attempts claimed at least `ageMs` milliseconds ago and not accepted, and work that may be
 * claimed.
 */
export function lookWaiting(ageMs: number): Look<Waiting> {
  const anyOf = (kind: WorkKind, condition: RawBuilder<unknown>) =>
    sql`exists (select from ${tables[kind].live} where ${condition})`;
  const any = (condition: RawBuilder<unknown>) =>
    sql`${anyOf("run", condition)} or ${anyOf("turn", condition)}`;
  const pending = sql`status = 'pending' and (not_before is null or not_before <= now())`;
  return {
    expression: sql`jsonb_build_object(
      'isCancelling', ${any(sql`cancel_requested_at is not null and status <> 'pending'`)},
      'isClaimed', ${any(sql`status = 'claimed' and claimed_at < now() - ${ageMs} * interval '1 ms'`)},
      'isWaiting', jsonb_build_object('run', ${anyOf("run", pending)}, 'turn', ${anyOf("turn", pending)}))`,
    read: (value) => value as Waiting,
  };
}

/**
 * Attempts with a requested cancel, to tell their devices (again). At most `limit` of each kind.
 */
export async function listCancelling(
  db: Db,
  limit: number,
): Promise<(AttemptName & OfKind & { reason: string })[]> {
  const cancelling = (kind: WorkKind) => sql`
    (select ${sql.lit(kind)} as kind, org_id, ${tables[kind].holder} as device_id, id, attempt_token, cancel_reason
    from ${tables[kind].live}
    where cancel_requested_at is not null and status <> 'pending' and ${tables[kind].holder} is not null
    limit ${limit})`;
  const { rows } = await sql<AttemptName & OfKind & { reason: string }>`
    select kind, org_id as "orgId", device_id as "deviceId", id as "workId", attempt_token as "attemptToken",
      coalesce(cancel_reason, 'cancelled') as reason
    from (${cancelling("run")} union all ${cancelling("turn")}) as cancelling
  `.execute(db);
  return rows;
}

/** Records a requested cancel of live work. The first request stays. */
export async function requestCancel(
  tx: Db,
  kind: WorkKind,
  request: { orgId: string; workIds: readonly string[]; reason: string },
): Promise<void> {
  if (request.workIds.length === 0) return;
  await sql`
    update ${tables[kind].live} set cancel_requested_at = now(), cancel_reason = ${request.reason}
    where org_id = ${request.orgId} and id = any(${request.workIds as string[]}::uuid[]) and cancel_requested_at is null
  `.execute(tx);
}

/** The kind of work of a device's active attempt; undefined for an attempt that is not active. */
export async function findKind(db: Db, attempt: AttemptName): Promise<WorkKind | undefined> {
  const { orgId, deviceId, workId, attemptToken } = attempt;
  const ofKind = (kind: WorkKind) => sql`
    select ${kind}::text as kind from ${tables[kind].live}
    where org_id = ${orgId} and id = ${workId} and attempt_token = ${attemptToken}
      and ${tables[kind].holder} = ${deviceId}`;
  const { rows } = await sql<{ kind: WorkKind }>`${ofKind("run")} union all ${ofKind("turn")}`.execute(db);
  return rows[0]?.kind;
}
