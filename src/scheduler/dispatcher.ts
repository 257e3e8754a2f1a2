import type { Logger } from "../log.ts";
import { type Db, isUnavailable, transaction } from "../store/pg/database.ts";
import * as attempts from "../store/work/attempts.ts";
import type { SessionName } from "../store/work/presence.ts";
import type { FailurePolicy } from "../store/work/settlements.ts";
import * as turnAttempts from "../store/work/turn-attempts.ts";
import type { Doorbell } from "./doorbell.ts";
import { settleWithEvents } from "./settle.ts";
import type { TurnEndings } from "./turn-endings.ts";

/** Where claimed runs go: a device session of this replica. */
export interface Seat {
  readonly orgId: string;
  readonly deviceId: string;
  readonly epoch: number;
  readonly sessionId: string;
  /** Of a fleet worker: the agent kinds that it offers. Null for a device. */
  readonly kinds: readonly string[] | null;
  /**
   * Runs, or turns, may wait for it. Set by whatever says so, cleared by a claim that finds fewer than there is room for: so a
   * slot that becomes free asks for nothing where nothing waits.
   */
  mayHaveRuns: boolean;
  mayHaveTurns: boolean;
  /** How many more attempts it takes now; 0 when it is closed. */
  freeSlots(): number;
  /** How many more runs it takes that are not due yet, or that wait here for a slot; 0 for a worker. */
  roomAhead(): number;
  /** Takes an attempt, whose claim took `claimMs`: for now, or until it is due. */
  deliver(run: attempts.ClaimedRun, claimMs: number): void;
  /** The same for a turn. */
  deliverTurn(turn: turnAttempts.ClaimedTurn): void;
}

/** Claims work for the seats that were woken, in batches: one statement serves all that were woken meanwhile. */
export type Dispatcher = {
  /** Something happened that may give this seat work: a slot freed, a session opened, or what its `mayHave…` says. */
  wake(seat: Seat): void;
  /**
   * The sessions that may claim runs as they are recorded, for each run that of its seat; undefined for a run without one, and
   * for seats without room, that another claim serves at this moment, or that older work may wait for: whoever
   * writes these runs wakes their seats after the commit. Until the answer is delivered or dropped, nothing else is claimed for the seats.
   */
  hold(seats: readonly (Seat | undefined)[]): HeldSeats;
  idle(): Promise<void>;
};

/** Seats that are spoken for by a transaction that is not committed yet. One of the two is called, once. */
export type HeldSeats = {
  claimants: readonly (SessionName | undefined)[];
  /** The transaction was committed: the seats get what was claimed for them. */
  deliver(claimed: readonly attempts.ClaimedRun[]): void;
  /** It was not. */
  drop(): void;
};

/** Seats per claim statement. */
const seatsPerBatchMax = 1_000;
/** Attempts per claim statement; its seats share them, so that one with many free slots does not hold up the others. */
const attemptsPerBatchMax = 1_000;

export function createDispatcher(options: {
  db: Db;
  policy: FailurePolicy;
  doorbell: Doorbell;
  turns: { timers: turnAttempts.TurnTimers; endings: TurnEndings };
  log: Logger;
  /** Told of each claim: for how many seats, and how long it took. */
  onBatch?: (size: number, ms: number) => void;
}): Dispatcher {
  const { db, log } = options;
  const woken = new Set<Seat>();
  /** Seats of claims that are under way: their free slots are spoken for. */
  const engaged = new Set<Seat>();
  /** What goes on beside the claims. */
  const underWay = new Set<Promise<void>>();
  let running: Promise<void> | undefined;

  function release(seats: Iterable<Seat>): void {
    for (const seat of seats) engaged.delete(seat);
    if (woken.size > 0) running ??= drain();
  }

  async function drain(): Promise<void> {
    // Those that are woken in the same turn of the event loop share the first statement.
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
      // Those that are left wait for the end of another claim, which asks for the next look.
      if (seats.length === 0) break;
      for (const seat of seats) engaged.add(seat);
      try {
        await serve(seats);
      } catch (error) {
        // The sweep finds what waits.
        log[isUnavailable(error) ? "warn" : "error"]({ err: error, seats: seats.length }, "a claim failed");
      }
      for (const seat of seats) engaged.delete(seat);
    }
    // In the same turn as the last look: a seat that is woken later starts anew.
    running = undefined;
  }

  async function serve(seats: Seat[]): Promise<void> {
    const byDevice = new Map(seats.map((seat) => [seat.deviceId, seat]));
    const share = Math.max(1, Math.floor(attemptsPerBatchMax / seats.length));
    const wantsOf = (some: readonly Seat[], isForRuns: boolean) =>
      some.flatMap((seat) => {
        // A device takes what is not due yet while it has room for all that; otherwise what is due alone.
        const roomAhead = isForRuns ? seat.roomAhead() : 0;
        const slots = Math.min(roomAhead || seat.freeSlots(), share);
        return slots > 0 ? [{ ...wantOf(seat), slots, isAhead: roomAhead > 0 }] : [];
      });
    // Somebody waits for a turn's reply, so turns come first. Each part is delivered before the next one is claimed, so
    // that a failure loses nobody's answer.
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
      // R8: it can be executed by nobody.
      const { orgId, turnId, attemptToken, agentId, agentVersion } = turn;
      const reason = `version ${agentVersion} of agent "${agentId}" does not exist`;
      await options.turns.endings.end({
        ...{ orgId, turnId, attemptToken, reason },
        ...{ status: "failed", isRetryable: false },
      });
      byDevice.get(turn.deviceId)!.mayHaveTurns = true;
    }
  }

  /** Claims, and remembers for which seats there may be more. */
  async function looking<Claimed extends { deviceId: string }>(
    wants: readonly attempts.Want[],
    byDevice: ReadonlyMap<string, Seat>,
    mayHave: "mayHaveRuns" | "mayHaveTurns",
    claim: () => Promise<Claimed[]>,
  ): Promise<Claimed[]> {
    const setAll = (value: boolean) => {
      for (const { deviceId, kinds, isAhead } of wants) {
        // Runs that are not due yet may wait for a device that was asked for due ones only.
        if (mayHave === "mayHaveRuns" && kinds === null && !isAhead) continue;
        // A run that a worker does not get may be locked by another replica's claim, which leaves it when it has enough.
        if (kinds === null || mayHave === "mayHaveTurns") byDevice.get(deviceId)![mayHave] = value;
      }
    };
    // Before the look: what rings meanwhile sets it again.
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
      // One that has room beyond its share comes again, behind all that wait.
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

  /** Gives the seats what was claimed for them; answers with what nobody can execute. */
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

  /** R8: a payload that cannot be executed fails its run, once, and touches nothing else. */
  async function fail(unusable: readonly Unusable[], byDevice: ReadonlyMap<string, Seat>): Promise<void> {
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
    // Their slots were never used; what waits behind them is claimed now.
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
