import { HeldAttemptState, HeldVerdict } from "#gen/pinion/v1/device_pb.js";
import type { Logger } from "../../log.ts";
import type { Ends } from "../../scheduler/doorbell.ts";
import * as devices from "../../store/people/devices.ts";
import type { Db } from "../../store/pg/database.ts";
import { type HeldByServer, lockActive } from "../../store/work/active.ts";
import * as presence from "../../store/work/presence.ts";
import type { FailurePolicy } from "../../store/work/settlements.ts";
import { runs } from "./reconcile-runs.ts";
import { turns } from "./reconcile-turns.ts";
import type { Held, OpeningSession, Reconciliation, Verdict } from "./reconciliation.ts";
import { type AttemptKind, attemptKinds } from "./work.ts";

export type Opening = Ends & {
  /** The device of the session; a fleet worker learns its id after the hello. */
  deviceId: string;
  epoch: number;
  sessionId: string;
  /** The replica with a stream of the device that the new session replaces. */
  replacedReplicaId: string | null;
  /** For each held attempt, in order. */
  verdicts: HeldVerdict[];
  /** Attempts that continue in the new session. */
  continuing: Continuing[];
};

/** An attempt that continues; `workId` is the id of the run or turn. */
export type Continuing = HeldByServer & { kind: AttemptKind };

const reconciliations: Readonly<Record<AttemptKind, Reconciliation>> = { run: runs, turn: turns };

/**
 * Opens a session: takes the device's next epoch, and reconciles the attempts that the device holds
 * with the attempts that the server has on record for the device, in one transaction.
 *
 *   active, and held      ──▶ continues in the new session
 *   active, and not held  ──▶ ends, or waits again
 *   held, and not active  ──▶ judged by its past
 */
export async function openSession(
  tx: Db,
  options: {
    orgId: string;
    deviceId: string;
    replicaId: string;
    held: readonly Held[];
    policy: FailurePolicy;
    ttlMs: number;
    log?: Logger;
  },
): Promise<Opening> {
  const { orgId, deviceId, held } = options;
  const { epoch, sessionId, replacedReplicaId, absentSince } = await presence.open(tx, options);
  if (absentSince) await devices.noteAbsence(tx, { ...options, since: absentSince });
  const session: OpeningSession = { ...options, epoch, sessionId };
  const active: readonly Continuing[] = await lockActive(tx, { orgId, deviceId });
  const past = await judgePast(tx, session, without(held, active));
  const heldTokens = new Set(held.map(({ attemptToken }) => attemptToken));
  const continuing = active.filter(({ attemptToken }) => heldTokens.has(attemptToken));
  const ends = await settleActive(tx, session, { continuing, missing: without(active, continuing) });
  return {
    ...{ deviceId, epoch, sessionId, replacedReplicaId, continuing, ...ends },
    verdicts: held.map((attempt) => judge(attempt, past.get(attempt.attemptToken))),
  };
}

/** The verdicts of held attempts that are not active, by token. */
async function judgePast(
  tx: Db,
  { orgId, deviceId }: OpeningSession,
  held: readonly Held[],
): Promise<ReadonlyMap<string, Verdict>> {
  const names = held.map(({ workId, attemptToken }) => ({ orgId, deviceId, workId, attemptToken }));
  const past = new Map<string, Verdict>(names.map(({ attemptToken }) => [attemptToken, "unknown"]));
  for (const kind of attemptKinds) {
    const verdicts = await reconciliations[kind].findVerdicts(tx, names);
    const superseded = held.filter((_, index) => verdicts[index] === "superseded");
    const arriving = superseded.filter(({ state }) => state === HeldAttemptState.FINISHED);
    await reconciliations[kind].awaitResults(tx, orgId, arriving);
    for (const [index, { attemptToken }] of held.entries()) {
      const verdict = verdicts[index];
      if (verdict && verdict !== "unknown") past.set(attemptToken, verdict);
    }
  }
  return past;
}

async function settleActive(
  tx: Db,
  session: OpeningSession,
  { continuing, missing }: Record<"continuing" | "missing", readonly Continuing[]>,
): Promise<Ends> {
  const all: Ends = { settled: [], turnsEnded: [], turnsWithdrawn: [] };
  const appends: (() => Promise<void>)[] = [];
  for (const kind of attemptKinds) {
    const isOfKind = (attempt: Continuing) => attempt.kind === kind;
    const workIds = continuing.filter(isOfKind).map(({ workId }) => workId);
    await reconciliations[kind].adopt(tx, session, workIds);
    const { ends, append } = await reconciliations[kind].endMissing(tx, session, missing.filter(isOfKind));
    Object.assign(all, ends);
    appends.push(append);
  }
  // Appending events takes the org's lock, so no other statement follows.
  for (const append of appends) await append();
  return all;
}

function without<Attempt extends { attemptToken: string }>(
  attempts: readonly Attempt[],
  others: readonly { attemptToken: string }[],
): Attempt[] {
  const tokens = new Set(others.map(({ attemptToken }) => attemptToken));
  return attempts.filter(({ attemptToken }) => !tokens.has(attemptToken));
}

/** The device's instruction for an attempt; `past` is set for an attempt that is not active. */
export function judge(held: Pick<Held, "state">, past: Verdict | undefined): HeldVerdict {
  if (past === "already_stored") return HeldVerdict.ALREADY_STORED;
  // A program's result is wanted in any case (R10): the completion's verdict tells the outcome.
  if (held.state === HeldAttemptState.FINISHED) return HeldVerdict.SEND_RESULT;
  return past ? HeldVerdict.ABORT : HeldVerdict.CONTINUE;
}
