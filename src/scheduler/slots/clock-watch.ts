import { type Db, transaction } from "../../store/pg/database.ts";
import type { Looks } from "../../store/pg/looks.ts";
import * as events from "../../store/work/service/events.ts";
import * as jumps from "../../store/work/watchers/clock-jumps.ts";
import type { Logger } from "../../telemetry/log.ts";

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
 * An absence of all replicas up to this, in milliseconds, is accepted as an absence if the machine's
 * own clock saw it, too; any other one looks like a jump and must persist.
 */
const absenceMsMax = 7 * 86_400_000;
/** Milliseconds that a start after a longer absence waits for a correction of the clock. */
const absenceWaitMs = 600_000;
/** Milliseconds that a jump must persist under the policy `wait`. */
const acceptedAfterMs = 3_600_000;

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

type Doubt = { byMs: number; sinceMs: number; witness: jumps.Witness; isNoted: boolean };

export type Options = {
  db: Db;
  log: Logger;
  replicaId: string;
  policy: ClockPolicy;
  /** Default: each reading is a statement of its own. */
  looks?: Looks;
  /** Another monotonic clock than {@link elapsedMs}, for tests of long waits. */
  elapsed?: () => number;
};

/** The replica's view of the database's clock. */
export class ClockWatch {
  readonly #options: Required<Options>;
  readonly #startedAt: number;
  readonly #onBack: (() => void)[] = [];
  /** The database's clock minus the replica's monotonic clock. */
  #offsetMs = 0;
  #doubt: Doubt | undefined;
  #movedAt = Number.NEGATIVE_INFINITY;
  /** The database's time when the replica began to watch. */
  #watchingSince = 0;
  /** The clock went back; the next check reports it to the database and to the schedules. */
  #ended: "gone" | undefined;
  /** Checks run one after another: each reports an end to the database once. */
  #last: Promise<void> = Promise.resolve();
  #checkedAt = Number.NEGATIVE_INFINITY;

  constructor(options: Required<Options>) {
    this.#options = options;
    this.#startedAt = options.elapsed();
  }

  get checkedAgoMs(): number {
    return performance.now() - this.#checkedAt;
  }

  get isInDoubt(): boolean {
    return this.#doubt !== undefined;
  }

  get doubtMs(): number {
    return this.#doubt?.byMs ?? 0;
  }

  /** A doubt that the database does not know. */
  get hasNews(): boolean {
    return this.#doubt !== undefined && !this.#doubt.isNoted;
  }

  get settledForMs(): number {
    return this.#options.elapsed() - Math.max(this.#movedAt, this.#startedAt);
  }

  onBack(listener: () => void): void {
    this.#onBack.push(listener);
  }

  wantCheck(): void {
    this.#checkedAt = Number.NEGATIVE_INFINITY;
  }

