import { type AttemptEvent, type AttemptState, attemptTransitions } from "./attempt-table.ts";
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
  readonly state: AttemptState;
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
    state: AttemptState,
  ): OutstandingAttempt {
    const { kind, runId, attemptToken, attempt, watcherId = "" } = name;
    const added: OutstandingAttempt = {
      ...{ kind, runId, attemptToken, attempt, watcherId, state, pushedAt: performance.now(), acceptedAt: 0 },
      ...{ assignment: undefined, timer: undefined, beatsMissed: 0 },
    };
    this.#attempts.set(attemptToken, added);
    return added;
  }

  /** Moves an attempt on by the table; false, and nothing changed, where the event counts for nothing in its state. */
  on(attempt: OutstandingAttempt, event: AttemptEvent): boolean {
    const state = attemptTransitions[attempt.state][event];
    if (!state) return false;
    // The accept deadline, and what would be pushed again, belong to the state that is left.
    clearTimeout(attempt.timer);
    attempt.assignment = undefined;
    (attempt as { state: AttemptState }).state = state;
    if (state === "accepting") attempt.acceptedAt = performance.now();
    return true;
  }

  /**
   * Pushes an assignment, and once more if it is not answered by the accept deadline; `onUnanswered` is called when the
   * second push is not answered either. The deadlines end with the state.
   */
  push(
    attempt: OutstandingAttempt,
    assignment: Prepared,
    options: { send: (assignment: Prepared) => void; deadlineMs: number; onUnanswered: () => void },
  ): void {
    const { send, deadlineMs, onUnanswered } = options;
    attempt.assignment = assignment;
    send(assignment);
    attempt.timer = setTimeout(() => {
      if (attempt.state !== "assigned") return;
      send(assignment);
      attempt.assignment = undefined;
      attempt.timer = setTimeout(() => {
        if (attempt.state === "assigned") onUnanswered();
      }, deadlineMs);
    }, deadlineMs);
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
