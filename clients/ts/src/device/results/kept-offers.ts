import type { Completion, Incarnation } from "../../gen/pinion/v1/device_pb.js";
import type { Logger } from "../../logger.ts";
import { type Kept, type KeptBy, type KeptResults, positionOf } from "../../outbox/kept.ts";
import type { OutboxEntry } from "../../outbox/outbox.ts";
import { messageOf } from "../errors.ts";
import { isNamed, type ResultHere } from "./forgotten.ts";

/**
 * The acknowledged results that are kept for a while, and their offer to another database: after a
 * failover the server's database may have lost the runs of the last moments.
 */
export class KeptOffers {
  readonly #kept: KeptResults;
  readonly #logger: Logger;
  readonly #safeAfterMs: number;
  /** Sends a kept result again; false if a send of the attempt is under way already. */
  readonly #send: (kept: Kept) => boolean;
  /**
   * Tokens of kept results offered again, because the server's database may have lost their runs.
   */
  readonly #offered = new Set<string>();
  #by: KeptBy | undefined;
  /** The last position told by the server, in the database `#by`. */
  #position: bigint | undefined;

  constructor(options: {
    kept: KeptResults;
    logger: Logger;
    safeAfterMs: number;
    send: (kept: Kept) => boolean;
  }) {
    this.#kept = options.kept;
    this.#logger = options.logger;
    this.#safeAfterMs = options.safeAfterMs;
    this.#send = options.send;
  }

  /**
   * Notes the database in use by the server. Results acknowledged by another database are offered
   * again. True for another database than before.
   */
  storedIn(incarnation: Incarnation | undefined, options: { isWelcome: boolean }): boolean {
    if (incarnation === undefined || !/^\d{1,20}$/.test(incarnation.systemIdentifier)) return false;
    const { systemIdentifier, timeline } = incarnation;
    const position = positionOf(incarnation.position);
    const isAnother = this.#by?.systemIdentifier !== systemIdentifier || this.#by.timeline !== timeline;
    this.#by = { systemIdentifier, timeline };
    if (position !== undefined) this.#kept.passed(this.#by, position, options);
    this.#position = position;
    if (isAnother) this.#offerAll(positionOf(incarnation.safePosition));
    return isAnother;
  }

  #offerAll(safe: bigint | undefined): void {
    let count = 0;
    for (const kept of this.#kept.list()) {
      if (safe !== undefined && this.#isSafe(kept, safe)) this.#confirm(kept);
      else if (this.#offer(kept)) count += 1;
    }
    if (count === 0) return;
    this.#logger.warn(
      { results: count },
      "the server's database is another one; offering it what was acknowledged before",
    );
  }

  /**
   * Whether the new timeline begins after the result was stored. Results of the last minutes are
   * never safe: the server may have seen the promotion late.
   */
  #isSafe(kept: Kept, safe: bigint): boolean {
    const { by, storedBefore, acknowledgedAtMs } = kept;
    return (
      by.systemIdentifier === this.#by?.systemIdentifier &&
      by.timeline + 1 === this.#by.timeline &&
      storedBefore !== undefined &&
      storedBefore <= safe &&
      Date.now() - acknowledgedAtMs > this.#safeAfterMs
    );
  }

  /** Offers a kept result again, unless this same database has acknowledged the result. */
  #offer(kept: Kept): boolean {
    if (this.#isOfNow(kept) || !this.#send(kept)) return false;
    this.#offered.add(kept.attemptToken);
    return true;
  }

  /** The kept results of a run or turn, or of one with the same name. */
  ofWork(workId: string): ResultHere[] {
    const named = this.#kept.list().filter((kept) => isNamed(kept.workId, workId));
    return named.map((kept) => this.#resultOf(kept));
  }

  #resultOf(kept: Kept): ResultHere {
    return {
      workId: kept.workId,
      isLost: !this.#isOfNow(kept) || this.#offered.has(kept.attemptToken),
      isFresh: Date.now() - kept.acknowledgedAtMs <= this.#safeAfterMs,
      read: async () => (await this.#kept.read(kept))?.completion,
    };
  }

  read(kept: Kept) {
    return this.#kept.read(kept);
  }

  #isOfNow({ by }: Kept): boolean {
    return this.#by?.systemIdentifier === by.systemIdentifier && this.#by.timeline === by.timeline;
  }

  /** Writes the kept results that the disk has not taken yet. */
  saveAll(): Promise<void> {
    return this.#kept.saveAll();
  }

  /**
   * Keeps an acknowledged result for a while; `unsaved`, while the disk takes no writes. False if the
   * acknowledging database is unknown or the write fails.
   */
  async keep(entry: OutboxEntry, unsaved: Completion | undefined): Promise<boolean> {
    if (this.#by === undefined) return false;
    try {
      const record = unsaved && { completion: unsaved, finishedAtMs: entry.finishedAtMs };
      await this.#kept.keep(entry, this.#by, { acknowledgedAt: this.#position, unsaved: record });
      // The database may have failed over during the write.
      for (const kept of this.#kept.list()) if (kept.attemptToken === entry.attemptToken) this.#offer(kept);
      return true;
    } catch (error) {
      this.#logger.warn(
        { workId: entry.workId, error: messageOf(error) },
        "cannot keep an acknowledged result",
      );
      return false;
    }
  }

  /** The server gave a verdict on an offered result. */
  settled(kept: Kept): void {
    this.#confirm(kept, this.#position ?? 0n);
  }

  /**
   * Keeps the result for the rest of its time after any verdict; this database gets no second
   * offer.
   */
  #confirm(kept: Kept, acknowledgedAt?: bigint): void {
    if (this.#by === undefined) return;
    try {
      this.#kept.confirm(kept, this.#by, acknowledgedAt);
    } catch (error) {
      this.#logger.warn(
        { workId: kept.workId, error: messageOf(error) },
        "cannot note that a result was offered",
      );
    }
  }
}
