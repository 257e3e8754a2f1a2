import type { Logger } from "../log.ts";
import type { Db } from "../store/pg/database.ts";
import type { EndedTurn } from "../store/work/turn-settlements.ts";
import * as turns from "../store/work/turns.ts";
import { appendEnded, endEach } from "./turn-endings.ts";

/**
 * Ends the turns of a device that will never answer again, in the caller's transaction: turns
 * pinned to the device, and turns held by it. Their events take the org's lock: `append` writes
 * them, with the caller's own, as the last statement.
 */
export async function endTurnsOfDevice(
  tx: Db,
  device: { orgId: string; deviceId: string; reason: string },
  options: { log?: Logger | undefined },
): Promise<{ ended: EndedTurn[]; append: () => Promise<void> }> {
  const locked = await turns.lockOfDevice(tx, device);
  const replies = locked.map(({ orgId, turnId, attemptToken, isPinned }) => ({
    ...{ orgId, turnId, attemptToken, holderId: null },
    status: "failed" as const,
    reason: device.reason,
    // A pinned agent has lost its device, so the same message would be refused.
    isRetryable: !isPinned,
  }));
  const ended = await endEach(tx, replies, options.log);
  return { ended, append: () => appendEnded(tx, ended, replies) };
}
