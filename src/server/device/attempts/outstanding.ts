import type { WorkKind } from "../../../store/work/attempts/active.ts";
import type { Prepared } from "../stream/link.ts";

/**
 * The states of an attempt on a device, as remembered by its session. The database decides; the
 * session's memory keeps the device within its slots and detects attempts that the device has lost.
 *
 *   assigned ──accept──▶ accepting ──stored──▶ running
 *      │                     │                    │
 *      └──────────── report / take ───────────────┘
 *                            ▼
 *              reporting          settling
 *
 *   assigned   pushed, not answered; the accept deadline runs
 *   accepting  accepted by the device; the accept is not yet in the database
 *   running    accepted, and the accept is in the database
 *   reporting  the device has reported the end
 *   settling   taken away from the device; the settlement is not yet in the database
 *
 * The session forgets the attempt when its end is in the database, from any state.
 */
export type AttemptState = "assigned" | "accepting" | "running" | "reporting" | "settling";

export type AttemptEvent =
  /** The device accepts the attempt. */
  | "accept"
  /** The accept is in the database. */
  | "stored"
  /** The device reports the end, or rejects the attempt. */
  | "report"
  /** The session takes the attempt away. */
  | "take";

/** The next state; null: the event is ignored in the state. */
export const attemptTransitions: Record<AttemptState, Record<AttemptEvent, AttemptState | null>> = {
  assigned: { accept: "accepting", stored: null, report: "reporting", take: "settling" },
  accepting: { accept: null, stored: "running", report: "reporting", take: "settling" },
  running: { accept: null, stored: null, report: "reporting", take: "settling" },
  reporting: { accept: null, stored: null, report: "reporting", take: "settling" },
  // A completion was on its way when the attempt was taken: the completion's verdict tells the
  // outcome.
  settling: { accept: null, stored: null, report: "reporting", take: "settling" },
};

/** An attempt on a device. */
export type OutstandingAttempt = {
  readonly kind: WorkKind;
  /** The run, or the turn. */
  readonly workId: string;
  readonly attemptToken: string;
  /** Empty if another session pushed the attempt. */
  readonly watcherId: string;
  /** From 1. */
  readonly attempt: number;
  readonly state: AttemptState;
  /** By the monotonic clock, in milliseconds. */
  readonly pushedAt: number;
  /** The time of the device's accept, by the monotonic clock in milliseconds; 0 before. */
  acceptedAt: number;
  /** The pushed assignment, as long as a second push is possible. */
  assignment: Prepared | undefined;
  /** The accept deadline. */
  timer: NodeJS.Timeout | undefined;
  /** Number of successive heartbeats that did not list the attempt. */
  beatsMissed: number;
};

/**
 * A running attempt missing from this number of successive heartbeats counts as lost by the device.
 */
export const beatsMissedMax = 2;

/** The weight of the latest attempt in the moving average of the attempts' times. */
const latestShare = 0.25;

/**
 * The times of a device's attempts, in milliseconds from a push to its completion on the device.
 */
export class AttemptTimes {
  /** A moving average; undefined before the first completion. */
  averageMs: number | undefined;

  add(ms: number): void {
    this.averageMs = (this.averageMs ?? ms) * (1 - latestShare) + ms * latestShare;
  }

  /** The device's attempts take `ms` at least: longer than the average said. */
  atLeast(ms: number): void {
    this.averageMs = Math.max(this.averageMs ?? 0, ms);
  }
}

/**
 * The attempts on one device, as remembered by its session. The memory keeps the device within its
 * slots and detects attempts that the device has lost. Forgetting the attempts loses nothing: the
 * database has them.
 */
export class Outstanding {
  /** Made for the first attempt; most devices of a fleet have none for hours. */
  #attempts: Map<string, OutstandingAttempt> | undefined;

  get size(): number {
    return this.#attempts?.size ?? 0;
  }

  /** The attempt, if the message names the attempt's run. */
  find(name: { workId: string; attemptToken: string }): OutstandingAttempt | undefined {
    const attempt = this.#attempts?.get(name.attemptToken);
    return attempt?.workId === name.workId ? attempt : undefined;
  }

  add(
    name: { kind: WorkKind; workId: string; attemptToken: string; attempt: number; watcherId?: string },
    state: AttemptState,
  ): OutstandingAttempt {
    const { kind, workId, attemptToken, attempt, watcherId = "" } = name;
    const added: OutstandingAttempt = {
      ...{
        kind,
        workId,
        attemptToken,
        attempt,
        watcherId,
        state,
        pushedAt: performance.now(),
        acceptedAt: 0,
      },
      ...{ assignment: undefined, timer: undefined, beatsMissed: 0 },
    };
    this.#attempts ??= new Map();
    this.#attempts.set(attemptToken, added);
    return added;
  }

  /**
   * Applies an event by the table; returns false without a change if the state ignores the event.
   */
  on(attempt: OutstandingAttempt, event: AttemptEvent): boolean {
    const state = attemptTransitions[attempt.state][event];
    if (!state) return false;
    // The accept deadline and the assignment for a second push end with the old state.
    clearTimeout(attempt.timer);
    attempt.assignment = undefined;
    (attempt as { state: AttemptState }).state = state;
    if (state === "accepting") attempt.acceptedAt = performance.now();
    return true;
  }

  /**
   * Pushes an assignment, and again if unanswered at the accept deadline; `onUnanswered` is called
   * if the second push is unanswered, too. The deadlines end with the state.
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

  /** Removes an attempt; undefined if unknown. */
  remove(attemptToken: string): OutstandingAttempt | undefined {
    const attempt = this.#attempts?.get(attemptToken);
    clearTimeout(attempt?.timer);
    this.#attempts?.delete(attemptToken);
    return attempt;
  }

  /**
   * Evaluates a heartbeat: the listed attempts, the attempts lost now, and the listed names that
   * are unknown.
   */
  beat<Name extends { attemptToken: string }>(
    names: readonly Name[],
  ): { beating: OutstandingAttempt[]; lost: OutstandingAttempt[]; strangers: Name[] } {
    const listed = new Set(names.map((name) => name.attemptToken));
    const beating: OutstandingAttempt[] = [];
    const lost: OutstandingAttempt[] = [];
    for (const attempt of this.#all()) {
      if (listed.has(attempt.attemptToken)) {
        attempt.beatsMissed = 0;
        beating.push(attempt);
      } else if (attempt.state === "running") {
        attempt.beatsMissed += 1;
        if (attempt.beatsMissed >= beatsMissedMax) lost.push(attempt);
      }
    }
    return { beating, lost, strangers: names.filter((name) => !this.#attempts?.has(name.attemptToken)) };
  }

  list(): OutstandingAttempt[] {
    return [...this.#all()];
  }

  clear(): void {
    for (const attempt of this.#all()) clearTimeout(attempt.timer);
    this.#attempts = undefined;
  }

  #all(): Iterable<OutstandingAttempt> {
    return this.#attempts?.values() ?? [];
  }
}
