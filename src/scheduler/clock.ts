import { uptime } from "node:os";
import type { Logger } from "../log.ts";
import { type Db, transaction } from "../store/pg/database.ts";
import * as jumps from "../store/work/clock-jumps.ts";
import * as events from "../store/work/events.ts";
import { type Loop, startLoop } from "./loop.ts";

/**
 * Checks the database's clock, the reference for due times, silence and age. Each replica compares
 * the database's clock with its own monotonic clock; a replica that has just started compares with
 * the newest reading without doubt.
 *
 *   steady    both clocks advanced together
 *   moved     forward by up to an hour, or back by any time: accepted; silence is ignored for a TTL
 *   in doubt  forward by more than an hour. Until the doubt is resolved nothing is deleted by age,
 *             no due slots are recorded, and nothing is reaped or expired
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
const steadyMsMax = 2_000;
/** A longer jump forward is in doubt. */
export const jumpMsMin = 3_600_000;
/**
 * An absence of all replicas up to this, in milliseconds, is accepted as an absence; a longer
 * absence looks like a jump and must persist.
 */
const absenceMsMax = 7 * 86_400_000;
/** Milliseconds that a start after a longer absence waits for a correction of the clock. */
const absenceWaitMs = 600_000;
/** Milliseconds that a jump must persist under the policy `wait`. */
const acceptedAfterMs = 3_600_000;
/** Milliseconds between checks by each replica. */
const checkEveryMs = 5_000;
/**
 * Age in milliseconds up to which loops that ask at the same moment share a check.
 */
export const sharedCheckMs = 100;

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

export function judge(departureMs: number): "steady" | "forward" | "back" | "in_doubt" {
  if (Math.abs(departureMs) <= steadyMsMax) return "steady";
  if (departureMs < 0) return "back";
  return departureMs <= jumpMsMin ? "forward" : "in_doubt";
}

/** The database's clock is in doubt; all work that depends on the clock waits. */
export class ClockInDoubt extends Error {
  override name = "ClockInDoubt";
}

