import { withdrawnDelayMs } from "../../../scheduler/endings/reaper.ts";
import type { Seat } from "../../../scheduler/seat.ts";
import type { AttemptName, Settlement } from "../../../store/work/attempts/settlements.ts";
import type { ClaimedRun } from "../../../store/work/runs/run-claims.ts";
import type { SessionName } from "../../../store/work/service/presence.ts";
import type { ClaimedTurn } from "../../../store/work/turns/turn-attempts.ts";
import type { Logger } from "../../../telemetry/log.ts";
import { assignmentOf, cancelOf, turnAssignmentOf } from "../messages/messages.ts";
import { plainAssignmentFrame } from "../messages/plain-frames.ts";
import type { Opening } from "../reconcile/reconcile.ts";
import type { Handling } from "../session/handling.ts";
import type { SessionServices } from "../session/session-services.ts";
import type { SessionState } from "../session/session-table.ts";
import type { Link, Prepared } from "../stream/link.ts";
import { Ahead, type AheadSession, type Ending, type HeldName } from "./ahead.ts";
import { AttemptTimes, Outstanding, type OutstandingAttempt } from "./outstanding.ts";
import type { AttemptKind } from "./work.ts";

/** The settlement of an attempt claimed for a session that stopped serving meanwhile. */
const whileLeaving = {
  action: "withdraw",
  status: "timeout",
  reason: "the device was leaving when it was claimed",
} as const;

/** The session, as its attempts know the session. */
export type SessionView = {
  readonly isWorker: boolean;
  readonly state: SessionState;
  /** Whether the device has been silent for so long that it may be lost. */
  readonly isQuiet: boolean;
  readonly log: Logger;
};

/**
 * The attempts of a session on the way down: a claimed run or turn is held until a slot is free,
 * pushed as an assignment, and taken away again. The database decides; the session remembers
 * (outstanding.ts), so that the device keeps within its slots. The dispatcher knows the session by
 * this seat.
 *
 *   claimed ─▶ held until due and a slot is free (ahead.ts) ─▶ assignment ─▶ settled: a free slot
 */
export class Assignments implements AheadSession, Seat {
  // The session's name, from its welcome on.
  orgId = "";
  deviceId = "";
  epoch = 0;
  sessionId = "";
  kinds: readonly string[] | null = null;
  readonly mayHave: Record<AttemptKind, boolean> = { run: true, turn: true };
  readonly out = new Outstanding();
  readonly times = new AttemptTimes();
  readonly #ahead: Ahead;
  readonly #session: SessionView;
  readonly #link: Link;
  readonly #services: SessionServices<never>;
  readonly #handling: Handling;
  #maxConcurrency = 0;
  /**
   * The time since when a slot has been free without a break; runs due before waited for the
   * device.
   */
  #freeSince = 0;

  constructor(
    session: SessionView,
    parts: { link: Link; services: SessionServices<never>; handling: Handling },
  ) {
    this.#session = session;
    this.#link = parts.link;
    this.#services = parts.services;
    this.#handling = parts.handling;
    this.#ahead = new Ahead(this, parts.services);
  }

  /**
   * The session serves: takes its name, and the attempts that continue. `ended`: the tokens of
   * ended programs.
   */
  begin(options: {
    session: SessionName & Pick<Seat, "kinds">;
    maxConcurrency: number;
    continuing: Opening["continuing"];
    ended: ReadonlySet<string>;
  }): void {
    const { session } = options;
    this.orgId = session.orgId;
    this.deviceId = session.deviceId;
    this.epoch = session.epoch;
    this.sessionId = session.sessionId;
    this.kinds = session.kinds;
    this.#maxConcurrency = options.maxConcurrency;
    for (const held of options.continuing) {
      // An ended attempt is not listed by heartbeats; its completion is on the way.
      this.out.add(held, options.ended.has(held.attemptToken) ? "reporting" : "running");
    }
    this.#freeSince = performance.now();
  }

  /** The attempts on the device by the session's memory, and the attempts held ahead for it. */
  list(): (AttemptName & { kind: AttemptKind })[] {
    const { orgId, deviceId } = this;
    const held = this.#ahead.list().map(workOf);
    return [...this.out.list(), ...held].map(({ kind, workId, attemptToken }) => {
      return { orgId, deviceId, kind, workId, attemptToken };
    });
  }

