import type { Db } from "../store/database.ts";
import { commitTerminalReply, type EndedTurn, lockOfDevice } from "../store/turn-settlements.ts";
import { appendEnded } from "./turn-endings.ts";

/**
 * Ends the turns that only this device may take, which will never answer again, in the caller's transaction. Their events
 * take the org's lock: `append` writes them, with the caller's own, when nothing else is left to do.
 */
export async function endTurnsOfDevice(
  tx: Db,
  device: { orgId: string; deviceId: string; reason: string },
): Promise<{ ended: EndedTurn[]; append: () => Promise<void> }> {
  const locked = await lockOfDevice(tx, device);
  const replies = locked.map((turn) => ({
    ...turn,
    holderId: null,
    status: "failed" as const,
    reason: device.reason,
    // The same message would be refused: its agent is pinned to nobody.
    isRetryable: false,
  }));
  const ended = await commitTerminalReply(tx, replies);
  return { ended, append: () => appendEnded(tx, ended, replies) };
}
