import { type Db, transaction } from "../store/pg/database.ts";
import { isUnavailable } from "../store/pg/failures.ts";
import type { WorkKind } from "../store/work/attempts/active.ts";
import type { FailurePolicy } from "../store/work/attempts/settlements.ts";
import * as runClaims from "../store/work/runs/run-claims.ts";
import type { SessionName } from "../store/work/service/presence.ts";
import * as turnAttempts from "../store/work/turns/turn-attempts.ts";
import type { Logger } from "../telemetry/log.ts";
import type { Doorbell } from "./doorbell.ts";
import type { Endings } from "./endings/endings.ts";
import { settleWithEvents } from "./endings/run-endings.ts";
import type { Seat } from "./seat.ts";
import type { HeldSeats } from "./slots/recording.ts";

/** Seats per claim statement. */
const seatsPerBatchMax = 1_000;

/**
 * Maximum attempts per claim statement, shared by its seats, so that a seat with many free slots
 * does not delay the others.
 */
const attemptsPerBatchMax = 1_000;

export type DispatcherOptions = {
  db: Db;
  policy: FailurePolicy;
  doorbell: Doorbell;
  turns: { timers: turnAttempts.TurnTimers; endings: Pick<Endings, "settle"> };
  log: Logger;
  /** Reports each claim: the number of seats, and the milliseconds taken. */
  onBatch?: (size: number, ms: number) => void;
  /** Reports a claim that found less than the seat has room for: locked rows are passed by. */
  onLess?: (seat: Seat, kind: WorkKind) => void;
};

/**
 * Claims work for seats that were woken, in batches: one statement serves all seats woken during
 * the previous statement.
 *
 *   idle ──wake──▶ woken ──room, and work may wait──▶ engaged ──claim──▶ delivered ──▶ idle
 *                    ▲                                   │
 *                    └─────── more than its share ───────┘
 */
export class Dispatcher {
  readonly #options: DispatcherOptions;
  readonly #claims: Claims;
  readonly #woken = new Set<Seat>();
  /** Seats in running claims: all their room is reserved. */
  readonly #engaged = new Set<Seat>();
  /** Number of runs that open transactions may claim for a seat as they record them. */
  readonly #reserved = new Map<Seat, number>();
  /** Work that runs concurrently with the claims. */
  readonly #underWay = new Set<Promise<void>>();
  #running: Promise<void> | undefined;

  constructor(options: DispatcherOptions) {
    this.#options = options;
    this.#claims = new Claims(options, (seat) => this.#woken.add(seat));
  }

  /**
   * Reports that a seat may get work: a slot freed, a session opened, or work was announced
   * (`mayHave`).
   */
  wake(seat: Seat): void {
    this.#woken.add(seat);
    this.#running ??= this.#drain();
  }

  /**
   * Chooses the sessions that may claim runs while they are recorded: for each run the session of
   * its seat. Undefined for a run without a seat, and for seats without room, in a claim, or with
   * possibly older work; the writer of these runs wakes their seats after the commit. No claim
   * serves the chosen seats until `deliver` or `drop`; other writers may hold the rest of their
   * room.
   */
  hold(seats: readonly (Seat | undefined)[]): HeldSeats {
    const held = new Map<Seat, number>();
    const claimants = seats.map((seat) => this.#reserve(seat, held));
    const startedAt = performance.now();
    return {
      claimants,
      deliver: (claimed) => this.#deliver(claimed, held, performance.now() - startedAt),
      drop: () => this.#release(held),
    };
  }

  async idle(): Promise<void> {
    while (this.#running || this.#underWay.size > 0) await (this.#running ?? Promise.all(this.#underWay));
  }

  /** Reserves room for one more run, and notes it in `held`; undefined: the seat must not claim. */
  #reserve(seat: Seat | undefined, held: Map<Seat, number>): SessionName | undefined {
    if (!seat || seat.mayHave.turn || seat.mayHave.run || this.#engaged.has(seat)) return undefined;
    const before = this.#reserved.get(seat) ?? 0;
    if (before >= seat.roomAhead()) return undefined;
    this.#reserved.set(seat, before + 1);
    held.set(seat, (held.get(seat) ?? 0) + 1);
    const { orgId, deviceId, epoch, sessionId } = seat;
    return { orgId, deviceId, epoch, sessionId };
  }

  #deliver(claimed: readonly runClaims.ClaimedRun[], held: ReadonlyMap<Seat, number>, tookMs: number): void {
    const byDevice = new Map([...held.keys()].map((seat) => [seat.deviceId, seat]));
    if (held.size > 0) this.#options.onBatch?.(held.size, tookMs);
    const unusable = this.#claims.hand(claimed, byDevice, tookMs);
    this.#release(held);
    if (unusable.length === 0) return;
    const failing = this.#claims
      .fail(unusable, byDevice)
      .catch((error: unknown) =>
        this.#options.log.error({ err: error }, "runs that nobody can execute were not failed"),
      )
      .finally(() => {
        this.#underWay.delete(failing);
        this.#goOn();
      });
    this.#underWay.add(failing);
  }

  #release(held: ReadonlyMap<Seat, number>): void {
    for (const [seat, count] of held) {
      const left = (this.#reserved.get(seat) ?? 0) - count;
      if (left > 0) this.#reserved.set(seat, left);
      else this.#reserved.delete(seat);
    }
    this.#goOn();
  }

  #goOn(): void {
    if (this.#woken.size > 0) this.#running ??= this.#drain();
  }

  async #drain(): Promise<void> {
    // Seats woken in the same turn of the event loop share the first statement.
    await Promise.resolve();
    while (true) {
      const seats = this.#nextSeats();
      // The remaining seats are held; their release starts the next check.
      if (seats.length === 0) break;
      for (const seat of seats) this.#engaged.add(seat);
      try {
        await this.#claims.serve(seats);
      } catch (error) {
        // The sweep finds the waiting work.
        const level = isUnavailable(error) ? "warn" : "error";
        this.#options.log[level]({ err: error, seats: seats.length }, "a claim failed");
      }
      for (const seat of seats) this.#engaged.delete(seat);
    }
    // In the same turn as the last check: a seat woken later starts a new drain.
    this.#running = undefined;
  }

