import type { Logger } from "../log.ts";
import type { Db } from "../store/pg/database.ts";
import type { EndedTurn } from "../store/work/turn-settlements.ts";
import * as turns from "../store/work/turns.ts";
import { appendEnded, endEach } from "./turn-endings.ts";

/**
 * Ends the turns of a device that will never answer again, in the caller's transaction: those that only it may take, and
 * those that it holds. Their events take the org's lock: `append` writes them, with the caller's own, when nothing else is
 * left to do.
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
    // Of an agent that is pinned to nobody now, the same message would be refused.
    isRetryable: !isPinned,
  }));
  const ended = await endEach(tx, replies, options.log);
  return { ended, append: () => appendEnded(tx, ended, replies) };
}
