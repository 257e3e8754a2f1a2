import type { WorkKind } from "../store/work/attempts/active.ts";
import type { ClaimedRun } from "../store/work/runs/run-claims.ts";
import type { ClaimedTurn } from "../store/work/turns/turn-attempts.ts";

/** The target of claimed runs and turns: a device session of the replica. */
export interface Seat {
  readonly orgId: string;
  readonly deviceId: string;
  readonly epoch: number;
  readonly sessionId: string;
  /** A fleet worker's agent kinds. Null for a device. */
  readonly kinds: readonly string[] | null;
  /**
   * Whether work of a kind may wait for the seat. Set by announcements of work, cleared by a claim
   * that finds less than the seat has room for, so that a freed slot causes no claim while nothing
   * waits.
   */
  readonly mayHave: Record<WorkKind, boolean>;
  /** Number of further attempts that the seat accepts now; 0 when closed. */
  freeSlots(): number;
  /**
   * Number of further runs that the seat accepts before their due time or for a later slot; 0 for a
   * worker.
   */
  roomAhead(): number;
  /** Takes a claimed run, to start now or when due. `claimMs`: milliseconds of the claim. */
  deliver(run: ClaimedRun, claimMs: number): void;
  /** Takes a claimed turn. */
  deliverTurn(turn: ClaimedTurn): void;
}