  /** Takes woken seats that are in no claim and not held, and have room. */
  #nextSeats(): Seat[] {
    const seats: Seat[] = [];
    for (const seat of this.#woken) {
      if (this.#engaged.has(seat) || this.#reserved.has(seat)) continue;
      this.#woken.delete(seat);
      if (hasRoom(seat)) seats.push(seat);
      if (seats.length === seatsPerBatchMax) break;
    }
    return seats;
  }
}

/** Whether work may wait for the seat, and the seat has room. */
function hasRoom(seat: Seat): boolean {
  const isFree = seat.freeSlots() > 0;
  return (seat.mayHave.run && (isFree || seat.roomAhead() > 0)) || (seat.mayHave.turn && isFree);
}

/** The claims of turns and runs for seats, and the delivery of the claimed work. */
class Claims {
  readonly #options: DispatcherOptions;
  /** Has a seat served again, after all waiting seats. */
  readonly #again: (seat: Seat) => void;

  constructor(options: DispatcherOptions, again: (seat: Seat) => void) {
    this.#options = options;
    this.#again = again;
  }

  async serve(seats: Seat[]): Promise<void> {
    const byDevice = new Map(seats.map((seat) => [seat.deviceId, seat]));
    const share = Math.max(1, Math.floor(attemptsPerBatchMax / seats.length));
    const wantsOf = (some: readonly Seat[], isForRuns: boolean) =>
      some.flatMap((seat) => {
        // A device takes runs before their due time while it has room ahead; otherwise only due
        // runs.
        const roomAhead = isForRuns ? seat.roomAhead() : 0;
        const slots = Math.min(roomAhead || seat.freeSlots(), share);
        return slots > 0 ? [{ ...wantOf(seat), slots, isAhead: roomAhead > 0 }] : [];
      });
    // Turns come first, because people wait for replies. Each part is delivered before the next
    // claim, so that a failure loses no claimed work.
    const forTurns = seats.filter((seat) => seat.mayHave.turn);
    for (const part of runClaims.partsOf(wantsOf(forTurns, false))) {
      await this.#serveTurns(part, byDevice);
    }
    const forRuns = seats.filter((seat) => seat.mayHave.run);
    for (const part of runClaims.partsOf(wantsOf(forRuns, true))) {
      await this.#serveRuns(part, byDevice);
    }
  }

