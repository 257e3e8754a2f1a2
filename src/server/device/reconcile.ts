import { HeldAttemptState, HeldVerdict } from "#gen/pinion/v1/device_pb.js";
import type { Logger } from "../../log.ts";
import { settleEach } from "../../scheduler/settle.ts";
import { appendEnded } from "../../scheduler/turn-endings.ts";
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

/** How long a run whose result a device holds is not begun again: far longer than a device takes to send one. */
const resultWaitMs = 30_000;

/** An attempt that a device says it holds. */
export type Held = { runId: string; attemptToken: string; state: HeldAttemptState };

export type Opening = {
  /** Whose session it is; a fleet worker learns it by its hello. */
  deviceId: string;
  epoch: number;
  sessionId: string;
  /** The replica that holds a stream of the device which this session replaces. */
  replacedReplicaId: string | null;
  /** For each held attempt, in order. */
  verdicts: HeldVerdict[];
  /** Attempts that go on in this session. */
  continuing: Continuing[];
  /** Attempts that the device does not hold any more. */
  settled: Settled[];
  /** And turns. */
  endedTurns: EndedTurn[];
  /** Turns that never reached the device, and wait again. */
  withdrawnTurns: WithdrawnTurn[];
};

/** An attempt that goes on; `runId` is the run's or the turn's. */
export type Continuing = Omit<attempts.HeldByServer, "status"> & { kind: AttemptKind };

/**
 * Opens a session: takes the device's next epoch, and brings what the device holds and what the server thinks that it holds
 * into agreement, in one transaction.
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
  const { epoch, sessionId, replacedReplicaId } = await presence.open(tx, options);
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
    runIds: continuing.map((attempt) => attempt.runId),
  });
  const missing = active.filter((attempt) => !heldTokens.has(attempt.attemptToken));
  // One that the database refuses to settle stays as it is; the device is let in all the same (R9).
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
      ...turns.continuing.map(({ turnId, ...turn }) => ({ ...turn, kind: "turn" as const, runId: turnId })),
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

/** What the device does with an attempt; `past` is set if the attempt is not active. */
export function judge(held: Pick<Held, "state">, past: PastVerdict["verdict"] | undefined): HeldVerdict {
  if (past === "already_stored") return HeldVerdict.ALREADY_STORED;
  // What a program ended with is wanted in any case (R10): a completion's verdict says what became of it.
  if (held.state === HeldAttemptState.FINISHED) return HeldVerdict.SEND_RESULT;
  return past ? HeldVerdict.ABORT : HeldVerdict.CONTINUE;
}

/** The device came back and does not know an attempt that is out at it. */
function settlementOfMissing(options: { orgId: string; attempt: attempts.HeldByServer }): Settlement {
  const { orgId, attempt } = options;
  const base = { orgId, runId: attempt.runId, attemptToken: attempt.attemptToken, deviceId: null };
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
