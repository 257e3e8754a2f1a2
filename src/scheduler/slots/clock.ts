import { uptime } from "node:os";
import type * as jumps from "../../store/work/watchers/clock-jumps.ts";
import type { Logger } from "../../telemetry/log.ts";

/**
 * Judges the database's clock, the reference for due times, silence and age. Each replica compares
 * the database's clock with its own monotonic clock.
 *
 *   steady    both clocks advanced together
 *   moved     forward by up to an hour in all within an hour, or back by any time: accepted;
 *             silence is ignored for a TTL
 *   in doubt  forward by more. Until the doubt is resolved nothing is deleted by age, no due slots
 *             are recorded, and nothing is reaped or expired
 *
 *   steady ──jump > 1 h──▶ in doubt ──gone, refuted, confirmed, accepted──▶ moved ──TTL──▶ steady
 *
 * A doubt ends when the clock goes back (gone); when another replica reports that its own clocks
 * saw no jump (refuted: the first replica stood still); when a person confirms the clock
 * (confirmed, by `pinion doctor --confirm-clock`); or, under the policy `wait`, when the jump has
 * persisted (accepted).
 */

export type ClockPolicy = "confirm" | "wait" | "ignore";

/** Milliseconds of departure that NTP slewing or a slow answer may cause. */
export const steadyMsMax = 2_000;
/** A longer jump forward is in doubt, and so are several within {@link movesAgeMsMax} together. */
export const jumpMsMin = 3_600_000;
/** Age in milliseconds up to which accepted moves of the clock count with the next one. */
const movesAgeMsMax = 3_600_000;

/**
 * A reading of the database's clock, between two readings of the monotonic clock, in milliseconds.
 */
export type ClockReading = { databaseMs: number; sentAtMs: number; receivedAtMs: number };

/**
 * The departure of the database's clock, in milliseconds, from its expected value had both clocks
 * advanced together; positive: ahead. 0 if the round trip explains the departure. `offsetMs`:
 * database's clock less monotonic clock.
 */
export function departure(offsetMs: number, reading: ClockReading): number {
  const { databaseMs, sentAtMs, receivedAtMs } = reading;
  const [earliest, latest] = [offsetMs + sentAtMs, offsetMs + receivedAtMs];
  if (databaseMs > latest) return databaseMs - latest;
  return Math.min(0, databaseMs - earliest);
}

/**
 * The verdict on a departure. `movedMs`: by how much the clock has moved forward within the last
 * hour, in moves that were accepted; a clock in doubt has departed by both together.
 */
export function judge(departureMs: number, movedMs = 0): "steady" | "forward" | "back" | "in_doubt" {
  if (Math.abs(departureMs) <= steadyMsMax) return "steady";
  if (departureMs < 0) return "back";
  return departureMs + movedMs <= jumpMsMin ? "forward" : "in_doubt";
}

/** The moves forward of a clock that were accepted within the last hour. */
class Moves {
  /** Oldest first. */
  #moves: { byMs: number; atMs: number }[] = [];

  add(byMs: number, atMs: number): void {
    this.#moves.push({ byMs, atMs });
  }

  /** Milliseconds of all moves. */
  sum(nowMs: number): number {
    this.#moves = this.#moves.filter(({ atMs }) => nowMs - atMs <= movesAgeMsMax);
    return this.#moves.reduce((sum, { byMs }) => sum + byMs, 0);
  }

  clear(): void {
    this.#moves = [];
  }
}

/** Age in milliseconds up to which loops that ask at the same moment share a check. */
export const sharedCheckMs = 100;

/** The database's clock is in doubt; all work that depends on the clock waits. */
export class ClockInDoubt extends Error {
  override name = "ClockInDoubt";
}

export type Clock = {
  /**
   * Checks a time that a statement took from the database's clock; `sentAtMs`: the time of sending,
   * by `elapsedMs`. Throws {@link ClockInDoubt}, also if the clock has been steady for less than
   * `steadyMsMin` milliseconds, and the transaction is rolled back. Costs no round trip.
   */
  require(now: Date, sentAtMs: number, steadyMsMin?: number): void;
  /**
   * Reads and checks the clock, unless a check has ended in the last `ageMsMax` milliseconds
   * (default 0). `settledForMs`: milliseconds for which the clock has been steady.
   */
  check(ageMsMax?: number): Promise<{ isInDoubt: boolean; settledForMs: number }>;
  /** Whether the database's clock is in doubt if it says this now, in milliseconds since 1970. */
  doubts(databaseMs: number): boolean;
  /** Milliseconds of the jump in doubt; 0 without doubt. */
  doubtMs(): number;
  /** Reports that the clock has gone back: plans made by it must be checked. */
  onBack(listener: () => void): void;
  stop(): Promise<void>;
};

/** Milliseconds by a clock that is never set and continues during sleep of the machine. */
export const elapsedMs = () => uptime() * 1_000;

