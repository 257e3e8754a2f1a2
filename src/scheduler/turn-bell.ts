import type { EndedTurn, WithdrawnTurn } from "../store/work/turn-settlements.ts";

/** What is told of turns after a commit. As all doorbells, hints: losing every one of them costs seconds. */
export interface TurnBell {
  /** A turn was armed; its device, or for null the org's fleet workers, may have work. */
  turnStarted(turn: { orgId: string; turnId: string; deviceId: string | null }): void;
  /** Turns had their reply; their holders have a free slot, and the next turns of their conversations may begin. */
  turnsEnded(ended: readonly EndedTurn[]): void;
  /** Late replies were kept beside their turns; those who watch the turns look. */
  repliesKept(replies: readonly { orgId: string; turnId: string }[]): void;
  /** Claims were taken back; the turns wait again. */
  turnsWithdrawn(withdrawn: readonly WithdrawnTurn[]): void;
}
