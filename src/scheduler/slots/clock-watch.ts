import { type Db, transaction } from "../../store/pg/database.ts";
import { type Looks, looksAlone } from "../../store/pg/looks.ts";
import * as events from "../../store/work/service/events.ts";
import * as jumps from "../../store/work/watchers/clock-jumps.ts";
import type { Logger } from "../../telemetry/log.ts";
import { type Loop, startLoop } from "../loop.ts";
import {
  type Clock,
  type ClockPolicy,
  type ClockReading,
  ClockView,
  type Doubt,
  elapsedMs,
  jumpMsMin,
  sharedCheckMs,
  steadyMsMax,
} from "./clock.ts";

/**
 * The checks of the database's clock (clock.ts has the states): reads the clock, tells the database
 * and the orgs of a doubt, and ends the doubt. A replica that has just started compares with the
 * newest reading without doubt.
 */

/** Milliseconds between checks by each replica. */
const checkEveryMs = 5_000;
/**
 * An absence of all replicas up to this, in milliseconds, is accepted as an absence if the
 * machine's own clock saw it, too; any other one looks like a jump and must persist.
 */
const absenceMsMax = 7 * 86_400_000;
/** Milliseconds that a start after a longer absence waits for a correction of the clock. */
const absenceWaitMs = 600_000;
/** Milliseconds that a jump must persist under the policy `wait`. */
const acceptedAfterMs = 3_600_000;

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

/** Takes the readings of a view, and ends the view's doubts. */
class ClockWatch {
  readonly #options: Required<Options>;
  readonly #view: ClockView;
  readonly #onBack: (() => void)[] = [];
  /** The database's time when the replica began to watch. */
  #watchingSince = 0;
  /** Checks run one after another: each reports an end to the database once. */
  #last: Promise<void> = Promise.resolve();
  #checkedAt = Number.NEGATIVE_INFINITY;

  constructor(options: Required<Options>, view: ClockView) {
    this.#options = options;
    this.#view = view;
  }

  get checkedAgoMs(): number {
    return performance.now() - this.#checkedAt;
  }

  onBack(listener: () => void): void {
    this.#onBack.push(listener);
  }

  wantCheck(): void {
    this.#checkedAt = Number.NEGATIVE_INFINITY;
  }

  /** The first look has no monotonic clock to compare with. */
  async begin(): Promise<void> {
    const { found, reading } = await this.#read();
    this.#view.adopt(reading);
    this.#watchingSince = reading.databaseMs;
    const open = openOf(found);
    if (open) {
      // Compares with the time that the clock would show without the jump.
      const byMs = open.noticedAt.getTime() - open.expectedAt.getTime();
      if (found.now < open.noticedAt) {
        this.#view.hasGoneBack = true;
        return;
      }
      this.#view.expectWithout(byMs);
      this.#view.doubtNow(byMs, open.witness).isNoted = true;
      return;
    }
    this.#compareWith(found);
    // Before the first request is answered: edits refuse a time that has not been checked for an
    // hour.
    const { doubt, hasGoneBack } = this.#view;
    if (!doubt && !hasGoneBack && jumps.isDueToNote(found)) await jumps.noteSeen(this.#options.db);
  }

  /** Compares the clock with the newest reading without doubt, which another replica recorded. */
  #compareWith(found: jumps.Reading): void {
    if (!found.seenAt || this.#options.policy === "ignore") return;
    const absentMs = found.now.getTime() - found.seenAt.getTime();
    // By the machine's own clock, which was right or wrong before the start, too.
    const ownAbsentMs = Math.max(0, Date.now() - found.seenAt.getTime());
    const byMs = absentMs > absenceMsMax ? absentMs : absentMs - ownAbsentMs;
    if (byMs > jumpMsMin) {
      this.#view.expectWithout(byMs);
      this.#view.doubtNow(byMs, "commits");
    } else if (absentMs < -steadyMsMax) this.#view.hasGoneBack = true;
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
    const { db } = this.#options;
    const { found, reading } = await this.#read();
    const wasInDoubt = this.#view.look(reading);
    const open = openOf(found);
    const { doubt, hasGoneBack } = this.#view;
    if (wasInDoubt && doubt) return this.#pursue(doubt, found, reading);
    if (hasGoneBack || (open && this.#watchingSince < open.expectedAt.getTime())) {
      // Noticed here, or by a replica that stood still itself: the local replica has watched since
      // before and saw no jump.
      await this.#back(hasGoneBack ? "gone" : "refuted");
    } else if (open) {
      const byMs = open.noticedAt.getTime() - open.expectedAt.getTime();
      this.#view.doubtNow(byMs, open.witness).isNoted = true;
    } else {
      // Slow drift is followed.
      this.#view.adopt(reading);
      if (jumps.isDueToNote(found)) await jumps.noteSeen(db);
      // The replica that corrected the clock's times may have died before it planned.
      if (!found.isPlanned) this.#tellBack();
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
      return this.#view.trust(reading);
    }
    const waitMs = now.witness === "commits" ? absenceWaitMs : acceptedAfterMs;
    if ((policy === "wait" || now.witness === "commits") && elapsed() - now.sinceMs >= waitMs) {
      await jumps.resolve(db, { resolution: "accepted", by: replicaId });
      log.warn({ byMs: now.byMs }, "the database's clock stayed where it is, and is taken as it is");
      this.#view.trust(reading);
    }
  }

  async #read(): Promise<{ found: jumps.Reading; reading: ClockReading }> {
    const { looks, elapsed } = this.#options;
    const sentAtMs = elapsed();
    const found = await looks.ask(jumps.reading);
    return { found, reading: { databaseMs: found.now.getTime(), sentAtMs, receivedAtMs: elapsed() } };
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

  async #back(resolution: jumps.Resolution): Promise<void> {
    const { db, replicaId } = this.#options;
    const { hasGoneBack } = this.#view;
    this.#view.hasGoneBack = false;
    const correcting = transaction(db, async (tx) => {
      const jump = await jumps.resolve(tx, { resolution, by: replicaId });
      if (!jump && !hasGoneBack) return false;
      await jumps.takeBackTimes(tx);
      if (!jump) return true;
      const { noticedAt, expectedAt } = jump;
      await tell(tx, "clock.resolved", { resolution, noticed_at: noticedAt, expected_at: expectedAt });
      return true;
    });
    const isNews = await correcting.catch((error: unknown) => {
      this.#view.hasGoneBack ||= hasGoneBack;
      throw error;
    });
    if (isNews) this.#tellBack();
  }

  #tellBack(): void {
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

/**
 * Judges the clock once, and then every five seconds. Rejects if the database is away at the start.
 */
export async function startClock(options: Options): Promise<Clock> {
  const { elapsed = elapsedMs, looks = looksAlone(options.db) } = options;
  const view = new ClockView({ ...options, elapsed });
  const watch = new ClockWatch({ ...options, elapsed, looks }, view);
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
  view.onNews = () => {
    watch.wantCheck();
    loop.poke();
  };
  return {
    require: view.require.bind(view),
    async check(ageMsMax) {
      await watch.check(ageMsMax);
      return { isInDoubt: view.doubt !== undefined, settledForMs: view.settledForMs };
    },
    doubts: view.doubts.bind(view),
    doubtMs: () => view.doubt?.byMs ?? 0,
    onBack: (listener) => watch.onBack(listener),
    stop: () => loop.stop(),
  };
}
