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

/** What a hello means for the turns that are out at its worker. */
export type TurnsOpening = {
  /** Turns that go on in this session. */
  continuing: turnAttempts.TurnHeldByServer[];
  /** Of what the worker holds besides: what became of it, by attempt token; what was never a turn is left out. */
  past: ReadonlyMap<string, PastVerdict["verdict"]>;
  /** Turns that the worker does not hold any more. Their events are the caller's to append, last of all. */
  ended: EndedTurn[];
  /** Turns that never reached it: they wait again. */
  withdrawn: WithdrawnTurn[];
};

/**
 * Brings the turns that a worker holds and those that the server thinks that it holds into agreement, in the transaction
 * that opens its session. One that its worker came back without ends now, or waits again if the worker had not taken it
 * on; one that the fast path has ended is past.
 */
export async function openTurns(
  tx: Db,
  options: {
    orgId: string;
    deviceId: string;
    epoch: number;
    sessionId: string;
    ttlMs: number;
    held: readonly { runId: string; attemptToken: string }[];
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
    strangers.map(({ runId, attemptToken }) => ({ orgId, deviceId, runId, attemptToken })),
  );
  const past = new Map(
    strangers.flatMap(({ attemptToken }, index) =>
      verdicts[index] === "unknown" ? [] : [[attemptToken, verdicts[index]!] as const],
    ),
  );

  const missing = active.filter((turn) => !heldTokens.has(turn.attemptToken));
  // A worker writes down what it takes on before it says so: what it does not know, it never began.
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
  // One that the database refuses to end is left to its deadline; the worker is let in all the same (R9).
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
