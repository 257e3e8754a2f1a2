import { HeldAttemptState, HeldVerdict } from "#gen/pinion/v1/device_pb.js";
import type { Logger } from "../../log.ts";
import { settleEach } from "../../scheduler/settle.ts";
import { appendEnded } from "../../scheduler/turn-endings.ts";
import * as devices from "../../store/people/devices.ts";
import type { Db } from "../../store/pg/database.ts";
import * as attempts from "../../store/work/attempts.ts";
import * as lateResults from "../../store/work/late-results.ts";
import * as presence from "../../store/work/presence.ts";
import {
  type FailurePolicy,
  findVerdicts,
  type PastVerdict,
  type Settled,
  type Settlement,
} from "../../store/work/settlements.ts";
import type { EndedTurn, WithdrawnTurn } from "../../store/work/turn-settlements.ts";
import { openTurns } from "./reconcile-turns.ts";
import type { AttemptKind } from "./work.ts";

/**
 * Milliseconds that a run is not started again while a device holds its result: far more than a
 * device needs to send the result.
 */
const resultWaitMs = 30_000;

/** An attempt in a hello's list of held attempts. */
export type Held = { workId: string; attemptToken: string; state: HeldAttemptState };

export type Opening = {
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
  /** Attempts that the device no longer holds. */
  settled: Settled[];
  /** Turns that the worker no longer holds. */
  endedTurns: EndedTurn[];
  /** Turns that never reached the device, and wait again. */
  withdrawnTurns: WithdrawnTurn[];
};

/** An attempt that continues; `workId` is the id of the run or turn. */
export type Continuing = Omit<attempts.HeldByServer, "status"> & { kind: AttemptKind };

/**
 * Opens a session: takes the device's next epoch, and reconciles the attempts that the device holds
 * with the attempts that the server has on record for the device, in one transaction.
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
  const { orgId, deviceId } = options;
  const { epoch, sessionId, replacedReplicaId, lastThereAt } = await presence.open(tx, options);
  if (lastThereAt) await devices.noteAbsence(tx, { ...options, since: lastThereAt });
  const active = await attempts.lockActiveOfDevice(tx, { orgId, deviceId });
  const mayBeTurns = withoutTokens(options.held, active);
  const turns = await openTurns(tx, { ...options, epoch, sessionId, held: mayBeTurns });
  const strangers = withoutTokens(mayBeTurns, turns.continuing);
  const past = await findVerdicts(
    tx,
    strangers.map((held) => ({ orgId, deviceId, ...held })),
  );
  const pastOf = new Map(
    strangers.map(({ attemptToken }, index) => [
      attemptToken,
      turns.past.get(attemptToken) ?? past[index]!.verdict,
    ]),
  );

  const arriving = strangers.filter(
    ({ state }, index) => state === HeldAttemptState.FINISHED && past[index]!.verdict === "superseded",
  );
  await lateResults.awaitResults(tx, { orgId, attempts: arriving, waitMs: resultWaitMs });

  const heldTokens = new Set(options.held.map((held) => held.attemptToken));
  const continuing = active.filter((attempt) => heldTokens.has(attempt.attemptToken));
  await attempts.adopt(tx, {
    ...{ orgId, deviceId, epoch, sessionId },
    runIds: continuing.map((attempt) => attempt.workId),
  });
  const missing = active.filter((attempt) => !heldTokens.has(attempt.attemptToken));
  // An attempt that the database refuses to settle stays unchanged; the device's session opens all
  // the same (R9).
  const { settled } = await settleEach(
    tx,
    missing.map((attempt) => settlementOfMissing({ orgId, attempt })),
    options.policy,
    { log: options.log },
  );
  await appendEnded(tx, turns.ended);
  return {
    deviceId,
    epoch,
    sessionId,
    replacedReplicaId,
    verdicts: options.held.map((held) => judge(held, pastOf.get(held.attemptToken))),
    continuing: [
      ...continuing.map((attempt) => ({ ...attempt, kind: "run" as const })),
      ...turns.continuing.map(({ turnId, ...turn }) => ({ ...turn, kind: "turn" as const, workId: turnId })),
    ],
    settled,
    endedTurns: turns.ended,
    withdrawnTurns: turns.withdrawn,
  };
}

function withoutTokens(held: readonly Held[], others: readonly { attemptToken: string }[]): Held[] {
  const tokens = new Set(others.map(({ attemptToken }) => attemptToken));
  return held.filter(({ attemptToken }) => !tokens.has(attemptToken));
}

/** The device's instruction for an attempt; `past` is set for an attempt that is not active. */
export function judge(held: Pick<Held, "state">, past: PastVerdict["verdict"] | undefined): HeldVerdict {
  if (past === "already_stored") return HeldVerdict.ALREADY_STORED;
  // A program's result is wanted in any case (R10): the completion's verdict tells the outcome.
  if (held.state === HeldAttemptState.FINISHED) return HeldVerdict.SEND_RESULT;
  return past ? HeldVerdict.ABORT : HeldVerdict.CONTINUE;
}

/** The settlement of an attempt that the reconnected device does not know. */
function settlementOfMissing(options: { orgId: string; attempt: attempts.HeldByServer }): Settlement {
  const { orgId, attempt } = options;
  const base = { orgId, workId: attempt.workId, attemptToken: attempt.attemptToken, deviceId: null };
  if (attempt.isCancelRequested) {
    return { ...base, action: "finish", status: "cancelled", reason: attempt.cancelReason ?? "cancelled" };
  }
  if (attempt.status === "claimed") {
    return {
      ...base,
      action: "withdraw",
      status: "timeout",
      reason: "pushed, but it never reached the device",
    };
  }
  return {
    ...base,
    action: "finish_or_retry",
    status: "timeout",
    reason: "lost by the device: it came back without this attempt",
  };
}
