import type { EndedTurn, WithdrawnTurn } from "../store/work/turn-settlements.ts";

/**
 * Announcements about turns after a commit. Hints, like all announcements: losing them costs
 * seconds.
 */
export interface TurnBell {
  /** A turn was armed; its device may have work, or, for null, the org's fleet workers. */
  turnStarted(turn: { orgId: string; turnId: string; deviceId: string | null }): void;
  /**
   * Turns had their reply; their holders have a free slot, and the next turns of their
   * conversations may begin.
   */
  turnsEnded(ended: readonly EndedTurn[]): void;
  /** Late replies were stored beside their turns; watchers of the turns are woken. */
  repliesKept(replies: readonly { orgId: string; turnId: string }[]): void;
  /** Claims were taken back; the turns wait again. */
  turnsWithdrawn(withdrawn: readonly WithdrawnTurn[]): void;
}
