import type { Db } from "../../store/database.ts";
import type { PastVerdict } from "../../store/settlements.ts";
import * as turnAttempts from "../../store/turn-attempts.ts";
import { commitTerminalReply, type EndedTurn, findVerdicts } from "../../store/turn-settlements.ts";

/** What a hello means for the turns that are out at its worker. */
export type TurnsOpening = {
  /** Turns that go on in this session. */
  continuing: turnAttempts.TurnHeldByServer[];
  /** Of what the worker holds besides: what became of it, by attempt token; what was never a turn is left out. */
  past: ReadonlyMap<string, PastVerdict["verdict"]>;
  /** Turns that the worker does not hold any more. Their events are the caller's to append, last of all. */
  ended: EndedTurn[];
};

/**
 * Brings the turns that a worker holds and those that the server thinks that it holds into agreement, in the transaction
 * that opens its session. One that its worker came back without ends now; one that the fast path has ended is past.
 */
export async function openTurns(
  tx: Db,
  options: {
    orgId: string;
    deviceId: string;
    epoch: number;
    ttlMs: number;
    held: readonly { runId: string; attemptToken: string }[];
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
  const ended = await commitTerminalReply(
    tx,
    missing.map(({ turnId, attemptToken }) => ({
      orgId,
      turnId,
      attemptToken,
      holderId: null,
      status: "failed",
      reason: "lost by the worker: it came back without this turn",
      isRetryable: true,
    })),
  );
  return { continuing, past, ended };
}