export type Clock = {
  /**
   * Checks a time that a statement took from the database's clock; `sentAtMs`: the time of sending,
   * by `elapsedMs`. Throws {@link ClockInDoubt}, and the transaction is rolled back. Costs no round
   * trip.
   */
  require(now: Date, sentAtMs: number): void;
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

type Doubt = { byMs: number; sinceMs: number; witness: jumps.Witness; isNoted: boolean };

/**
 * Judges the clock once, and then every five seconds. Rejects if the database is away at the start.
 */
export async function startClock(options: {
  db: Db;
  log: Logger;
  replicaId: string;
  policy: ClockPolicy;
  /** Another monotonic clock than {@link elapsedMs}, for tests of long waits. */
  elapsed?: () => number;
}): Promise<Clock> {
  const { db, log, replicaId, policy, elapsed = elapsedMs } = options;
  const startedAt = elapsed();
  const onBack: (() => void)[] = [];
  let offsetMs = 0;
  let doubt: Doubt | undefined;
  let movedAt = Number.NEGATIVE_INFINITY;
  /** The database's time when the replica began to watch. */
  let watchingSince = 0;
  /** The clock went back; the next check reports it to the database and to the schedules. */
  let ended: "gone" | undefined;

  const adopt = ({ databaseMs, receivedAtMs }: ClockReading) => {
    offsetMs = databaseMs - receivedAtMs;
  };
  const doubtNow = (byMs: number, witness: jumps.Witness) => {
    if (doubt) doubt.byMs = byMs;
    else doubt = { byMs, sinceMs: elapsed(), witness, isNoted: false };
  };

  /** Checks and remembers a reading; returns whether work that depends on the clock has to wait. */
  function look(reading: ClockReading): boolean {
    const byMs = departure(offsetMs, reading);
    const verdict = judge(byMs);
    if (verdict === "in_doubt" && policy !== "ignore") {
      doubtNow(byMs, doubt?.witness ?? "monotonic");
      return true;
    }
    if (verdict === "steady" && !doubt) return false;
    movedAt = elapsed();
    if (doubt) {
      log.warn({ wasMs: doubt.byMs }, "the database's clock has gone back");
      doubt = undefined;
      ended = "gone";
    } else {
      log.warn({ byMs }, "the database's clock was set");
      if (verdict === "back") ended = "gone";
    }
    adopt(reading);
    return false;
  }

  async function read(): Promise<{ found: jumps.Reading; reading: ClockReading }> {
    const sentAtMs = elapsed();
    const found = await jumps.read(db);
    return {
      found,
      reading: { databaseMs: found.now.getTime(), sentAtMs, receivedAtMs: elapsed() },
    };
  }

  /** Checks run one after another: each reports an end to the database once. */
  let last: Promise<void> = Promise.resolve();
  let checkedAt = Number.NEGATIVE_INFINITY;
  function check(ageMsMax = 0): Promise<void> {
    const next = last
      .catch(() => undefined)
      .then(async () => {
        if (performance.now() - checkedAt < ageMsMax) return;
        await checkNow();
        checkedAt = performance.now();
      });
    last = next;
    return next;
  }

  async function checkNow(): Promise<void> {
    const { found, reading } = await read();
    const wasInDoubt = look(reading);
    const open = found.last?.resolution === null ? found.last : undefined;
    if (wasInDoubt && doubt) return pursue(doubt, found, reading);
    if (ended || (open && watchingSince < open.expectedAt.getTime())) {
      // Noticed here, or by a replica that stood still itself: the local replica has watched since
      // before and saw no jump.
      const resolution = ended ?? "refuted";
      const resolved = await jumps.resolve(db, { resolution, by: replicaId });
      if (resolved || ended) await back(resolution, resolved);
      ended = undefined;
    } else if (open) {
      doubtNow(open.noticedAt.getTime() - open.expectedAt.getTime(), open.witness);
      doubt!.isNoted = true;
    } else {
      // Slow drift is followed.
      adopt(reading);
      if (jumps.isDueToNote(found)) await jumps.noteSeen(db);
    }
  }

  async function pursue(now: Doubt, found: jumps.Reading, reading: ClockReading): Promise<void> {
    const { last } = found;
    if (!now.isNoted) {
      await note(now, reading);
      now.isNoted = true;
      return;
    }
    if (
      last?.resolution === "confirmed" ||
      last?.resolution === "accepted" ||
      last?.resolution === "refuted"
    ) {
      log.warn(
        { byMs: now.byMs, resolution: last.resolution, by: last.resolvedBy },
        "the database's clock is taken as it is",
      );
      return trust(reading);
    }
    const waitMs = now.witness === "commits" ? absenceWaitMs : acceptedAfterMs;
    if ((policy === "wait" || now.witness === "commits") && elapsed() - now.sinceMs >= waitMs) {
      await jumps.resolve(db, { resolution: "accepted", by: replicaId });
      log.warn({ byMs: now.byMs }, "the database's clock stayed where it is, and is taken as it is");
      trust(reading);
    }
  }

  function trust(reading: ClockReading): void {
    doubt = undefined;
    movedAt = elapsed();
    adopt(reading);
  }

  async function note({ byMs, witness }: Doubt, { databaseMs }: ClockReading): Promise<void> {
    const noticedAt = new Date(databaseMs);
    const expectedAt = new Date(databaseMs - byMs);
    log.error(
      { byMs, noticedAt, expectedAt, witness },
      "the database's clock jumped forward: nothing is deleted and no due slot is recorded until it is gone or confirmed (`pinion doctor --confirm-clock`)",
    );
    await transaction(db, async (tx) => {
      if (!(await jumps.open(tx, { witness, noticedBy: replicaId, noticedAt, expectedAt }))) return;
      await tell(tx, "clock.jumped", { noticed_at: noticedAt, expected_at: expectedAt, witness });
    });
  }

  async function tell(tx: Db, kind: string, times: Record<string, Date | string>): Promise<void> {
    const data = Object.fromEntries(
      Object.entries(times).map(([name, value]) => [
        name,
        value instanceof Date ? value.toISOString() : value,
      ]),
    );
    const orgIds = await jumps.listOrgIds(tx);
    await events.appendAll(
      tx,
      orgIds.map((orgId) => ({ orgId, kind, actor: "pinion", data })),
    );
  }

  async function back(
    resolution: jumps.Resolution,
    jump: { noticedAt: Date; expectedAt: Date } | undefined,
  ): Promise<void> {
    await transaction(db, async (tx) => {
      await jumps.takeBackTimes(tx);
      if (jump)
        await tell(tx, "clock.resolved", {
          resolution,
          noticed_at: jump.noticedAt,
          expected_at: jump.expectedAt,
        });
    });
    for (const listener of onBack) listener();
  }

  /** The first look has no monotonic clock to compare with. */
  async function begin(): Promise<void> {
    const { found, reading } = await read();
    adopt(reading);
    watchingSince = reading.databaseMs;
    const open = found.last?.resolution === null ? found.last : undefined;
    if (open) {
      // Compares with the time that the clock would show without the jump.
      const byMs = open.noticedAt.getTime() - open.expectedAt.getTime();
      if (found.now < open.noticedAt) {
        ended = "gone";
        return;
      }
      offsetMs -= byMs;
      doubtNow(byMs, open.witness);
      doubt!.isNoted = true;
      return;
    }
    if (!found.seenAt || policy === "ignore") return;
    const absentMs = found.now.getTime() - found.seenAt.getTime();
    if (absentMs > absenceMsMax) {
      offsetMs -= absentMs;
      doubtNow(absentMs, "commits");
    } else if (absentMs < -steadyMsMax) ended = "gone";
  }

  await begin();
  const loop: Loop = startLoop({
    name: "clock",
    log,
    async pass() {
      // The checks of other loops count.
      await check(checkEveryMs - sharedCheckMs);
      return checkEveryMs - (performance.now() - checkedAt);
    },
  });
  return {
    require(now, sentAtMs) {
      const reading = { databaseMs: now.getTime(), sentAtMs, receivedAtMs: elapsed() };
      if (!look(reading)) return;
      if (doubt && !doubt.isNoted) {
        checkedAt = Number.NEGATIVE_INFINITY;
        loop.poke();
      }
      throw new ClockInDoubt(`the database's clock says ${now.toISOString()}, which is in doubt`);
    },
    async check(ageMsMax) {
      await check(ageMsMax);
      return { isInDoubt: doubt !== undefined, settledForMs: elapsed() - Math.max(movedAt, startedAt) };
    },
    doubts(databaseMs) {
      const at = elapsed();
      const byMs = departure(offsetMs, { databaseMs, sentAtMs: at, receivedAtMs: at });
      return policy !== "ignore" && judge(byMs) === "in_doubt";
    },
    doubtMs: () => doubt?.byMs ?? 0,
    onBack: (listener) => void onBack.push(listener),
    stop: () => loop.stop(),
  };
}
