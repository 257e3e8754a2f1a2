import type { RunOutput } from "../gen/pinion/v1/run_pb.js";
import { type Turn, TurnStatus } from "../gen/pinion/v1/turn_pb.js";
import type { Clients } from "./clients.ts";
import { follow } from "./follow.ts";

export interface WaitForTurnOptions {
  signal?: AbortSignal;
  /** Called with the turn at every change, including the end. */
  onTurn?: (turn: Turn) => void;
  /**
   * Called with each piece once, in order, also over a reconnect; a gap in the sequence numbers
   * means dropped output.
   */
  onOutput?: (output: RunOutput) => void;
}

/** True if a turn has a reply or has ended without a reply. */
export function isTurnEnded(turn: Pick<Turn, "status">): boolean {
  switch (turn.status) {
    case TurnStatus.COMPLETED:
    case TurnStatus.FAILED:
    case TurnStatus.TIMEOUT:
    case TurnStatus.CANCELLED:
      return true;
    case TurnStatus.UNSPECIFIED:
    case TurnStatus.PENDING:
    case TurnStatus.CLAIMED:
    case TurnStatus.RUNNING:
      return false;
  }
}

/**
 * Waits for the end of a turn, over any number of streams, and returns the turn. Throws a
 * PinionError without hope for a retry (not_found, unauthenticated …), or the signal's reason.
 */
export async function waitForTurn(
  clients: Pick<Clients, "turns">,
  turnId: string,
  options: WaitForTurnOptions = {},
): Promise<Turn> {
  /** Last sequence number read, over all streams. */
  let afterSequence = 0n;
  return follow({
    signal: options.signal,
    open: (signal) => clients.turns.watchTurn({ turnId, afterSequence }, { signal }),
    onUpdate({ update }) {
      if (update.case === "output" && update.value.sequence > afterSequence) {
        afterSequence = update.value.sequence;
        options.onOutput?.(update.value);
      }
      if (update.case !== "turn" && update.case !== "ended") return undefined;
      options.onTurn?.(update.value);
      return update.case === "ended" ? update.value : undefined;
    },
  });
}
