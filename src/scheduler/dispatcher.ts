import type { Logger } from "../log.ts";
import { type Db, isUnavailable, transaction } from "../store/pg/database.ts";
import * as attempts from "../store/work/attempts.ts";
import type { SessionName } from "../store/work/presence.ts";
import type { FailurePolicy } from "../store/work/settlements.ts";
import * as turnAttempts from "../store/work/turn-attempts.ts";
import type { Doorbell } from "./doorbell.ts";
import { settleWithEvents } from "./settle.ts";
import type { TurnEndings } from "./turn-endings.ts";

/** The target of claimed runs and turns: a device session of the replica. */
export interface Seat {
  readonly orgId: string;
  readonly deviceId: string;
  readonly epoch: number;
  readonly sessionId: string;
  /** A fleet worker's agent kinds. Null for a device. */
  readonly kinds: readonly string[] | null;
  /**
   * Whether runs, or turns, may wait for the seat. Set by announcements of work, cleared by a claim
   * that finds less than the seat has room for, so that a freed slot causes no claim while nothing
   * waits.
   */
  mayHaveRuns: boolean;
  mayHaveTurns: boolean;
  /** Number of further attempts that the seat accepts now; 0 when closed. */
  freeSlots(): number;
  /**
   * Number of further runs that the seat accepts before their due time or for a later slot; 0 for a
   * worker.
   */
  roomAhead(): number;
  /** Takes a claimed run, to start now or when due. `claimMs`: milliseconds of the claim. */
  deliver(run: attempts.ClaimedRun, claimMs: number): void;
  /** Takes a claimed turn. */
  deliverTurn(turn: turnAttempts.ClaimedTurn): void;
}

/**
 * Claims work for seats that were woken, in batches: one statement serves all seats woken during
 * the previous statement.
 *
 *   idle ──wake──▶ woken ──room, and work may wait──▶ engaged ──claim──▶ delivered ──▶ idle
 *                    ▲                                   │
 *                    └─────── more than its share ───────┘
 */
export type Dispatcher = {
  /** Reports that a seat may get work: a slot freed, a session opened, or a `mayHave…` set. */
  wake(seat: Seat): void;
  /**
   * Chooses the sessions that may claim runs while they are recorded: for each run the session of
   * its seat. Undefined for a run without a seat, and for seats without room, in another claim, or
   * with possibly older work; the writer of these runs wakes their seats after the commit. Nothing
   * else is claimed for the chosen seats until `deliver` or `drop`.
   */
  hold(seats: readonly (Seat | undefined)[]): HeldSeats;
  idle(): Promise<void>;
};

/**
 * Seats reserved for a transaction that is not committed yet. The caller calls `deliver` or `drop`,
 * once.
 */
export type HeldSeats = {
  claimants: readonly (SessionName | undefined)[];
  /** After the commit: delivers the claimed runs to the seats. */
  deliver(claimed: readonly attempts.ClaimedRun[]): void;
  /** After a rollback: releases the seats. */
  drop(): void;
};

/** Seats per claim statement. */
const seatsPerBatchMax = 1_000;
/**
 * Maximum attempts per claim statement, shared by its seats, so that a seat with many free slots
 * does not delay the others.
 */
const attemptsPerBatchMax = 1_000;