  async #serveTurns(wants: readonly runClaims.Want[], byDevice: ReadonlyMap<string, Seat>): Promise<void> {
    const claimed = await this.#looking(wants, byDevice, "turn", () =>
      turnAttempts.claim(this.#options.db, wants, this.#options.turns.timers),
    );
    for (const turn of claimed) {
      if (turn.agentSettings !== null) {
        seatOf(byDevice, turn).deliverTurn(turn);
        continue;
      }
      // R8: no worker can execute the turn.
      const { orgId, turnId, attemptToken, agentId, agentVersion } = turn;
      const reason = `version ${agentVersion} of agent "${agentId}" does not exist`;
      await this.#options.turns.endings.settle({
        ...{ orgId, workId: turnId, attemptToken, deviceId: null, reason },
        ...{ action: "finish", status: "failed", isRetryable: false },
      });
      seatOf(byDevice, turn).mayHave.turn = true;
    }
  }

  /** Claims, and updates which seats may have more work. */
  async #looking<Claimed extends { deviceId: string }>(
    wants: readonly runClaims.Want[],
    byDevice: ReadonlyMap<string, Seat>,
    kind: WorkKind,
    claim: () => Promise<Claimed[]>,
  ): Promise<Claimed[]> {
    const setAll = (value: boolean) => {
      for (const want of wants) {
        const isDevice = want.kinds === null;
        // Runs before their due time may wait for a device that was asked for due runs only. A run
        // missing for a worker may be locked by another replica's claim, which may release the run
        // when it has enough.
        const isTold = kind === "turn" || (isDevice && want.isAhead);
        if (isTold) seatOf(byDevice, want).mayHave[kind] = value;
      }
    };
    // Cleared before the claim: an announcement during the claim sets the flag again.
    setAll(false);
    let claimed: Claimed[];
    try {
      claimed = await claim();
    } catch (error) {
      setAll(true);
      throw error;
    }
    const given = new Map<string, number>();
    for (const { deviceId } of claimed) given.set(deviceId, (given.get(deviceId) ?? 0) + 1);
    for (const want of wants) {
      const seat = seatOf(byDevice, want);
      if ((given.get(want.deviceId) ?? 0) < want.slots) {
        this.#options.onLess?.(seat, kind);
        continue;
      }
      seat.mayHave[kind] = true;
      // A seat with room beyond its share is served again, after all waiting seats.
      this.#again(seat);
    }
    return claimed;
  }

  async #serveRuns(wants: readonly runClaims.Want[], byDevice: ReadonlyMap<string, Seat>): Promise<void> {
    const startedAt = performance.now();
    const claimed = await this.#looking(wants, byDevice, "run", () =>
      runClaims.claim(this.#options.db, wants),
    );
    const claimMs = performance.now() - startedAt;
    this.#options.onBatch?.(wants.length, claimMs);
    const unusable = this.hand(claimed, byDevice, claimMs);
    if (unusable.length > 0) await this.fail(unusable, byDevice);
  }

  /** Delivers claimed runs to their seats; returns the runs that no device can execute. */
  hand(
    claimed: readonly runClaims.ClaimedRun[],
    byDevice: ReadonlyMap<string, Seat>,
    claimMs: number,
  ): Unusable[] {
    const unusable: Unusable[] = [];
    for (const run of claimed) {
      const reason = whyUnusable(run);
      if (reason) unusable.push({ run, reason });
      else seatOf(byDevice, run).deliver(run, claimMs);
    }
    return unusable;
  }

  /** R8: fails the run of a payload that cannot be executed, once, and affects nothing else. */
  async fail(unusable: readonly Unusable[], byDevice: ReadonlyMap<string, Seat>): Promise<void> {
    const settled = await transaction(this.#options.db, (tx) =>
      settleWithEvents(
        tx,
        unusable.map(({ run, reason }) => ({
          orgId: run.orgId,
          workId: run.runId,
          attemptToken: run.attemptToken,
          deviceId: null,
          action: "finish",
          status: "failed",
          reason,
        })),
        this.#options.policy,
      ),
    );
    this.#options.doorbell.settled(settled);
    // The slots were never used; work behind the failed runs is claimed now.
    for (const { run } of unusable) {
      const seat = seatOf(byDevice, run);
      seat.mayHave.run = true;
      this.#again(seat);
    }
  }
}

/** The seat of a device that the claim asked for. */
function seatOf(byDevice: ReadonlyMap<string, Seat>, { deviceId }: { deviceId: string }): Seat {
  const seat = byDevice.get(deviceId);
  if (!seat) throw new Error(`a claim has work for device ${deviceId}, which was not asked for`);
  return seat;
}

type Unusable = { run: runClaims.ClaimedRun; reason: string };

const wantOf = ({ orgId, deviceId, epoch, sessionId, kinds }: Seat) => ({
  ...{ orgId, deviceId, epoch, sessionId },
  kinds,
});

/** Why a claimed run cannot be handed to a device, if so. */
function whyUnusable(run: runClaims.ClaimedRun): string | undefined {
  if (run.windowStart >= run.windowEnd) {
    return `the run's window is empty: it starts at ${run.windowStart.toISOString()} and ends at ${run.windowEnd.toISOString()}`;
  }
  if (run.prompt === null) return `version ${run.watcherVersion} of the watcher does not exist`;
  if (run.agentSettings === null)
    return `version ${run.agentVersion} of agent "${run.agentId}" does not exist`;
  return undefined;
}
