import { type Db, transaction } from "../../store/pg/database.ts";
import { type Looks, looksAlone } from "../../store/pg/looks.ts";
import * as attempts from "../../store/work/attempts/attempts.ts";
import type { FailurePolicy, Settled, Settlement } from "../../store/work/attempts/settlements.ts";
import * as runs from "../../store/work/runs/runs.ts";
import { lookOverdue } from "../../store/work/turns/lost-turns.ts";
import type { RecordedRun } from "../../store/work/watchers/slot-rows.ts";
import type { Logger } from "../../telemetry/log.ts";
import type { Doorbell } from "../doorbell.ts";
import { type Loop, startLoop } from "../loop.ts";
import { type Clock, elapsedMs, lockedByClock, sharedCheckMs, unlessInDoubt } from "../slots/clock.ts";
import { settleEachWithEvents } from "./settle-each.ts";
import { sweepTurnsOnce } from "./turn-sweep.ts";

/**
 * Ends attempts without a report and runs past their start deadline, by the database's
 * clock (R7). Attempts are locked and judged in one transaction, and rows locked by another replica
 * are skipped: any number may reap at once.
 */

/** Attempts per transaction. */
const attemptsPerPassMax = 500;

/**
 * Milliseconds until a run with a withdrawn claim is offered again, because its device did not
 * answer.
 */
export const withdrawnDelayMs = 15_000;

type PassOptions = {
  policy: FailurePolicy;
  log?: Logger;
  limit?: number;
  /**
   * Checks the time by which attempts are lost and runs expired. Undefined: the time is accepted.
   */
  judge?: Pick<Clock, "require">;
};

export type Reaped = Settled & { rule: attempts.LostAttempt["rule"] };

/**
 * Reaps up to `limit` lost attempts. An attempt that the database refuses to settle is logged and
 * left (R9).
 */
export async function reapOnce(
  db: Db,
  options: PassOptions & { rules: attempts.ReapRules },
): Promise<Reaped[]> {
  // Nearly always no attempt is lost; a look then suffices.
  if (!(await looksAlone(db).ask(attempts.lookLost(options.rules)))) return [];
  const sent = { sentAtMs: elapsedMs(), steadyMsMin: options.rules.ttlMs };
  return transaction(db, async (tx) => {
    const lock = attempts.lockLost(tx, options.rules, options.limit ?? attemptsPerPassMax);
    const lost = await lockedByClock(options.judge, sent, lock);
    const rules = new Map(lost.map((attempt) => [attempt.runId, attempt.rule]));
    const { settled } = await settleEachWithEvents(tx, lost.map(settlementOf), options.policy, {
      log: options.log,
      rules,
    });
    return settled.flatMap((run) => {
      const rule = rules.get(run.runId);
      return rule ? [{ ...run, rule }] : [];
    });
  });
}

function settlementOf(lost: attempts.LostAttempt): Settlement {
  const attempt = { orgId: lost.orgId, workId: lost.runId, attemptToken: lost.attemptToken, deviceId: null };
  const silence = `${Math.round(lost.silentMs / 1000)} s`;
  if (lost.rule === "cancelled") {
    const reason = lost.cancelReason || "cancelled";
    return {
      ...attempt,
      action: "finish",
      status: "cancelled",
      reason: `${reason}; its device did not answer`,
    };
  }
  if (lost.rule === "never_accepted") {
    const reason = "claimed, but its device never accepted it";
    return { ...attempt, action: "withdraw", status: "timeout", reason };
  }
  if (lost.rule === "stream_broken" && lost.status === "claimed") {
    const reason = `pushed but not accepted; the device was not heard of for ${silence}`;
    return { ...attempt, action: "withdraw", status: "timeout", reason };
  }
  return {
    ...attempt,
    action: "finish_or_retry",
    status: "timeout",
    reason: reasons[lost.rule](silence, lost),
  };
}

