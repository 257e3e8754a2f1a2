import { appendEnded, endEach } from "../../../scheduler/endings/turn-endings.ts";
import type * as active from "../../../store/work/attempts/active.ts";
import * as turnAttempts from "../../../store/work/turns/turn-attempts.ts";
import { findVerdicts, withdraw } from "../../../store/work/turns/turn-settlements.ts";
import type { Reconciliation } from "./reconciliation.ts";

/**
 * The reconciliation of the turns that a worker holds. A turn that the worker no longer holds ends,
 * or waits again if the worker had not accepted the turn.
 */
export const turns: Reconciliation = {
  adopt: turnAttempts.adopt,
  findVerdicts,
  // A turn is tried once, so no second attempt has to wait for a result.
  async awaitResults() {},
  async endMissing(tx, { orgId, log }, missing) {
    const { withdrawn } = await withdraw(
      tx,
      missing.filter(isUnbegun).map(({ workId, attemptToken }) => ({
        ...{ orgId, turnId: workId, attemptToken, delayMs: 0 },
        reason: "pushed, but it never reached the worker",
      })),
    );
    const ended = await endEach(
      tx,
      missing
        .filter((turn) => !isUnbegun(turn))
        .map(({ workId, attemptToken }) => ({
          ...{ orgId, turnId: workId, attemptToken, holderId: null },
          status: "failed",
          reason: "lost by the worker: it came back without this turn",
          isRetryable: true,
        })),
      log,
    );
    return {
      ends: { turnsEnded: ended, turnsWithdrawn: withdrawn },
      append: () => appendEnded(tx, ended),
    };
  },
};

/**
 * A worker journals an attempt before it sends the accept, so a worker without the attempt has
 * never begun the attempt.
 */
const isUnbegun = (turn: active.HeldByServer) => turn.status === "claimed" && !turn.isCancelRequested;
