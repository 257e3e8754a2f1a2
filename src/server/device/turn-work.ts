import { type Batcher, createBatcher } from "../../batcher.ts";
import { Refusal } from "../../errors.ts";
import type { Report, ReportVerdict } from "../../scheduler/completer.ts";
import type { TurnEndings } from "../../scheduler/turn-endings.ts";
import { type Db, mayBeOfOneRow, transaction } from "../../store/pg/database.ts";
import { storableText } from "../../store/pg/storable.ts";
import type { AttemptName, AttemptSettlement } from "../../store/work/settlements.ts";
import * as turnAttempts from "../../store/work/turn-attempts.ts";

/** What an attempt works on; a turn's id stands where an attempt of a run names its run. */
export type AttemptKind = "run" | "turn";

/** What sessions say of turns, in the words in which they speak of runs. */
export type TurnWork = {
  accept(name: AttemptName): Promise<"running" | "gone">;
  /** Stores a reply exactly once. A device's failure is the agent's: it is not retryable. */
  report(report: Report): Promise<ReportVerdict>;
  /**
   * Takes a turn away from its holder's session: `withdraw` gives it back, anything else ends it, and it may be sent again.
   * Answers whether it was the session's.
   */
  settle(settlement: AttemptSettlement): Promise<boolean>;
  idle(): Promise<void>;
};

const acceptancesPerBatchMax = 1_000;
const waitingMax = 50_000;

export function createTurnWork(deps: { db: Db; endings: () => TurnEndings }): TurnWork {
  const acceptances: Batcher<AttemptName, "running" | "gone"> = createBatcher({
    run: (names) => transaction(deps.db, (tx) => turnAttempts.accept(tx, names)),
    itemsMax: acceptancesPerBatchMax,
    queueMax: waitingMax,
    overflow: () => new Refusal("unavailable", "too much waits to be written", { retryAfterMs: 1_000 }),
    mayIsolate: mayBeOfOneRow,
  });

  return {
    accept: (name) => acceptances.add(name),
    async report(report) {
      const verdict = await deps.endings().reply({
        orgId: report.orgId,
        turnId: report.runId,
        attemptToken: report.attemptToken,
        holderId: report.deviceId,
        status: report.status,
        reason: storableText(report.reason),
        isRetryable: false,
        // The answer of an agent that tells one; its output is then a machine's.
        reply: storableText(report.agent?.result || report.output),
        agentSessionId: storableText(report.agent?.sessionId ?? ""),
        isReplyTruncated: report.isOutputTruncated,
        nextSnapshot: report.nextSnapshot,
        exitCode: report.exitCode,
        signal: storableText(report.signal),
        durationMs: report.durationMs,
      });
      return { verdict, windowId: null };
    },
    settle({ orgId, runId: turnId, attemptToken, session, action, status, reason, delayMs = 0 }) {
      if (action === "withdraw") {
        return deps.endings().withdraw({ orgId, turnId, attemptToken, session, reason, delayMs });
      }
      // A turn is tried once: whoever sent the message decides whether to send it again.
      const ended = {
        status: status === "cancelled" ? status : "failed",
        reason,
        isRetryable: true,
      } as const;
      return deps.endings().end({ orgId, turnId, attemptToken, session, ...ended });
    },
    idle: () => acceptances.idle(),
  };
}
