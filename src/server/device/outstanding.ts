import type { Prepared } from "./link.ts";
import type { AttemptKind } from "./work.ts";

/** An attempt that is out at a device. */
export type OutstandingAttempt = {
  readonly kind: AttemptKind;
  /** The run, or the turn. */
  readonly runId: string;
  readonly attemptToken: string;
  /** Empty where the session did not push it itself. */
  readonly watcherId: string;
  /** From 1. */
  readonly attempt: number;
  /**
   * assigned   pushed, not answered
   * accepting  answered; the database does not know it yet
   * running    both know
   * reporting  the device has said how it ended
   * settling   taken away from the device; the database does not know it yet
   */
  state: "assigned" | "accepting" | "running" | "reporting" | "settling";
  /** By the monotonic clock, in milliseconds. */
  readonly pushedAt: number;
  /** The same for the device's accept; 0 before. */
  acceptedAt: number;
  /** What was pushed, while it may have to be pushed again. */
  assignment: Prepared | undefined;
  /** The accept deadline. */
  timer: NodeJS.Timeout | undefined;
  /** Successive heartbeats that did not list it. */
  beatsMissed: number;
};

/** Successive heartbeats without a running attempt after which it is lost by the device. */
export const beatsMissedMax = 2;

/**
 * What is out at one device, as its session remembers it: it keeps the device within its slots and notices what the
 * device has lost. Forgetting it loses nothing; the database knows.
 */
export class Outstanding {
  readonly #attempts = new Map<string, OutstandingAttempt>();

  get size(): number {
    return this.#attempts.size;
  }

  /** The attempt, if the message names the run that it belongs to. */
  find(name: { runId: string; attemptToken: string }): OutstandingAttempt | undefined {
    const attempt = this.#attempts.get(name.attemptToken);
    return attempt?.runId === name.runId ? attempt : undefined;
  }

  add(
    name: { kind: AttemptKind; runId: string; attemptToken: string; attempt: number; watcherId?: string },
    state: OutstandingAttempt["state"],
  ): OutstandingAttempt {
    const { kind, runId, attemptToken, attempt, watcherId = "" } = name;
    const added: OutstandingAttempt = {
      ...{ kind, runId, attemptToken, attempt, watcherId, state, pushedAt: performance.now(), acceptedAt: 0 },
      ...{ assignment: undefined, timer: undefined, beatsMissed: 0 },
    };
    this.#attempts.set(attemptToken, added);
    return added;
  }

  /** Moves an attempt on; whatever it waited for counts no more. */
  move(attempt: OutstandingAttempt, state: OutstandingAttempt["state"]): void {
    clearTimeout(attempt.timer);
    attempt.assignment = undefined;
    attempt.state = state;
    if (state === "accepting") attempt.acceptedAt = performance.now();
  }

  /** Takes an attempt out; undefined if it is not there. */
  remove(attemptToken: string): OutstandingAttempt | undefined {
    const attempt = this.#attempts.get(attemptToken);
    clearTimeout(attempt?.timer);
    this.#attempts.delete(attemptToken);
    return attempt;
  }

  /** What a heartbeat tells: which attempts it listed, which are lost now, and what it listed that is not out. */
  beat<Name extends { attemptToken: string }>(
    names: readonly Name[],
  ): { beating: OutstandingAttempt[]; lost: OutstandingAttempt[]; strangers: Name[] } {
    const listed = new Set(names.map((name) => name.attemptToken));
    const beating: OutstandingAttempt[] = [];
    const lost: OutstandingAttempt[] = [];
    for (const attempt of this.#attempts.values()) {
      if (listed.has(attempt.attemptToken)) {
        attempt.beatsMissed = 0;
        beating.push(attempt);
      } else if (attempt.state === "running") {
        attempt.beatsMissed += 1;
        if (attempt.beatsMissed >= beatsMissedMax) lost.push(attempt);
      }
    }
    return { beating, lost, strangers: names.filter((name) => !this.#attempts.has(name.attemptToken)) };
  }

  list(): OutstandingAttempt[] {
    return [...this.#attempts.values()];
  }

  clear(): void {
    for (const attempt of this.#attempts.values()) clearTimeout(attempt.timer);
    this.#attempts.clear();
  }
}
