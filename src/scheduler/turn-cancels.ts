import { type Db, transaction } from "../store/pg/database.ts";
import type { EndedTurn } from "../store/work/turn-settlements.ts";
import * as turns from "../store/work/turns.ts";
import type { Doorbell } from "./doorbell.ts";
import { endTurns } from "./turn-endings.ts";

/**
 * Cancels a turn: a waiting turn ends at once. For an active turn the worker is asked, and the turn
 * ends when the worker confirms or when its TTL passes. Returns whether a live turn was found.
 */
export async function cancelTurn(
  db: Db,
  turn: { orgId: string; turnId: string },
  options: { reason: string; doorbell: Pick<Doorbell, "turnsEnded" | "cancelling"> },
): Promise<boolean> {
  const { reason, doorbell } = options;
  const { locked, ended } = await transaction(db, async (tx) => {
    const locked = await turns.lockForCancel(tx, turn);
    let ended: EndedTurn[] = [];
    if (locked?.status === "pending") {
      ended = await endTurns(tx, [
        { ...turn, attemptToken: null, holderId: null, status: "cancelled", reason, isRetryable: false },
      ]);
    } else if (locked) {
      await turns.requestCancel(tx, { ...turn, reason });
    }
    return { locked, ended };
  });
  doorbell.turnsEnded(ended);
  if (locked?.attemptToken && locked.holderId) {
    const { orgId, turnId: runId, attemptToken, holderId: deviceId } = locked;
    doorbell.cancelling([{ orgId, deviceId, workId: runId, attemptToken, reason }]);
  }
  return locked !== undefined;
}