/**
 * Rows that `lock` judged by the database's clock, each with the statement's time. A check before
 * the transaction is not enough: the statement may wait for a connection, and the clock be set
 * meanwhile.
 */
export async function lockedByClock<T extends { now: Date }>(
  clock: Pick<Clock, "require"> | undefined,
  { sentAtMs, steadyMsMin }: { sentAtMs: number; steadyMsMin?: number },
  lock: Promise<T[]>,
): Promise<T[]> {
  const rows = await lock;
  if (rows[0]) clock?.require(rows[0].now, sentAtMs, steadyMsMin);
  return rows;
}

/**
 * The result of a pass; undefined if it met a clock in doubt, and its transaction was rolled back.
 */
export async function unlessInDoubt<T>(pass: Promise<T>): Promise<T | undefined> {
  try {
    return await pass;
  } catch (error) {
    if (error instanceof ClockInDoubt) return undefined;
    throw error;
  }
}

/** A jump in doubt. `isNoted`: the database knows the doubt. */
export type Doubt = { byMs: number; sinceMs: number; witness: jumps.Witness; isNoted: boolean };

/**
 * The replica's view of the database's clock, in memory: judges each reading. clock-watch.ts takes
 * readings, tells the database of doubts, and ends them.
 */
export class ClockView {
  readonly #options: { log: Logger; policy: ClockPolicy; elapsed: () => number };
  readonly #startedAt: number;
  /** The database's clock minus the replica's monotonic clock. */
  #offsetMs = 0;
  readonly #moves = new Moves();
  #doubt: Doubt | undefined;
  #movedAt = Number.NEGATIVE_INFINITY;
  /** The clock went back; the next check reports it to the database and to the schedules. */
  hasGoneBack = false;
  /** Called by `require` for a doubt that the database does not know. */
  onNews: () => void = () => {};

  constructor(options: { log: Logger; policy: ClockPolicy; elapsed: () => number }) {
    this.#options = options;
    this.#startedAt = options.elapsed();
  }

  get doubt(): Doubt | undefined {
    return this.#doubt;
  }

  get settledForMs(): number {
    return this.#options.elapsed() - Math.max(this.#movedAt, this.#startedAt);
  }

  doubts(databaseMs: number): boolean {
    const { elapsed, policy } = this.#options;
    const at = elapsed();
    const byMs = departure(this.#offsetMs, { databaseMs, sentAtMs: at, receivedAtMs: at });
    return policy !== "ignore" && judge(byMs, this.#moves.sum(at)) === "in_doubt";
  }

  /** See {@link Clock}. */
  require(now: Date, sentAtMs: number, steadyMsMin = 0): void {
    const reading = { databaseMs: now.getTime(), sentAtMs, receivedAtMs: this.#options.elapsed() };
    if (!this.look(reading)) {
      if (this.settledForMs >= steadyMsMin) return;
      throw new ClockInDoubt(`the database's clock was set ${Math.round(this.settledForMs)} ms ago`);
    }
    if (this.#doubt && !this.#doubt.isNoted) this.onNews();
    throw new ClockInDoubt(`the database's clock says ${now.toISOString()}, which is in doubt`);
  }

  /** Checks and remembers a reading; returns whether work that depends on the clock has to wait. */
  look(reading: ClockReading): boolean {
    const { log, elapsed, policy } = this.#options;
    const doubt = this.#doubt;
    const byMs = departure(this.#offsetMs, reading);
    const movedMs = this.#moves.sum(elapsed());
    const verdict = judge(byMs, movedMs);
    if (verdict === "in_doubt" && policy !== "ignore") {
      this.expectWithout(movedMs);
      this.doubtNow(byMs + movedMs, doubt?.witness ?? "monotonic");
      return true;
    }
    if (verdict === "steady" && !doubt) return false;
    this.#movedAt = elapsed();
    if (doubt) {
      log.warn({ wasMs: doubt.byMs }, "the database's clock has gone back");
      this.#doubt = undefined;
      this.hasGoneBack = true;
    } else {
      log.warn({ byMs }, "the database's clock was set");
      if (verdict === "back") this.hasGoneBack = true;
    }
    if (verdict === "forward") this.#moves.add(byMs, reading.receivedAtMs);
    else this.#moves.clear();
    this.adopt(reading);
    return false;
  }

  adopt({ databaseMs, receivedAtMs }: ClockReading): void {
    this.#offsetMs = databaseMs - receivedAtMs;
  }

  /** Expects the time that the clock would show without a jump, or without several moves. */
  expectWithout(byMs: number): void {
    this.#offsetMs -= byMs;
    this.#moves.clear();
  }

  doubtNow(byMs: number, witness: jumps.Witness): Doubt {
    this.#doubt ??= { byMs, sinceMs: this.#options.elapsed(), witness, isNoted: false };
    this.#doubt.byMs = byMs;
    return this.#doubt;
  }

  trust(reading: ClockReading): void {
    this.#doubt = undefined;
    this.#movedAt = this.#options.elapsed();
    this.#moves.clear();
    this.adopt(reading);
  }
}
