import { type Batcher, createBatcher } from "../../batcher.ts";
import { Refusal } from "../../errors.ts";
import type { TurnEndings } from "../../scheduler/turn-endings.ts";
import { type Db, mayBeOfOneRow, transaction } from "../../store/pg/database.ts";
import { storableText } from "../../store/pg/storable.ts";
import type { AttemptName } from "../../store/work/settlements.ts";
import * as turnAttempts from "../../store/work/turn-attempts.ts";
import type { Work } from "./work.ts";

const acceptancesPerBatchMax = 1_000;
const waitingMax = 50_000;

/**
 * Turns behind the sessions' interface for runs. A failure reported by a device is the agent's: not
 * retryable. A settlement other than `withdraw` ends the turn, and the sender may send the message
 * again.
 */
export function createTurnWork(deps: { db: Db; endings: TurnEndings; ttlMs: number }): Work {
  const { db, endings, ttlMs } = deps;
  const acceptances: Batcher<AttemptName, "running" | "gone"> = createBatcher({
    run: (names) => transaction(db, (tx) => turnAttempts.accept(tx, names)),
    itemsMax: acceptancesPerBatchMax,
    queueMax: waitingMax,
    overflow: () => new Refusal("unavailable", "too much waits to be written", { retryAfterMs: 1_000 }),
    mayIsolate: mayBeOfOneRow,
  });

  return {
    accept: (name) => acceptances.add(name),
    async report(report) {
      const verdict = await endings.reply({
        orgId: report.orgId,
        turnId: report.workId,
        attemptToken: report.attemptToken,
        holderId: report.deviceId,
        status: report.status,
        reason: storableText(report.reason),
        isRetryable: false,
        // The answer of an agent that reports one; its output is then for programs.
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
    settle(settlement) {
      const {
        orgId,
        workId: turnId,
        attemptToken,
        session,
        action,
        status,
        reason,
        delayMs = 0,
      } = settlement;
      if (action === "withdraw") {
        return endings.withdraw({ orgId, turnId, attemptToken, session, reason, delayMs });
      }
      // A turn is tried once: the sender of its message decides about another try.
      const ended = {
        status: status === "cancelled" ? status : "failed",
        reason,
        isRetryable: true,
        reply: settlement.output ?? "",
      } as const;
      return endings.end({ orgId, turnId, attemptToken, session, ...ended });
    },
    beat: (listed) => turnAttempts.beat(db, listed, ttlMs),
    findGone: (some) => turnAttempts.findGone(db, some),
    listCancelling: (limit) => turnAttempts.listCancelling(db, limit),
    listClaimed: (sessions, ageMs) => turnAttempts.listClaimed(db, sessions, ageMs),
    findWaited: (sessions) => turnAttempts.findWaited(db, sessions),
    async idle() {
      await Promise.all([acceptances.idle(), endings.idle()]);
    },
  };
}