  doubts(databaseMs: number): boolean {
    const { elapsed, policy } = this.#options;
    const at = elapsed();
    const byMs = departure(this.#offsetMs, { databaseMs, sentAtMs: at, receivedAtMs: at });
    return policy !== "ignore" && judge(byMs) === "in_doubt";
  }

  /** The first look has no monotonic clock to compare with. */
  async begin(): Promise<void> {
    const { found, reading } = await this.#read();
    this.#adopt(reading);
    this.#watchingSince = reading.databaseMs;
    const open = openOf(found);
    if (open) {
      // Compares with the time that the clock would show without the jump.
      const byMs = open.noticedAt.getTime() - open.expectedAt.getTime();
      if (found.now < open.noticedAt) {
        this.#ended = "gone";
        return;
      }
      this.#offsetMs -= byMs;
      this.#doubtNow(byMs, open.witness).isNoted = true;
      return;
    }
    if (!found.seenAt || this.#options.policy === "ignore") return;
    const absentMs = found.now.getTime() - found.seenAt.getTime();
    // By the machine's own clock, which was right or wrong before the start, too.
    const ownAbsentMs = Math.max(0, Date.now() - found.seenAt.getTime());
    const byMs = absentMs > absenceMsMax ? absentMs : absentMs - ownAbsentMs;
    if (byMs > jumpMsMin) {
      this.#offsetMs -= byMs;
      this.#doubtNow(byMs, "commits");
    } else if (absentMs < -steadyMsMax) this.#ended = "gone";
  }

  /** Checks and remembers a reading; returns whether work that depends on the clock has to wait. */
  look(reading: ClockReading): boolean {
    const { log, elapsed, policy } = this.#options;
    const doubt = this.#doubt;
    const byMs = departure(this.#offsetMs, reading);
    const verdict = judge(byMs);
    if (verdict === "in_doubt" && policy !== "ignore") {
      this.#doubtNow(byMs, doubt?.witness ?? "monotonic");
      return true;
    }
    if (verdict === "steady" && !doubt) return false;
    this.#movedAt = elapsed();
    if (doubt) {
      log.warn({ wasMs: doubt.byMs }, "the database's clock has gone back");
      this.#doubt = undefined;
      this.#ended = "gone";
    } else {
      log.warn({ byMs }, "the database's clock was set");
      if (verdict === "back") this.#ended = "gone";
    }
    this.#adopt(reading);
    return false;
  }

  check(ageMsMax = 0): Promise<void> {
    const next = this.#last
      .catch(() => undefined)
      .then(async () => {
        if (this.checkedAgoMs < ageMsMax) return;
        await this.#checkNow();
        this.#checkedAt = performance.now();
      });
    this.#last = next;
    return next;
  }

  async #checkNow(): Promise<void> {
    const { db, replicaId } = this.#options;
    const { found, reading } = await this.#read();
    const wasInDoubt = this.look(reading);
    const open = openOf(found);
    if (wasInDoubt && this.#doubt) return this.#pursue(this.#doubt, found, reading);
    const ended = this.#ended;
    if (ended || (open && this.#watchingSince < open.expectedAt.getTime())) {
      // Noticed here, or by a replica that stood still itself: the local replica has watched since
      // before and saw no jump.
      const resolution = ended ?? "refuted";
      const resolved = await jumps.resolve(db, { resolution, by: replicaId });
      if (resolved || ended) await this.#back(resolution, resolved);
      this.#ended = undefined;
    } else if (open) {
      const byMs = open.noticedAt.getTime() - open.expectedAt.getTime();
      this.#doubtNow(byMs, open.witness).isNoted = true;
    } else {
      // Slow drift is followed.
      this.#adopt(reading);
      if (jumps.isDueToNote(found)) await jumps.noteSeen(db);
    }
  }

  async #pursue(now: Doubt, { last }: jumps.Reading, reading: ClockReading): Promise<void> {
    const { db, log, replicaId, policy, elapsed } = this.#options;
    if (!now.isNoted) {
      await this.#note(now, reading);
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
      return this.#trust(reading);
    }
    const waitMs = now.witness === "commits" ? absenceWaitMs : acceptedAfterMs;
    if ((policy === "wait" || now.witness === "commits") && elapsed() - now.sinceMs >= waitMs) {
      await jumps.resolve(db, { resolution: "accepted", by: replicaId });
      log.warn({ byMs: now.byMs }, "the database's clock stayed where it is, and is taken as it is");
      this.#trust(reading);
    }
  }

  async #read(): Promise<{ found: jumps.Reading; reading: ClockReading }> {
    const { looks, elapsed } = this.#options;
    const sentAtMs = elapsed();
    const found = await looks.ask(jumps.reading);
    return { found, reading: { databaseMs: found.now.getTime(), sentAtMs, receivedAtMs: elapsed() } };
  }

  #adopt({ databaseMs, receivedAtMs }: ClockReading): void {
    this.#offsetMs = databaseMs - receivedAtMs;
  }

  #doubtNow(byMs: number, witness: jumps.Witness): Doubt {
    this.#doubt ??= { byMs, sinceMs: this.#options.elapsed(), witness, isNoted: false };
    this.#doubt.byMs = byMs;
    return this.#doubt;
  }

  #trust(reading: ClockReading): void {
    this.#doubt = undefined;
    this.#movedAt = this.#options.elapsed();
    this.#adopt(reading);
  }

  async #note({ byMs, witness }: Doubt, { databaseMs }: ClockReading): Promise<void> {
    const { db, log, replicaId } = this.#options;
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

  async #back(
    resolution: jumps.Resolution,
    jump: { noticedAt: Date; expectedAt: Date } | undefined,
  ): Promise<void> {
    await transaction(this.#options.db, async (tx) => {
      await jumps.takeBackTimes(tx);
      if (!jump) return;
      const { noticedAt, expectedAt } = jump;
      await tell(tx, "clock.resolved", { resolution, noticed_at: noticedAt, expected_at: expectedAt });
    });
    for (const listener of this.#onBack) listener();
  }
}

/** The jump that is not resolved, if there is one. */
function openOf({ last }: jumps.Reading): NonNullable<jumps.Reading["last"]> | undefined {
  return last?.resolution === null ? last : undefined;
}

/** Tells every org, in the transaction's last statement. */
async function tell(tx: Db, kind: string, times: Record<string, Date | string>): Promise<void> {
  const data = Object.fromEntries(
    Object.entries(times).map(([name, value]) => [name, value instanceof Date ? value.toISOString() : value]),
  );
  const orgIds = await jumps.listOrgIds(tx);
  await events.appendAll(
    tx,
    orgIds.map((orgId) => ({ orgId, kind, actor: "pinion", data })),
  );
}
