import { type Timestamp, timestampMs } from "@bufbuild/protobuf/wkt";
import type { Completion, Incarnation } from "../../gen/pinion/v1/device_pb.js";
import type { Logger } from "../../logger.ts";
import { type Kept, type KeptBy, type KeptResults, positionOf, unknownDatabase } from "../../outbox/kept.ts";
import type { OutboxEntry } from "../../outbox/outbox.ts";
import { messageOf } from "../errors.ts";
import { isNamed, type ResultHere } from "./forgotten.ts";

/** The message that named a database. `serverTime`: the server's clock, of a welcome. */
export interface ToldBy {
  isWelcome: boolean;
  serverTime?: Timestamp | undefined;
}

/** The answer to a completion. */
export interface Acknowledgement {
  /** The completion, while the disk takes no writes. */
  unsaved?: Completion | undefined;
  /** Set for the answer of the unary call. */
  unary?: { incarnation?: Incarnation | undefined } | undefined;
}

/** Undefined if the server names no database. */
function databaseOf(incarnation: Incarnation | undefined): KeptBy | undefined {
  if (incarnation === undefined || !/^\d{1,20}$/.test(incarnation.systemIdentifier)) return undefined;
  const { systemIdentifier, timeline } = incarnation;
  return { systemIdentifier, timeline };
}

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
  storedIn(incarnation: Incarnation | undefined, options: ToldBy): boolean {
    if (options.serverTime) this.#toldTime(timestampMs(options.serverTime));
    const by = databaseOf(incarnation);
    if (incarnation === undefined || by === undefined) return false;
    const position = positionOf(incarnation.position);
    const isAnother = !this.#isNow(by);
    this.#by = by;
    if (position !== undefined) this.#kept.passed(this.#by, position, options);
    this.#position = position;
    if (isAnother) this.#offerAll(by, positionOf(incarnation.safePosition));
    return isAnother;
  }

  /** Notes the server's clock, by which kept results get too old. */
  #toldTime(serverMs: number): void {
    this.#kept.toldTime(serverMs).catch((error: unknown) => {
      this.#logger.warn({ error: messageOf(error) }, "cannot drop kept results that are too old");
    });
  }

  #offerAll(now: KeptBy, safe: bigint | undefined): void {
    let count = 0;
    for (const kept of this.#kept.list()) {
      if (safe !== undefined && this.#isSafe(kept, safe)) this.#confirm(kept, now);
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
    const { by, storedBefore } = kept;
    return (
      by.systemIdentifier === this.#by?.systemIdentifier &&
      by.timeline + 1 === this.#by.timeline &&
      storedBefore !== undefined &&
      storedBefore <= safe &&
      this.#kept.ageMs(kept) > this.#safeAfterMs
    );
  }

  /**
   * Offers a kept result again, unless this same database has acknowledged the result. Before the
   * first welcome the database is unknown: the welcome offers.
   */
  #offer(kept: Kept): boolean {
    if (this.#by === undefined || this.#isNow(kept.by) || !this.#send(kept)) return false;
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
      isLost: !this.#isNow(kept.by) || this.#offered.has(kept.attemptToken),
      isFresh: this.#kept.ageMs(kept) <= this.#safeAfterMs,
      read: async () => (await this.#kept.read(kept))?.completion,
    };
  }

  read(kept: Kept) {
    return this.#kept.read(kept);
  }

  #isNow(by: KeptBy): boolean {
    return this.#by?.systemIdentifier === by.systemIdentifier && this.#by.timeline === by.timeline;
  }

  /** Writes the kept results that the disk has not taken yet. */
  saveAll(): Promise<void> {
    return this.#kept.saveAll();
  }

  /**
   * Keeps an acknowledged result for a while. A result that cannot be moved stays in the outbox:
   * the next daemon sends the result again, and keeps it by the answer.
   */
  async keep(entry: OutboxEntry, acknowledgement: Acknowledgement): Promise<void> {
    const by = this.#storedBy(acknowledgement);
    const { unsaved } = acknowledgement;
    try {
      const record = unsaved && { completion: unsaved, finishedAtMs: entry.finishedAtMs };
      const acknowledgedAt = this.#positionAt(acknowledgement);
      await this.#kept.keep(entry, by, { acknowledgedAt, unsaved: record });
      // The database may have failed over during the write.
      for (const kept of this.#kept.list()) if (kept.attemptToken === entry.attemptToken) this.#offer(kept);
    } catch (error) {
      this.#logger.warn(
        { workId: entry.workId, error: messageOf(error) },
        "cannot keep an acknowledged result; it stays in the outbox, and the next start sends it again",
      );
    }
  }

  /**
   * The database of an acknowledgement. A unary call may reach another replica than the stream, and
   * also comes before a daemon's first welcome: its answer alone tells its database. A replica that
   * has not read its database's name yet tells none.
   */
  #storedBy({ unary }: Acknowledgement): KeptBy {
    return (unary === undefined ? this.#by : databaseOf(unary.incarnation)) ?? unknownDatabase;
  }

  /** Positions of one stream are comparable; the position at a unary call's answer is not known. */
  #positionAt({ unary }: Acknowledgement): bigint | undefined {
    return unary === undefined ? this.#position : undefined;
  }

  /** The server gave a verdict on an offered result. */
  settled(kept: Kept, acknowledgement: Acknowledgement): void {
    this.#confirm(kept, this.#storedBy(acknowledgement), { answeredAt: this.#positionAt(acknowledgement) });
  }

  /**
   * Keeps the result for the rest of its time after any verdict; this database gets no second
   * offer.
   */
  #confirm(kept: Kept, by: KeptBy, answer?: { answeredAt: bigint | undefined }): void {
    try {
      this.#kept.confirm(kept, by, answer);
    } catch (error) {
      this.#logger.warn(
        { workId: kept.workId, error: messageOf(error) },
        "cannot note that a result was offered",
      );
    }
  }
}
