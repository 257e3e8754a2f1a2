/** Initial turns of a test, and the fleet workers that answer them. */
import { randomUUID } from "node:crypto";
import { sql } from "kysely";
import type { Reply } from "../../src/scheduler/endings/turn-endings.ts";
import type { Db } from "../../src/store/pg/database.ts";
import type { SessionName } from "../../src/store/work/service/presence.ts";
import { type ArmedTurn, arm, type NewTurn } from "../../src/store/work/turns/arming.ts";
import * as turnAttempts from "../../src/store/work/turns/turn-attempts.ts";
import * as turns from "../../src/store/work/turns/turns.ts";
import { openDevice, orgId, seedDevice, seedOrg } from "./rows.ts";

export const turnTimers: turnAttempts.TurnTimers = { ttlMs: 60_000, timeoutGraceMs: 5_000 };

export type Seated = SessionName;

/** A fleet worker with an open session. */
export async function seedWorker(
  db: Db,
  options: { orgId?: string; replicaId?: string } = {},
): Promise<Seated> {
  const worker = await seedDevice(db, options);
  await sql`
    update device set is_worker = true, owner_id = null, token_id = gen_random_uuid()
    where org_id = ${worker.orgId} and id = ${worker.deviceId}
  `.execute(db);
  const { epoch, sessionId } = await openDevice(db, worker, options);
  return { ...worker, epoch, sessionId };
}

/** A turn to be armed, by default in the conversation of the person "ada". */
export function newTurn(values: Partial<NewTurn> = {}): NewTurn {
  const org = values.orgId ?? orgId;
  return {
    ...{ orgId: org, agentId: "pinion-default", conversationId: `pinion-default_ada_${org}` },
    ...{ messageId: randomUUID(), runId: null, agentKind: "", input: "hello", isGated: true },
    ...{ timeoutMs: 600_000, startTimeoutMs: 600_000 },
    ...values,
  };
}

/** Arms a turn, by default in the conversation of the person "ada". */
export async function startTurn(
  db: Db,
  values: Partial<NewTurn> = {},
): Promise<ArmedTurn & { orgId: string }> {
  const org = await seedOrg(db, values.orgId ?? orgId);
  return { ...(await arm(db, newTurn({ ...values, orgId: org }))), orgId: org };
}

export const claimTurns = (db: Db, worker: Seated, slots = 1): Promise<turnAttempts.ClaimedTurn[]> =>
  turnAttempts.claim(db, [{ ...worker, slots, kinds: [] }], turnTimers);

export const attemptOf = (turn: turnAttempts.ClaimedTurn) => ({
  orgId: turn.orgId,
  deviceId: turn.deviceId,
  workId: turn.turnId,
  attemptToken: turn.attemptToken,
});

export const acceptTurn = (db: Db, turn: turnAttempts.ClaimedTurn) =>
  turnAttempts.accept(db, [{ ...attemptOf(turn), acceptedAgoMs: 0 }]);

/** Arms, claims and accepts a turn. */
export async function seedTurn(
  db: Db,
  worker: Seated,
  values: Partial<NewTurn> = {},
): Promise<turnAttempts.ClaimedTurn> {
  const { turnId } = await startTurn(db, { orgId: worker.orgId, ...values });
  const turn = (await claimTurns(db, worker)).find((claimed) => claimed.turnId === turnId);
  if (!turn) throw new Error("the turn was not claimed");
  await acceptTurn(db, turn);
  return turn;
}

export function replyOf(turn: turnAttempts.ClaimedTurn, reply: Partial<Reply> = {}): Reply {
  return {
    orgId: turn.orgId,
    turnId: turn.turnId,
    attemptToken: turn.attemptToken,
    holderId: turn.deviceId,
    status: "completed",
    reason: "",
    isRetryable: false,
    reply: "hi",
    exitCode: 0,
    durationMs: 5,
    ...reply,
  };
}

export async function findTurn(db: Db, turn: { orgId: string; turnId: string }): Promise<turns.TurnRow> {
  const row = await turns.find(db, turn);
  if (!row) throw new Error(`no turn ${turn.turnId}`);
  return row;
}

/** The snapshot of a conversation. */
export async function findSnapshot(
  db: Db,
  turn: { orgId: string; conversationId: string },
): Promise<{ version: number; text: string | null; leaseTurnId: string | null }> {
  const { rows } = await sql<{ version: number; text: string | null; leaseTurnId: string | null }>`
    select snapshot_version as version, convert_from(snapshot, 'UTF8') as text, lease_turn_id as "leaseTurnId"
    from conversation where org_id = ${turn.orgId} and id = ${turn.conversationId}
  `.execute(db);
  return rows[0]!;
}

/**
 * Moves moments of a live turn, and the end of its conversation's lease, back by the given
 * milliseconds.
 */
export async function ageTurn(db: Db, turn: { turnId: string }, ages: Record<string, number>): Promise<void> {
  const sets = Object.entries(ages).map(
    ([column, ms]) => sql`${sql.ref(column)} = now() - ${ms} * interval '1 ms'`,
  );
  await sql`update turn set ${sql.join(sets)} where id = ${turn.turnId}`.execute(db);
  if (ages.deadline_at !== undefined) {
    await sql`
      update conversation set lease_expires_at = now() - ${ages.deadline_at} * interval '1 ms'
      where lease_turn_id = ${turn.turnId}
    `.execute(db);
  }
}

/** The terminal events of a turn, oldest first. */
export async function endsOf(db: Db, turn: { turnId: string }): Promise<string[]> {
  const { rows } = await sql<{ kind: string }>`
    select kind from event where kind like 'turn.%' and data->>'turn_id' = ${turn.turnId} order by seq
  `.execute(db);
  return rows.map((row) => row.kind);
}