export function createDispatcher(options: {
  db: Db;
  policy: FailurePolicy;
  doorbell: Doorbell;
  turns: { timers: turnAttempts.TurnTimers; endings: TurnEndings };
  log: Logger;
  /** Reports each claim: the number of seats, and the milliseconds taken. */
  onBatch?: (size: number, ms: number) => void;
}): Dispatcher {
  const { db, log } = options;
  const woken = new Set<Seat>();
  /** Seats in running claims: their free slots are reserved. */
  const engaged = new Set<Seat>();
  /** Work that runs concurrently with the claims. */
  const underWay = new Set<Promise<void>>();
  let running: Promise<void> | undefined;

  function release(seats: Iterable<Seat>): void {
    for (const seat of seats) engaged.delete(seat);
    if (woken.size > 0) running ??= drain();
  }

  async function drain(): Promise<void> {
    // Seats woken in the same turn of the event loop share the first statement.
    await Promise.resolve();
    while (true) {
      const seats: Seat[] = [];
      for (const seat of woken) {
        if (engaged.has(seat)) continue;
        woken.delete(seat);
        if (
          (seat.mayHaveRuns && (seat.freeSlots() > 0 || seat.roomAhead() > 0)) ||
          (seat.mayHaveTurns && seat.freeSlots() > 0)
        )
          seats.push(seat);
        if (seats.length === seatsPerBatchMax) break;
      }
      // The remaining seats are in another claim, whose end starts the next check.
      if (seats.length === 0) break;
      for (const seat of seats) engaged.add(seat);
      try {
        await serve(seats);
      } catch (error) {
        // The sweep finds the waiting work.
        log[isUnavailable(error) ? "warn" : "error"]({ err: error, seats: seats.length }, "a claim failed");
      }
      for (const seat of seats) engaged.delete(seat);
    }
    // In the same turn as the last check: a seat woken later starts a new drain.
    running = undefined;
  }

  async function serve(seats: Seat[]): Promise<void> {
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
    for (const part of attempts.partsOf(
      wantsOf(
        seats.filter((seat) => seat.mayHaveTurns),
        false,
      ),
    )) {
      await serveTurns(part, byDevice);
    }
    for (const part of attempts.partsOf(
      wantsOf(
        seats.filter((seat) => seat.mayHaveRuns),
        true,
      ),
    )) {
      await serveRuns(part, byDevice);
    }
  }

  async function serveTurns(
    wants: readonly attempts.Want[],
    byDevice: ReadonlyMap<string, Seat>,
  ): Promise<void> {
    const claimed = await looking(wants, byDevice, "mayHaveTurns", () =>
      turnAttempts.claim(db, wants, options.turns.timers),
    );
    for (const turn of claimed) {
      if (turn.agentSettings !== null) {
        byDevice.get(turn.deviceId)!.deliverTurn(turn);
        continue;
      }
      // R8: no worker can execute the turn.
      const { orgId, turnId, attemptToken, agentId, agentVersion } = turn;
      const reason = `version ${agentVersion} of agent "${agentId}" does not exist`;
      await options.turns.endings.end({
        ...{ orgId, turnId, attemptToken, reason },
        ...{ status: "failed", isRetryable: false },
      });
      byDevice.get(turn.deviceId)!.mayHaveTurns = true;
    }
  }

  /** Claims, and updates which seats may have more work. */
  async function looking<Claimed extends { deviceId: string }>(
    wants: readonly attempts.Want[],
    byDevice: ReadonlyMap<string, Seat>,
    mayHave: "mayHaveRuns" | "mayHaveTurns",
    claim: () => Promise<Claimed[]>,
  ): Promise<Claimed[]> {
    const setAll = (value: boolean) => {
      for (const { deviceId, kinds, isAhead } of wants) {
        // Runs before their due time may wait for a device that was asked for due runs only.
        if (mayHave === "mayHaveRuns" && kinds === null && !isAhead) continue;
        // A run missing here may be locked by another replica's claim, which may release the run
        // when it has enough.
        if (kinds === null || mayHave === "mayHaveTurns") byDevice.get(deviceId)![mayHave] = value;
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
    for (const { deviceId, slots } of wants) {
      if ((given.get(deviceId) ?? 0) < slots) continue;
      const seat = byDevice.get(deviceId)!;
      seat[mayHave] = true;
      // A seat with room beyond its share is served again, after all waiting seats.
      woken.add(seat);
    }
    return claimed;
  }

  async function serveRuns(
    wants: readonly attempts.Want[],
    byDevice: ReadonlyMap<string, Seat>,
  ): Promise<void> {
    const startedAt = performance.now();
    const claimed = await looking(wants, byDevice, "mayHaveRuns", () => attempts.claim(db, wants));
    const claimMs = performance.now() - startedAt;
    options.onBatch?.(wants.length, claimMs);
    const unusable = hand(claimed, byDevice, claimMs);
    if (unusable.length > 0) await fail(unusable, byDevice);
  }

  /** Delivers claimed runs to their seats; returns the runs that no device can execute. */
  function hand(
    claimed: readonly attempts.ClaimedRun[],
    byDevice: ReadonlyMap<string, Seat>,
    claimMs: number,
  ): Unusable[] {
    const unusable: Unusable[] = [];
    for (const run of claimed) {
      const reason = whyUnusable(run);
      if (reason) unusable.push({ run, reason });
      else byDevice.get(run.deviceId)!.deliver(run, claimMs);
    }
    return unusable;
  }

  /** R8: fails the run of a payload that cannot be executed, once, and affects nothing else. */
  async function fail(unusable: readonly Unusable[], byDevice: ReadonlyMap<string, Seat>): Promise<void> {
    const settled = await transaction(db, (tx) =>
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
        options.policy,
      ),
    );
    options.doorbell.settled(settled);
    // The slots were never used; work behind the failed runs is claimed now.
    for (const { run } of unusable) {
      const seat = byDevice.get(run.deviceId)!;
      seat.mayHaveRuns = true;
      woken.add(seat);
    }
  }

  return {
    wake(seat) {
      woken.add(seat);
      running ??= drain();
    },
    hold(seats) {
      const held = new Map<Seat, number>();
      const claimants = seats.map((seat) => {
        if (!seat || seat.mayHaveTurns || seat.mayHaveRuns) return undefined;
        const before = held.get(seat);
        if (before === undefined && engaged.has(seat)) return undefined;
        if ((before ?? 0) >= seat.roomAhead()) return undefined;
        held.set(seat, (before ?? 0) + 1);
        engaged.add(seat);
        const { orgId, deviceId, epoch, sessionId } = seat;
        return { orgId, deviceId, epoch, sessionId };
      });
      const startedAt = performance.now();
      return {
        claimants,
        deliver(claimed) {
          const byDevice = new Map([...held.keys()].map((seat) => [seat.deviceId, seat]));
          const tookMs = performance.now() - startedAt;
          if (held.size > 0) options.onBatch?.(held.size, tookMs);
          const unusable = hand(claimed, byDevice, tookMs);
          release(held.keys());
          if (unusable.length === 0) return;
          const failing = fail(unusable, byDevice)
            .catch((error: unknown) =>
              log.error({ err: error }, "runs that nobody can execute were not failed"),
            )
            .finally(() => {
              underWay.delete(failing);
              release([]);
            });
          underWay.add(failing);
        },
        drop() {
          release(held.keys());
        },
      };
    },
    async idle() {
      while (running || underWay.size > 0) await (running ?? Promise.all(underWay));
    },
  };
}

type Unusable = { run: attempts.ClaimedRun; reason: string };

const wantOf = ({ orgId, deviceId, epoch, sessionId, kinds }: Seat) => ({
  ...{ orgId, deviceId, epoch, sessionId },
  kinds,
});

/** Why a claimed run cannot be handed to a device, if so. */
export function whyUnusable(run: attempts.ClaimedRun): string | undefined {
  if (run.windowStart >= run.windowEnd) {
    return `the run's window is empty: it starts at ${run.windowStart.toISOString()} and ends at ${run.windowEnd.toISOString()}`;
  }
  if (run.prompt === null) return `version ${run.watcherVersion} of the watcher does not exist`;
  if (run.agentSettings === null)
    return `version ${run.agentVersion} of agent "${run.agentId}" does not exist`;
  return undefined;
}
