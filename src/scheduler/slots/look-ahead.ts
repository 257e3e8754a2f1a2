import type { Db } from "../../store/pg/database.ts";
import * as schedules from "../../store/work/watchers/schedules.ts";
import { planAhead } from "./plan.ts";
import { type PassOptions, passOver } from "./recording.ts";

/**
 * Watchers per transaction ahead: a slot that falls due meanwhile waits for one such transaction at
 * most.
 */
const aheadPerPassMax = 500;
/**
 * Maximum milliseconds that a slot is recorded ahead. The end of a larger crowd is late, as without
 * recording ahead.
 */
const aheadMsMax = 60_000;
/** The sizes of crowds that are checked, in slots. */
const crowds = [1_000, 4_000, 16_000, 64_000, 256_000];
/** Assumed slots recorded per second, before the first measurement. */
const rateAtFirst = 2_000;
/** Factor by which the start for a crowd is earlier than the measured rate requires. */
const crowdMargin = 1.5;

/**
 * Records slots ahead of their due time, in passes: all slots due within `aheadMs` milliseconds,
 * and a crowd that needs longer for recording earlier by the needed time.
 */
export class LookAhead {
  readonly #db: Db;
  readonly #options: PassOptions;
  readonly #aheadMs: number;
  readonly #replicaId: string;
  #through = 0;
  #perMs = rateAtFirst / 1_000;
  /**
   * The time up to which the current series of passes continues, before the next crowd is searched.
   */
  #reachMs = 0;

  constructor(options: PassOptions & { db: Db; aheadMs: number; replicaId: string }) {
    this.#db = options.db;
    this.#options = options;
    this.#aheadMs = options.aheadMs;
    this.#replicaId = options.replicaId;
  }

  /** Slots due up to this time were processed ahead; the remaining slots are decided when due. */
  get through(): number {
    return this.#through;
  }

  /** Restarts the search: slots may have moved into the processed range. */
  forget(): void {
    this.#through = 0;
    this.#reachMs = 0;
  }

  /**
   * Records the slots that are due for recording; returns the start of the next pass in
   * milliseconds since 1970, if any.
   */
  async pass({ nowMs, beyondMs, hasOthers }: schedules.Outlook): Promise<number | undefined> {
    // The clock was set back.
    if (this.#through > nowMs + 2 * aheadMsMax) this.#through = 0;
    if (beyondMs === null || this.#aheadMs === 0) return undefined;
    if (beyondMs > this.#reachMs || nowMs > this.#reachMs) {
      const { beginMs, untilMs } = await this.#findBegin(beyondMs, nowMs);
      if (beginMs > nowMs) return beginMs;
      this.#reachMs = untilMs;
    }
    // The runs of a device that is connected elsewhere are claimed as they are recorded there.
    await this.#record(nowMs, this.#reachMs, hasOthers ? this.#replicaId : undefined);
    return nowMs;
  }

  async #record(nowMs: number, untilMs: number, replicaId: string | undefined): Promise<void> {
    const startedAt = performance.now();
    const untilAt = new Date(untilMs);
    const reach = { after: this.#through, withinMs: untilMs - nowMs, limit: aheadPerPassMax, replicaId };
    const { watchers, recorded } = await passOver(this.#db, this.#options, {
      lock: (tx) => schedules.lockAhead(tx, reach),
      plan: (watcher) => planAhead(watcher, untilAt),
    });
    if (recorded >= aheadPerPassMax / 2) {
      this.#perMs = (this.#perMs + recorded / (performance.now() - startedAt)) / 2;
    }
    // Slots left to their due time by the last pass are not counted again.
    if (watchers < aheadPerPassMax || recorded < aheadPerPassMax / 2) {
      this.#through = untilMs;
      this.#reachMs = 0;
    }
  }

  /** The start of the next pass and the end of its range, in milliseconds since 1970. */
  async #findBegin(beyondMs: number, nowMs: number): Promise<{ beginMs: number; untilMs: number }> {
    // Half of the time is for slots that follow: at a hundred per second, a hundred are recorded
    // together.
    let beginMs = beyondMs - this.#aheadMs / 2;
    let untilMs = Math.max(nowMs, beginMs) + this.#aheadMs;
    for (const count of crowds) {
      const dueMs = await schedules.findCrowd(this.#db, this.#through, count);
      if (dueMs === undefined || dueMs > nowMs + aheadMsMax) break;
      const neededMs = Math.min(aheadMsMax, this.#aheadMs / 2 + (count / this.#perMs) * crowdMargin);
      if (dueMs - neededMs > beginMs) continue;
      beginMs = dueMs - neededMs;
      untilMs = Math.max(untilMs, dueMs);
    }
    return { beginMs, untilMs };
  }
}
