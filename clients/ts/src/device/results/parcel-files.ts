import type { Completion } from "../../gen/pinion/v1/device_pb.js";
import type { Logger } from "../../logger.ts";
import type { Kept } from "../../outbox/kept.ts";
import type { Outbox, OutboxEntry, OutboxReading, SetAside } from "../../outbox/outbox.ts";
import type { OutboxRecord } from "../../outbox/record.ts";
import { messageOf } from "../errors.ts";
import type { ResultHere } from "./forgotten.ts";
import type { Parcel } from "./parcel.ts";

/** The parcels' files in the outbox. A write that fails is repeated; the result stays in memory. */
export class ParcelFiles {
  readonly #outbox: Outbox;
  readonly #logger: Logger;
  readonly #parcels: ReadonlyMap<string, Parcel>;
  readonly #onSetAside: (setAside: SetAside) => void;
  readonly #readAgainMs: number;
  readonly #readKept: (kept: Kept) => Promise<OutboxRecord | undefined>;
  #diskProblem: string | undefined;
  #isSaving = false;
  /** Refused results that the disk has not taken yet, by attempt token. */
  readonly #refused = new Map<string, { entry: OutboxEntry; completion: Completion; problem: string }>();

  /** `parcels`: the parcels on their way, by attempt token; a settled parcel is removed there. */
  constructor(options: {
    outbox: Outbox;
    logger: Logger;
    parcels: ReadonlyMap<string, Parcel>;
    onSetAside: (setAside: SetAside) => void;
    /** Pause after a failed read, in ms. */
    readAgainMs: number;
    readKept: (kept: Kept) => Promise<OutboxRecord | undefined>;
  }) {
    this.#outbox = options.outbox;
    this.#logger = options.logger;
    this.#parcels = options.parcels;
    this.#onSetAside = options.onSetAside;
    this.#readAgainMs = options.readAgainMs;
    this.#readKept = options.readKept;
  }

  /**
   * A parcel's completion. Undefined: not now; the parcel is busy, settled, or cannot be read for a
   * while. `gone`: the file is missing or was set aside.
   */
  async read(parcel: Parcel): Promise<Completion | "gone" | undefined> {
    if (parcel.unsaved !== undefined) return parcel.unsaved;
    if (parcel.readableAt !== undefined && performance.now() < parcel.readableAt) return undefined;
    parcel.isBusy = true;
    const reading = await this.#readRecord(parcel);
    parcel.isBusy = false;
    // An acknowledgement may have arrived during the read.
    if (this.#parcels.get(parcel.entry.attemptToken) !== parcel) return undefined;
    const { workId } = parcel.entry;
    switch (reading.kind) {
      case "record":
        parcel.readableAt = undefined;
        return reading.record.completion;
      case "unreadable":
        if (parcel.readableAt === undefined) {
          this.#logger.warn(
            { workId, error: reading.problem },
            "cannot read a result; trying again until it works",
          );
        }
        parcel.readableAt = performance.now() + this.#readAgainMs;
        return undefined;
      case "gone":
        this.#logger.warn({ workId }, "a result was removed from the outbox before it was delivered");
        return "gone";
      case "set_aside":
        this.#onSetAside(reading.setAside);
        return "gone";
    }
  }

  /**
   * A waiting result as an answer to an assignment. A later attempt than a failed one is a retry,
   * unless the database lost the failed one.
   */
  resultOf({ unsaved, entry }: Parcel): ResultHere {
    const read = async () => {
      if (unsaved) return unsaved;
      const reading = await this.#outbox.read(entry);
      return reading.kind === "record" ? reading.record.completion : undefined;
    };
    return { workId: entry.workId, isLost: false, isFresh: true, read };
  }

  async #readRecord({ entry, kept }: Parcel): Promise<OutboxReading> {
    if (!kept) return this.#outbox.read(entry);
    const record = await this.#readKept(kept);
    return record ? { kind: "record", record } : { kind: "gone" };
  }

  /** The disk's error while some results are only in memory; undefined: no error. */
  get diskProblem(): string | undefined {
    return this.#diskProblem;
  }

  /**
   * Writes a result to disk, or notes the error; `saveAll` repeats the write until success or
   * delivery.
   */
  async save(parcel: Parcel): Promise<void> {
    const { unsaved, entry } = parcel;
    if (unsaved === undefined) return;
    try {
      await this.#outbox.put({ completion: unsaved, finishedAtMs: entry.finishedAtMs });
      parcel.unsaved = undefined;
      // An acknowledgement arrived during the write; its removal came before the file existed.
      if (!this.#parcels.has(entry.attemptToken)) await this.remove(entry);
    } catch (error) {
      if (this.#diskProblem === undefined) {
        this.#logger.error(
          { workId: entry.workId, error: messageOf(error) },
          "cannot write the outbox; results are in memory only, and no new work is taken until the disk takes them",
        );
      }
      this.#diskProblem = messageOf(error);
    }
  }

  async saveAll(): Promise<void> {
    if (this.#diskProblem === undefined || this.#isSaving) return;
    this.#isSaving = true;
    const unsaved = () => [...this.#parcels.values()].filter((parcel) => parcel.unsaved !== undefined);
    for (const parcel of unsaved()) if (!parcel.isBusy) await this.save(parcel);
    for (const { entry, completion, problem } of [...this.#refused.values()]) {
      await this.reject(entry, problem, completion);
    }
    this.#isSaving = false;
    if (unsaved().length + this.#refused.size > 0) return;
    this.#diskProblem = undefined;
    this.#logger.info({}, "no result is in memory only any more; new work is taken again");
  }

  /**
   * Sets a refused result aside. A result that was never written stays in memory until the disk
   * takes it.
   */
  async reject(entry: OutboxEntry, problem: string, unsaved?: Completion): Promise<void> {
    const { workId, attemptToken, finishedAtMs } = entry;
    const record = unsaved && { completion: unsaved, finishedAtMs };
    if (unsaved) this.#refused.set(attemptToken, { entry, completion: unsaved, problem });
    try {
      const setAside = await this.#outbox.reject(entry, problem, record);
      this.#refused.delete(attemptToken);
      this.#onSetAside(setAside);
    } catch (error) {
      if (unsaved) this.#diskProblem = messageOf(error);
      this.#logger.warn({ workId, error: messageOf(error) }, "cannot set an outbox file aside");
    }
  }

  async remove(entry: OutboxEntry): Promise<void> {
    try {
      await this.#outbox.remove(entry);
    } catch (error) {
      // The file is sent again after a restart and acknowledged once more.
      this.#logger.warn({ workId: entry.workId, error: messageOf(error) }, "cannot remove an outbox file");
    }
  }
}
