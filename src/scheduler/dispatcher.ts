import type { Logger } from "../log.ts";
import * as attempts from "../store/attempts.ts";
import { type Db, isUnavailable, transaction } from "../store/database.ts";
import type { FailurePolicy } from "../store/settlements.ts";
import type { Doorbell } from "./doorbell.ts";
import { settleWithEvents } from "./settle.ts";

/** Where claimed runs go: a device session of this replica. */
export interface Seat {
  readonly orgId: string;
  readonly deviceId: string;
  readonly epoch: number;
  /** How many more attempts it takes now; 0 when it is closed. */
  freeSlots(): number;
  /** Takes an attempt, whose claim took `claimMs`. The slot is used from here on. */
  deliver(run: attempts.ClaimedRun, claimMs: number): void;
}

/** Claims work for the seats that were woken, in batches: one statement serves all that were woken meanwhile. */
export type Dispatcher = {
  /** Something happened that may give this seat work: a run was written, a slot freed, a session opened. */
  wake(seat: Seat): void;
  idle(): Promise<void>;
};

/** Seats per claim statement. */
const seatsPerBatchMax = 1_000;

export function createDispatcher(options: {
  db: Db;
  policy: FailurePolicy;
  doorbell: Doorbell;
  log: Logger;
  /** Told of each claim: for how many seats, and how long it took. */
  onBatch?: (size: number, ms: number) => void;
}): Dispatcher {
  const { db, log } = options;
  const woken = new Set<Seat>();
  let running: Promise<void> | undefined;

  async function drain(): Promise<void> {
    // Those that are woken in the same turn of the event loop share the first statement.
    await Promise.resolve();
    while (woken.size > 0) {
      const seats: Seat[] = [];
      for (const seat of woken) {
        woken.delete(seat);
        if (seat.freeSlots() > 0) seats.push(seat);
        if (seats.length === seatsPerBatchMax) break;
      }
      if (seats.length === 0) continue;
      try {
        await serve(seats);
      } catch (error) {
        // The sweep wakes every seat again.
        log[isUnavailable(error) ? "warn" : "error"]({ err: error, seats: seats.length }, "a claim failed");
      }
    }
    // In the same turn as the last look: a seat that is woken later starts anew.
    running = undefined;
  }

  async function serve(seats: Seat[]): Promise<void> {
    const byDevice = new Map(seats.map((seat) => [seat.deviceId, seat]));
    const startedAt = performance.now();
    const claimed = await attempts.claim(
      db,
      [...byDevice.values()].map((seat) => ({
        orgId: seat.orgId,
        deviceId: seat.deviceId,
        epoch: seat.epoch,
        slots: seat.freeSlots(),
      })),
    );
    const claimMs = performance.now() - startedAt;
    options.onBatch?.(byDevice.size, claimMs);
    const unusable: { run: attempts.ClaimedRun; reason: string }[] = [];
    for (const run of claimed) {
      const reason = whyUnusable(run);
      if (reason) unusable.push({ run, reason });
      else byDevice.get(run.deviceId)!.deliver(run, claimMs);
    }
    if (unusable.length === 0) return;
    await fail(unusable);
    // Their slots were never used; what waits behind them is claimed now.
    for (const { run } of unusable) woken.add(byDevice.get(run.deviceId)!);
  }

  /** R8: a payload that cannot be executed fails its run, once, and touches nothing else. */
  async function fail(unusable: { run: attempts.ClaimedRun; reason: string }[]): Promise<void> {
    const settled = await transaction(db, (tx) =>
      settleWithEvents(
        tx,
        unusable.map(({ run, reason }) => ({
          orgId: run.orgId,
          runId: run.runId,
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
  }

  return {
    wake(seat) {
      woken.add(seat);
      running ??= drain();
    },
    async idle() {
      while (running) await running;
    },
  };
}

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