const reasons: Record<
  Exclude<attempts.LostAttempt["rule"], "cancelled" | "never_accepted">,
  (silence: string, lost: attempts.LostAttempt) => string
> = {
  stream_broken: (silence) => `device lost: its stream broke and it was not heard of for ${silence}`,
  silent: (_, lost) => `attempt lost: no heartbeat for it since ${lost.lastBeatAt?.toISOString()}`,
  not_listed: () => "lost by the device: it is online, and two successive heartbeats did not list it",
  never_beat: () => "attempt lost: it was claimed and never beat",
  overdue: () => "its timeout passed and its device did not end it",
};

/** Milliseconds until the next check for runs locked by another replica. */
const heldElsewhereMs = 50;

/** Milliseconds until the next try after a refusal by the database. */
const refusedMs = 1_000;

/**
 * Skips runs that did not start by their deadline. A run that the database refuses to settle is
 * logged and left (R9).
 */
export async function expireOnce(db: Db, options: PassOptions): Promise<Settled[]> {
  return (await expire(db, options, await runs.findNextExpiryMs(db))).settled;
}

/** `nextMs`: the milliseconds until the next start deadline; undefined for none. */
async function expire(
  db: Db,
  options: PassOptions,
  nextMs: number | undefined,
): ReturnType<typeof settleEachWithEvents> {
  // Nearly always no run is past its deadline; a look then suffices.
  if (nextMs !== 0) return { settled: [], refused: [] };
  const sent = { sentAtMs: elapsedMs() };
  return transaction(db, async (tx) => {
    const lock = runs.lockExpired(tx, options.limit ?? attemptsPerPassMax);
    const expired = await lockedByClock(options.judge, sent, lock);
    return settleEachWithEvents(
      tx,
      expired.map((run) => ({
        orgId: run.orgId,
        workId: run.runId,
        attemptToken: null,
        deviceId: null,
        action: "finish",
        status: "skipped",
        skipReason: "offline_expired",
        reason: "its device did not start it before the start deadline",
      })),
      options.policy,
      { log: options.log },
    );
  });
}

type ReaperOptions = {
  db: Db;
  looks?: Looks;
  doorbell: Pick<Doorbell, "settled" | "turnsEnded">;
  log: Logger;
  rules: attempts.ReapRules;
  policy: FailurePolicy;
  intervalMs: number;
  onReaped?: (reaped: readonly Reaped[]) => void;
  judge?: Pick<Clock, "check" | "require">;
};

/**
 * Starts the reaper of runs and turns. Silence has no consequences for one TTL after the start,
 * after the database was away or its clock was set, and after the process stood still (a stopped
 * process, a suspended machine), because all work looks stale then. Absolute limits of turns apply,
 * except while the clock is in doubt.
 */
export function startReaper(options: ReaperOptions): Loop {
  const { db, rules, intervalMs, log, judge, looks = looksAlone(db) } = options;
  const { ttlMs } = rules;
  let quietUntil = performance.now() + ttlMs;
  let lastPassAt = performance.now();
  let isAway = false;

  return startLoop({
    name: "reaper",
    log,
    onUnavailable: () => {
      isAway = true;
    },
    async pass() {
      const now = performance.now();
      if (now - lastPassAt > intervalMs + ttlMs / 2) quietUntil = now + ttlMs;
      lastPassAt = now;
      const [clock, isOverdue, isLost] = await Promise.all([
        judge?.check(sharedCheckMs),
        looks.ask(lookOverdue({ ttlMs, isQuiet: false })),
        looks.ask(attempts.lookLost(rules)),
      ]);
      // After a change of the clock all work looks stale, too.
      if (clock?.isInDoubt) return intervalMs;
      if (clock && clock.settledForMs < ttlMs)
        quietUntil = Math.max(quietUntil, now + ttlMs - clock.settledForMs);
      const isQuiet = isAway || now < quietUntil;
      const turns = isOverdue ? await unlessInDoubt(reapTurns(options, isQuiet)) : 0;
      // The database answers. From here on devices can send heartbeats again; the length of the
      // outage after the last try is unknown.
      if (isAway) quietUntil = performance.now() + ttlMs;
      isAway = false;
      const runs = isLost && !isQuiet ? await unlessInDoubt(reapRuns(options)) : 0;
      return Math.max(turns ?? 0, runs ?? 0) === attemptsPerPassMax ? 0 : intervalMs;
    },
  });
}

