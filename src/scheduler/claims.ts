import { type Db, transaction } from "../store/pg/database.ts";
import type { WorkKind } from "../store/work/attempts/active.ts";
import type { FailurePolicy } from "../store/work/attempts/settlements.ts";
import * as runClaims from "../store/work/runs/run-claims.ts";
import * as turnAttempts from "../store/work/turns/turn-attempts.ts";
import type { Logger } from "../telemetry/log.ts";
import type { Doorbell } from "./doorbell.ts";
import type { Endings } from "./endings/endings.ts";
import { settleWithEvents } from "./endings/settle.ts";

/** The target of claimed runs and turns: a device session of the replica. */
export interface Seat {
  readonly orgId: string;
  readonly deviceId: string;
  readonly epoch: number;
  readonly sessionId: string;
  /** A fleet worker's agent kinds. Null for a device. */
  readonly kinds: readonly string[] | null;
  /**
   * Whether work of a kind may wait for the seat. Set by announcements of work, cleared by a claim
   * that finds less than the seat has room for, so that a freed slot causes no claim while nothing
   * waits.
   */
  readonly mayHave: Record<WorkKind, boolean>;
  /** Number of further attempts that the seat accepts now; 0 when closed. */
  freeSlots(): number;
  /**
   * Number of further runs that the seat accepts before their due time or for a later slot; 0 for a
   * worker.
   */
  roomAhead(): number;
  /** Takes a claimed run, to start now or when due. `claimMs`: milliseconds of the claim. */
  deliver(run: runClaims.ClaimedRun, claimMs: number): void;
  /** Takes a claimed turn. */
  deliverTurn(turn: turnAttempts.ClaimedTurn): void;
}

/**
 * Maximum attempts per claim statement, shared by its seats, so that a seat with many free slots
 * does not delay the others.
 */
const attemptsPerBatchMax = 1_000;

export type ClaimsOptions = {
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

/** The claims of turns and runs for seats, and the delivery of the claimed work. */
export class Claims {
  readonly #options: ClaimsOptions;
  /** Has a seat served again, after all waiting seats. */
  readonly #again: (seat: Seat) => void;

  constructor(options: ClaimsOptions, again: (seat: Seat) => void) {
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
export function whyUnusable(run: runClaims.ClaimedRun): string | undefined {
  if (run.windowStart >= run.windowEnd) {
    return `the run's window is empty: it starts at ${run.windowStart.toISOString()} and ends at ${run.windowEnd.toISOString()}`;
  }
  if (run.prompt === null) return `version ${run.watcherVersion} of the watcher does not exist`;
  if (run.agentSettings === null)
    return `version ${run.agentVersion} of agent "${run.agentId}" does not exist`;
  return undefined;
}
