import type { Logger } from "../../log.ts";
import { endEach } from "../../scheduler/turn-endings.ts";
import type { Db } from "../../store/pg/database.ts";
import type { PastVerdict } from "../../store/work/settlements.ts";
import * as turnAttempts from "../../store/work/turn-attempts.ts";
import {
  type EndedTurn,
  findVerdicts,
  type WithdrawnTurn,
  withdraw,
} from "../../store/work/turn-settlements.ts";

/** The result of a worker's hello for its turns. */
export type TurnsOpening = {
  /** Turns that continue in the new session. */
  continuing: turnAttempts.TurnHeldByServer[];
  /**
   * The verdicts of further attempts held by the worker, by attempt token; tokens that never were a
   * turn's are left out.
   */
  past: ReadonlyMap<string, PastVerdict["verdict"]>;
  /** Turns that the worker no longer holds. The caller appends their events, last of all. */
  ended: EndedTurn[];
  /** Turns that never reached the worker: they wait again. */
  withdrawn: WithdrawnTurn[];
};

/**
 * Reconciles the turns that a worker holds with the turns that the server has on record for the
 * worker, in the transaction that opens the worker's session. A turn that the worker no longer
 * holds ends now, or waits again if the worker had not accepted it; a turn that the fast path has
 * ended is in `past`.
 */
export async function openTurns(
  tx: Db,
  options: {
    orgId: string;
    deviceId: string;
    epoch: number;
    sessionId: string;
    ttlMs: number;
    held: readonly { workId: string; attemptToken: string }[];
    log?: Logger | undefined;
  },
): Promise<TurnsOpening> {
  const { orgId, deviceId, held } = options;
  const active = await turnAttempts.lockActiveOfHolder(tx, { orgId, deviceId });
  const activeTokens = new Set(active.map((turn) => turn.attemptToken));
  const heldTokens = new Set(held.map((attempt) => attempt.attemptToken));
  const continuing = active.filter((turn) => heldTokens.has(turn.attemptToken));
  await turnAttempts.adopt(tx, { ...options, turnIds: continuing.map((turn) => turn.turnId) });

  const strangers = held.filter((attempt) => !activeTokens.has(attempt.attemptToken));
  const verdicts = await findVerdicts(
    tx,
    strangers.map(({ workId, attemptToken }) => ({ orgId, deviceId, workId, attemptToken })),
  );
  const past = new Map(
    strangers.flatMap(({ attemptToken }, index) =>
      verdicts[index] === "unknown" ? [] : [[attemptToken, verdicts[index]!] as const],
    ),
  );

  const missing = active.filter((turn) => !heldTokens.has(turn.attemptToken));
  // A worker journals an attempt before it sends the accept, so a worker without the attempt has
  // never begun it.
  const isUnbegun = (turn: turnAttempts.TurnHeldByServer) =>
    turn.status === "claimed" && !turn.isCancelRequested;
  const { withdrawn } = await withdraw(
    tx,
    missing.filter(isUnbegun).map(({ turnId, attemptToken }) => ({
      ...{ orgId, turnId, attemptToken, delayMs: 0 },
      reason: "pushed, but it never reached the worker",
    })),
  );
  const lost = missing.filter((turn) => !isUnbegun(turn));
  // A turn that the database refuses to end is left to its deadline; the worker's session opens all
  // the same (R9).
  const ended = await endEach(
    tx,
    lost.map(({ turnId, attemptToken }) => ({
      orgId,
      turnId,
      attemptToken,
      holderId: null,
      status: "failed",
      reason: "lost by the worker: it came back without this turn",
      isRetryable: true,
    })),
    options.log,
  );
  return { continuing, past, ended, withdrawn };
}
