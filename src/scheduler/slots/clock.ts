import { uptime } from "node:os";
import { looksAlone } from "../../store/pg/looks.ts";
import { type Loop, startLoop } from "../loop.ts";
import { ClockWatch, type Options } from "./clock-watch.ts";

/** Milliseconds between checks by each replica. */
const checkEveryMs = 5_000;
/**
 * Age in milliseconds up to which loops that ask at the same moment share a check.
 */
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
 * Rows that `lock` judged by the database's clock, each with the statement's time. A check before the
 * transaction is not enough: the statement may wait for a connection, and the clock be set meanwhile.
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

/** The result of a pass; undefined if it met a clock in doubt, and its transaction was rolled back. */
export async function unlessInDoubt<T>(pass: Promise<T>): Promise<T | undefined> {
  try {
    return await pass;
  } catch (error) {
    if (error instanceof ClockInDoubt) return undefined;
    throw error;
  }
}

/**
 * Judges the clock once, and then every five seconds. Rejects if the database is away at the start.
 */
export async function startClock(options: Options): Promise<Clock> {
  const { elapsed = elapsedMs, looks = looksAlone(options.db) } = options;
  const watch = new ClockWatch({ ...options, elapsed, looks });
  await watch.begin();
  const loop: Loop = startLoop({
    name: "clock",
    log: options.log,
    async pass() {
      // The checks of other loops count.
      await watch.check(checkEveryMs - sharedCheckMs);
      return checkEveryMs - watch.checkedAgoMs;
    },
  });
  return {
    require(now, sentAtMs, steadyMsMin = 0) {
      if (!watch.look({ databaseMs: now.getTime(), sentAtMs, receivedAtMs: elapsed() })) {
        if (watch.settledForMs >= steadyMsMin) return;
        throw new ClockInDoubt(`the database's clock was set ${Math.round(watch.settledForMs)} ms ago`);
      }
      if (watch.hasNews) {
        watch.wantCheck();
        loop.poke();
      }
      throw new ClockInDoubt(`the database's clock says ${now.toISOString()}, which is in doubt`);
    },
    async check(ageMsMax) {
      await watch.check(ageMsMax);
      return { isInDoubt: watch.isInDoubt, settledForMs: watch.settledForMs };
    },
    doubts: (databaseMs) => watch.doubts(databaseMs),
    doubtMs: () => watch.doubtMs,
    onBack: (listener) => watch.onBack(listener),
    stop: () => loop.stop(),
  };
}