  /** The session may take more work. */
  wake(): void {
    this.#services.dispatcher.wake(this);
  }

  /** Gives back the runs that are held ahead. */
  giveBackAll(): void {
    this.#ahead.giveBackAll();
  }

  /** The session ends. Returns the tokens of the attempts on the device. */
  end(): ReadonlySet<string> {
    const pushed = new Set(this.out.list().map((attempt) => attempt.attemptToken));
    this.out.clear();
    this.#ahead.giveBackAll();
    return pushed;
  }

  /**
   * Slots for further claims. A worker's slot is taken by the run that waits for its moment, too; a
   * silent worker has none, because other workers can take the work.
   */
  freeSlots(): number {
    if (!this.#session.isWorker) return this.slotsLeft();
    return this.#session.isQuiet ? 0 : Math.max(0, this.slotsLeft() - this.#ahead.size);
  }

  /** Slots that no attempt on the device has. */
  slotsLeft(): number {
    return this.#session.state === "serving" ? Math.max(0, this.#maxConcurrency - this.out.size) : 0;
  }

  roomAhead(): number {
    if (this.#session.state !== "serving" || this.#session.isWorker) return 0;
    const room = this.#ahead.roomFor(this.#maxConcurrency);
    return Math.max(0, room - this.out.size - this.#ahead.size);
  }

  deliver(run: ClaimedRun, claimMs: number): void {
    const isDue = this.#ahead.isDue(run.dueAt.getTime());
    // A worker takes due runs only, which other workers could take, too. A run that only a wrong
    // clock of the database called due waits here for its moment.
    const mayWait = this.#session.state === "serving" && !(this.#session.isWorker && isDue);
    const isFirst = this.#ahead.size === 0 && isDue;
    if (mayWait && !(isFirst && this.slotsLeft() > 0)) this.#ahead.add(run, claimMs);
    else this.pushHeld(run, claimMs, () => this.prepare(run));
  }

  prepare(run: ClaimedRun): Prepared {
    const { telemetry, cell } = this.#services;
    const traceparent = telemetry.traceparent(run.runId);
    return this.#link.prepare(
      () => assignmentOf(run, traceparent, cell),
      () => plainAssignmentFrame(run, traceparent, cell),
    );
  }

  pushHeld(run: HeldName, claimMs: number, assignment: () => Prepared): void {
    const { clock, telemetry } = this.#services;
    const isPushed = this.#deliver(workOf(run), assignment);
    if (!isPushed) return;
    // For a retried run the claim knows the start of the wait.
    const dueForMs = run.attempt > 1 ? run.dueForMs : Math.max(0, clock.now() - run.dueAt.getTime());
    const waitedMs = Math.min(dueForMs, performance.now() - this.#freeSince);
    telemetry.pushed(run, { claimMs, waitedMs });
  }

  deliverTurn(turn: ClaimedTurn): void {
    this.#deliver({ ...turn, kind: "turn", workId: turn.turnId }, () =>
      this.#link.prepare(() => turnAssignmentOf(turn)),
    );
  }

  /** Returns whether the attempt was pushed. */
  #deliver(
    name: { kind: AttemptKind; workId: string; attemptToken: string; attempt: number },
    assignment: () => Prepared,
  ): boolean {
    if (this.#session.state === "closed") {
      this.#giveBack(name);
      return false;
    }
    const attempt = this.out.add(name, "assigned");
    if (this.#session.state !== "serving") {
      this.settle(attempt, whileLeaving);
      return false;
    }
    let made: Prepared;
    try {
      made = assignment();
    } catch (error) {
      // R8: a run whose assignment cannot be made fails alone.
      this.#session.log.error({ err: error, workId: name.workId }, "an assignment could not be made");
      this.settle(attempt, {
        action: "finish",
        status: "failed",
        reason: "its assignment could not be made; see the server's log",
      });
      return false;
    }
    const deadlineMs = this.#services.timers.acceptDeadlineMs;
    this.out.push(attempt, made, {
      deadlineMs,
      send: (message) => this.#link.send(message),
      onUnanswered: () => {
        this.#services.telemetry.lost("not_answered");
        this.settle(attempt, {
          action: "withdraw",
          status: "timeout",
          reason: `pushed twice, but not accepted within ${2 * deadlineMs} ms`,
          delayMs: withdrawnDelayMs,
        });
      },
    });
    this.#services.runMoved(this, "run.claimed", attempt);
    return true;
  }

  giveBackHeld(run: HeldName, how: Ending): void {
    this.#giveBack(workOf(run), how);
  }

  /** The session ended during the claim: the attempt was never pushed and is released. */
  #giveBack(
    { kind, workId, attemptToken }: { kind: AttemptKind; workId: string; attemptToken: string },
    how: Ending = whileLeaving,
  ): void {
    const { orgId, epoch, sessionId } = this;
    const session = { epoch, sessionId };
    this.#services.works[kind]
      .settle({ orgId, workId, attemptToken, deviceId: null, session, ...how })
      .catch((error: unknown) => {
        // The next hello or the reaper takes the attempt back.
        this.#session.log.warn(
          { err: error, workId },
          "an attempt that was never pushed could not be given back",
        );
      });
  }

  /**
   * Gives back an attempt that was claimed for the session if the answer to the claim never came.
   */
  withdrawUnknown(name: { kind: AttemptKind; workId: string; attemptToken: string }): void {
    if (this.out.find(name) || this.#ahead.has(name.attemptToken)) return;
    const attempt = this.out.add({ ...name, attempt: 0 }, "assigned");
    this.settle(attempt, {
      action: "withdraw",
      status: "timeout",
      reason: "claimed, but the answer to the claim was lost",
    });
  }

  /** Asks the device to end an attempt. */
  cancel(attempt: { workId: string; attemptToken: string; reason: string }): void {
    const held = this.#ahead.remove(attempt.attemptToken);
    if (held) {
      // The device has never heard of the attempt.
      this.#giveBack(workOf(held), { action: "finish", status: "cancelled", reason: attempt.reason });
      this.wake();
      return;
    }
    if (this.#session.state === "serving" || this.#session.state === "draining")
      this.#link.send(cancelOf(attempt));
  }

  /** An attempt was settled, on any replica: its slot is free. */
  settled(attemptToken: string): void {
    if (this.#ahead.remove(attemptToken)) {
      this.wake();
      return;
    }
    const attempt = this.#forget(attemptToken);
    if (attempt && attempt.state !== "reporting" && attempt.state !== "accepting") this.disown(attempt);
  }

  /** Removes an attempt from the session's memory: its slot is free. */
  #forget(attemptToken: string): OutstandingAttempt | undefined {
    const wasFull = this.freeSlots() === 0;
    const attempt = this.out.remove(attemptToken);
    if (!attempt) return undefined;
    if (wasFull) this.#freeSince = performance.now();
    this.#ahead.pushDue();
    this.wake();
    return attempt;
  }

  named({ workId }: { workId: string }): { orgId: string; deviceId: string; workId: string } {
    return { orgId: this.orgId, deviceId: this.deviceId, workId };
  }

  /** Tells the device to stop an attempt that is no longer the device's. */
  disown({ workId, attemptToken }: { workId: string; attemptToken: string }): void {
    this.#link.send(cancelOf({ workId, attemptToken, reason: "not yours any more" }));
  }

  /**
   * Takes an attempt away from the device. Its slot stays used until the settlement is in the
   * database.
   */
  settle(
    attempt: OutstandingAttempt,
    how: Pick<Settlement, "action" | "status" | "reason" | "delayMs">,
    event: "take" | "report" = "take",
  ): void {
    this.out.on(attempt, event);
    const { orgId, epoch, sessionId } = this;
    const { workId, attemptToken } = attempt;
    const session = { epoch, sessionId };
    const settlement = { orgId, workId, attemptToken, deviceId: null, session, ...how };
    this.#handling.track(
      this.#handling
        .whileServed(() => this.#services.works[attempt.kind].settle(settlement))
        .then((wasOurs) => {
          if (wasOurs) this.settled(attemptToken);
          // Ended elsewhere, or continued in a newer session: the device must not be told to stop.
          else if (wasOurs === false) this.#forget(attemptToken);
          // Otherwise the attempt stays; the next hello or the reaper settles it.
        }),
    );
  }
}

/** A claimed run as the work of an attempt. */
const workOf = ({ runId: workId, watcherId, attemptToken, attempt }: HeldName) => ({
  ...{ kind: "run" as const, workId, watcherId, attemptToken, attempt },
});