async function reapRuns(options: ReaperOptions): Promise<number> {
  const settled = await reapOnce(options.db, options);
  noteReaped(options, "reaped lost attempts", settled);
  options.doorbell.settled(settled);
  options.onReaped?.(settled);
  return settled.length;
}

async function reapTurns(options: ReaperOptions, isQuiet: boolean): Promise<number> {
  const { db, rules, log, judge } = options;
  const { ttlMs } = rules;
  const ended = await sweepTurnsOnce(db, { ttlMs, isQuiet, limit: attemptsPerPassMax, log, judge });
  noteReaped(options, "ended turns that were not answered in time", ended);
  options.doorbell.turnsEnded(ended);
  return ended.length;
}

function noteReaped(
  { log }: Pick<ReaperOptions, "log">,
  what: string,
  reaped: readonly { reason: string; attemptToken: string | null }[],
): void {
  const [first] = reaped;
  if (first) log.warn({ count: reaped.length, first: first.attemptToken, reason: first.reason }, what);
}

/** A loop that is told of runs as they are recorded, because their start deadlines may be near. */
export type Expirer = Loop & { expect(runs: readonly Pick<RecordedRun, "startDeadlineAt">[]): void };

type ExpirerOptions = {
  db: Db;
  looks?: Looks;
  doorbell: Doorbell;
  log: Logger;
  policy: FailurePolicy;
  sweepMs: number;
  /** The database's clock, as estimated here: a wrong estimate costs a look. */
  clock: { now(): number };
  judge?: Pick<Clock, "check" | "require">;
};

/**
 * Starts the expirer: it sleeps until the next start deadline passes, at most `sweepMs`. A run with
 * a nearer deadline wakes it.
 */
export function startExpirer(options: ExpirerOptions): Expirer {
  // During a pass: the pass may have looked before the run was there.
  let wakesAt = Number.POSITIVE_INFINITY;
  const loop = startLoop({
    name: "expirer",
    log: options.log,
    async pass() {
      wakesAt = Number.POSITIVE_INFINITY;
      const waitMs = await expirePass(options);
      wakesAt = performance.now() + waitMs;
      return waitMs;
    },
  });
  return {
    ...loop,
    expect(recorded) {
      const inMs = wakesAt - performance.now();
      const isNearer = ({ startDeadlineAt: at }: (typeof recorded)[number]) =>
        at != null && at.getTime() - options.clock.now() < inMs;
      if (recorded.some(isNearer)) loop.poke();
    },
  };
}

/** Skips the runs past their start deadlines; the milliseconds until the next pass. */
async function expirePass(options: ExpirerOptions): Promise<number> {
  const { db, judge, sweepMs, looks = looksAlone(db) } = options;
  const [clock, nextMs] = await Promise.all([judge?.check(sharedCheckMs), looks.ask(runs.nextExpiryMs)]);
  if (clock?.isInDoubt) return sweepMs;
  const passed = await unlessInDoubt(expire(db, options, nextMs));
  if (!passed) return sweepMs;
  const { settled, refused } = passed;
  options.doorbell.settled(settled);
  if (settled.length === attemptsPerPassMax) return 0;
  // Refused runs stay expired, and are not tried again at once.
  if (refused.length > 0) return Math.min(refusedMs, sweepMs);
  if (settled.length > 0) return 0;
  // Expired runs that were passed over are locked by another replica.
  if (nextMs === 0) return heldElsewhereMs;
  return Math.min(Math.ceil(nextMs ?? sweepMs), sweepMs);
}
