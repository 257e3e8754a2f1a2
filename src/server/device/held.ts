import type { ClaimedRun } from "../../store/work/attempts.ts";
import type { Prepared } from "./link.ts";

/** A run that a session has claimed and not pushed: it is not due yet, or waits for a slot. */
export type HeldRun = {
  readonly run: ClaimedRun;
  readonly claimMs: number;
  /** Its assignment; undefined if that could not be made. */
  readonly assignment: Prepared | undefined;
  /** When it is due, in milliseconds since 1970. */
  readonly dueMs: number;
  /** Until when it may wait for a slot, the same way. */
  readonly untilMs: number;
  /** Has the wheel forget its next moment. */
  forget: () => void;
};

/**
 * What a session has claimed ahead, the soonest due first. It uses none of the device's slots, and the device knows nothing of
 * it: whoever takes it away needs to tell nobody. Forgetting it loses nothing; the next hello and the sweep give it back.
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
