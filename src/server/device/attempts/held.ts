import type { ClaimedRun } from "../../../store/work/runs/run-claims.ts";
import type { Prepared } from "../stream/link.ts";

/** A run that a session has claimed and not pushed: not yet due, or waiting for a slot. */
export type HeldRun = {
  readonly run: ClaimedRun;
  readonly claimMs: number;
  /** The run's assignment; undefined if the assignment could not be made. */
  readonly assignment: Prepared | undefined;
  /** The due time, in milliseconds since 1970. */
  readonly dueMs: number;
  /** The end of the wait for a slot, in milliseconds since 1970. */
  readonly untilMs: number;
  /** The wheel's next callback is the end of the wait. */
  isWaiting: boolean;
  /** Removes the run's next callback from the wheel. */
  forget: () => void;
};

/**
 * The runs that a session has claimed ahead, the soonest due first. Held runs use no slot of the
 * device and are unknown to the device, so taking a run away needs no message. Forgetting the runs
 * loses nothing: the next hello or the sweep gives them back.
 */
export class Held {
  #runs: HeldRun[] = [];

  get size(): number {
    return this.#runs.length;
  }

  first(): HeldRun | undefined {
    return this.#runs[0];
  }

  list(): readonly HeldRun[] {
    return this.#runs;
  }

  has(attemptToken: string): boolean {
    return this.#runs.some(({ run }) => run.attemptToken === attemptToken);
  }

  add(held: HeldRun): void {
    let at = this.#runs.length;
    while (at > 0 && this.#runs[at - 1]!.dueMs > held.dueMs) at--;
    this.#runs.splice(at, 0, held);
  }

  remove(attemptToken: string): HeldRun | undefined {
    const at = this.#runs.findIndex(({ run }) => run.attemptToken === attemptToken);
    const [removed] = at < 0 ? [] : this.#runs.splice(at, 1);
    removed?.forget();
    return removed;
  }

  /** Takes all out. */
  clear(): HeldRun[] {
    const all = this.#runs;
    this.#runs = [];
    for (const held of all) held.forget();
    return all;
  }
}
