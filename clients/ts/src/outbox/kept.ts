import { renameSync } from "node:fs";
import { readdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { hasCode } from "../device/errors.ts";
import { ensureDirectory } from "../private-directory.ts";
import { readRegularFile } from "../regular-file.ts";
import { removeTree } from "../remove-tree.ts";
import { writeDurably } from "./durable-file.ts";
import { decodeRecord, encodeRecord, type OutboxRecord } from "./record.ts";

/** Bounds of kept acknowledged results, in ms and bytes. */
export interface KeepLimits {
  ms: number;
  bytes: number;
}

export const keepLimits: KeepLimits = { ms: 24 * 3_600_000, bytes: 256 * 1024 * 1024 };

/** Database of an acknowledgement: the cluster's identifier and its timeline. */
export interface KeptBy {
  systemIdentifier: string;
  timeline: number;
}

/** Stands for a database that the acknowledgement did not name. Every database differs from it. */
export const unknownDatabase: KeptBy = { systemIdentifier: "0", timeline: 0 };

/** An acknowledged result. */
export interface Kept {
  workId: string;
  attemptToken: string;
  /**
   * Time of the acknowledgement, in ms since the epoch by the server's clock, if that was known.
   */
  acknowledgedAtMs: number;
  /** When this process kept or found the result, by the monotonic clock. */
  since: number;
  bytes: number;
  by: KeptBy;
  /** The position of the database's log at the acknowledgement; undefined: not known any more. */
  acknowledgedAt?: bigint | undefined;
  /** A position of the same log after the result was stored; undefined: not known yet. */
  storedBefore?: bigint | undefined;
  /** The content of the file, while the disk takes no writes; undefined: the record is on disk. */
  unsaved?: Uint8Array | undefined;
}

/** A position of PostgreSQL's log as a number; undefined for any other text. */
export function positionOf(text: string): bigint | undefined {
  const [, high, low] = /^([0-9a-f]{1,8})\/([0-9a-f]{1,8})$/i.exec(text) ?? [];
  return high === undefined ? undefined : (BigInt(`0x${high}`) << 32n) | BigInt(`0x${low}`);
}

const SUFFIX = ".kept";
const NAME =
  /^([0-9a-f-]{36})\.([0-9a-f-]{36})\.(\d{1,15})\.(\d{1,20})-(\d{1,10})(?:-([0-9a-f]{1,16}))?\.kept$/i;
const RECORD_BYTES_MAX = 32 * 1024 * 1024;
/** Bound on the records in memory together, in bytes: a largest record fits. */
const UNSAVED_BYTES_MAX = RECORD_BYTES_MAX;

/** The server's clock, as told, and from then on by the monotonic clock. */
class ServerTime {
  #told: { ms: number; at: number } | undefined;

  told(ms: number): void {
    this.#told = { ms, at: performance.now() };
  }

  /** Undefined before the first word. */
  nowMs(): number | undefined {
    return this.#told && this.#told.ms + performance.now() - this.#told.at;
  }
}

/**
 * Acknowledged results, kept for a bounded time and size. A failover to a standby with replication
 * lag may lose results, and the new database gets these offered again. Records have the outbox's
 * format, with digests; the file name holds the acknowledging database, so keeping a record is a
 * rename. A record that the disk does not take stays in memory until the disk takes it.
 */
export class KeptResults {
  readonly #outbox: string;
  readonly #directory: string;
  #limits: KeepLimits;
  readonly #kept = new Map<string, Kept>();
  readonly #time = new ServerTime();
  #isSaving = false;

  private constructor(outbox: string, limits: KeepLimits) {
    this.#outbox = outbox;
    this.#directory = join(outbox, "kept");
    this.#limits = limits;
  }

  static async open(outbox: string, limits: KeepLimits = keepLimits): Promise<KeptResults> {
    const results = new KeptResults(outbox, limits);
    await ensureDirectory(results.#directory);
    for (const kept of await readKept(results.#directory)) results.#kept.set(kept.attemptToken, kept);
    await results.prune();
    return results;
  }

  /** Notes the server's clock, and drops results that are too old by it. */
  async toldTime(serverMs: number): Promise<void> {
    this.#time.told(serverMs);
    await this.prune();
  }

  /**
   * Milliseconds since the acknowledgement, at least: the time in this process by the monotonic
   * clock, or the age by the device's clock if the server's clock agrees. One wrong clock makes no
   * result old.
   */
  ageMs({ since, acknowledgedAtMs }: Kept): number {
    const heldMs = performance.now() - since;
    const serverMs = this.#time.nowMs();
    if (serverMs === undefined) return heldMs;
    return Math.max(heldMs, Math.min(Date.now(), serverMs) - acknowledgedAtMs);
  }

  /** Sets new limits and drops results beyond the limits at once. */
  async limit(limits: KeepLimits): Promise<void> {
    this.#limits = limits;
    await this.prune();
  }

  list(): Kept[] {
    return [...this.#kept.values()];
  }

  /**
   * Moves the record of an acknowledged attempt out of the outbox. Does nothing if there is no
   * record. `unsaved`: the record, if the outbox has not been able to write it.
   */
  async keep(
    attempt: { workId: string; attemptToken: string },
    by: KeptBy,
    { acknowledgedAt, unsaved }: { acknowledgedAt?: bigint | undefined; unsaved?: OutboxRecord | undefined },
  ): Promise<void> {
    const { workId, attemptToken } = attempt;
    const acknowledgedAtMs = Math.round(this.#time.nowMs() ?? Date.now());
    const since = performance.now();
    const kept: Kept = { workId, attemptToken, acknowledgedAtMs, since, bytes: 0, by, acknowledgedAt };
    if (unsaved) {
      const content = encodeRecord(unsaved);
      this.#kept.set(attemptToken, { ...kept, unsaved: content, bytes: content.length });
      await this.prune();
      await this.saveAll();
      return;
    }
    const from = join(this.#outbox, `${workId}.${attemptToken}.completion`);
    try {
      kept.bytes = (await stat(from)).size;
    } catch (error) {
      if (hasCode(error, "ENOENT")) return;
      throw error;
    }
    await this.#moveIn(from, kept);
    await this.prune();
  }

  async #moveIn(from: string, kept: Kept): Promise<void> {
    // Synchronous, with the list: a reader finds the record in exactly one of the two places.
    const move = () => {
      renameSync(from, this.#pathOf(kept));
      this.#kept.set(kept.attemptToken, kept);
    };
    try {
      move();
      return;
    } catch {
      // A program may have removed the directory, or put a file in its place.
      await ensureDirectory(this.#directory);
    }
    try {
      move();
    } catch {
      // The directory is a link to another disk, or the disk has an error, which then throws.
      await writeDurably(this.#pathOf(kept), await readFile(from));
      this.#kept.set(kept.attemptToken, kept);
      await rm(from, { force: true });
    }
  }

  /**
   * Writes the records in memory; the first error of the disk ends the attempt, for the next call.
   */
  async saveAll(): Promise<void> {
    if (this.#isSaving) return;
    this.#isSaving = true;
    try {
      for (const kept of this.list()) if (kept.unsaved) await this.#save(kept, kept.unsaved);
    } catch {
      // The disk still takes no writes.
    } finally {
      this.#isSaving = false;
    }
  }

  async #save(kept: Kept, content: Uint8Array): Promise<void> {
    const path = this.#pathOf(kept);
    await writeDurably(path, content);
    // The entry may have changed or gone during the write.
    const now = this.#kept.get(kept.attemptToken);
    if (now === undefined) return rm(path, { force: true });
    renameSync(path, this.#pathOf(now));
    this.#kept.set(kept.attemptToken, { ...now, unsaved: undefined });
  }

  /**
   * The database's log has come to a position. A result that was acknowledged at an earlier
   * position is stored before the new position: the server read the new position after the
   * acknowledgement.
   */
  passed(by: KeptBy, position: bigint, options: { isWelcome: boolean }): void {
    for (const kept of this.#kept.values()) {
      if (kept.by.systemIdentifier !== by.systemIdentifier || kept.by.timeline !== by.timeline) continue;
      if (kept.storedBefore !== undefined) continue;
      // Another replica's position may be older: only positions of one session are compared.
      if (options.isWelcome) kept.acknowledgedAt = position;
      if (kept.acknowledgedAt === undefined || kept.acknowledgedAt >= position) continue;
      const now: Kept = { ...kept, storedBefore: position };
      try {
        this.#replace(kept, now);
      } catch {
        // The result is offered again without need.
      }
    }
  }

  /**
   * Another database has the result: since before (its log goes on from the earlier log), or since
   * its answer to the repeated offer, with the last known position of its log.
   */
  confirm({ attemptToken }: Kept, by: KeptBy, answer?: { answeredAt: bigint | undefined }): void {
    const kept = this.#kept.get(attemptToken);
    if (kept === undefined) return;
    const answered = answer && { acknowledgedAt: answer.answeredAt, storedBefore: undefined };
    const now: Kept = { ...kept, by, ...answered };
    this.#replace(kept, now);
  }

  #replace(kept: Kept, now: Kept): void {
    if (!kept.unsaved) renameSync(this.#pathOf(kept), this.#pathOf(now));
    this.#kept.set(kept.attemptToken, now);
  }

  #pathOf(kept: Kept): string {
    return join(this.#directory, nameOf(kept));
  }

  /**
   * Undefined if the record is gone, damaged, or of a newer daemon; a damaged one is dropped. The
   * file's name may change at any time, with the entry: a caller's entry may be an earlier one.
   */
  async read({ attemptToken }: Kept): Promise<OutboxRecord | undefined> {
    for (;;) {
      const kept = this.#kept.get(attemptToken);
      if (kept === undefined) return undefined;
      const found = kept.unsaved
        ? { kind: "read" as const, bytes: kept.unsaved }
        : await readRegularFile(this.#pathOf(kept), { bytesMax: RECORD_BYTES_MAX });
      if (found.kind === "unreadable") return undefined;
      const record = found.kind === "read" ? decodeRecord(found.bytes) : undefined;
      if (record !== undefined && !("problem" in record)) return record;
      if (this.#kept.get(attemptToken) !== kept) continue;
      // A newer daemon reads its record after the next upgrade.
      if (record?.isNewer !== true) await this.#drop(kept);
      return undefined;
    }
  }

  /** Drops results beyond the age limit, then the oldest beyond the limits of memory and disk. */
  async prune(): Promise<void> {
    const all = this.list().sort((a, b) => a.acknowledgedAtMs - b.acknowledgedAtMs);
    const inMemory = all.filter(({ unsaved }) => unsaved !== undefined);
    await this.#fit(inMemory, UNSAVED_BYTES_MAX);
    const left = all.filter(({ attemptToken }) => this.#kept.has(attemptToken));
    await this.#fit(left, this.#limits.bytes);
  }

  /** Drops results beyond the age limit, then the oldest until the others fit. */
  async #fit(oldest: readonly Kept[], bytesMax: number): Promise<void> {
    let bytes = oldest.reduce((sum, kept) => sum + kept.bytes, 0);
    for (const kept of oldest) {
      if (this.ageMs(kept) <= this.#limits.ms && bytes <= bytesMax) continue;
      bytes -= kept.bytes;
      await this.#drop(kept);
    }
  }

  async #drop({ attemptToken }: Kept): Promise<void> {
    const kept = this.#kept.get(attemptToken);
    if (kept === undefined) return;
    this.#kept.delete(attemptToken);
    await removeTree(this.#pathOf(kept));
  }
}

/**
 * The kept results of a device, for display; also while its daemon runs. Empty if the device never
 * kept a result.
 */
export async function listKept(stateDir: string): Promise<Kept[]> {
  try {
    return await readKept(join(stateDir, "outbox", "kept"));
  } catch (error) {
    if (hasCode(error, "ENOENT")) return [];
    throw error;
  }
}

async function readKept(directory: string): Promise<Kept[]> {
  const found: Kept[] = [];
  for (const name of await readdir(directory)) {
    const [, workId, attemptToken, at, systemIdentifier, timeline, position] = NAME.exec(name) ?? [];
    if (workId === undefined || attemptToken === undefined || systemIdentifier === undefined) continue;
    const bytes = await stat(join(directory, name)).then(
      ({ size }) => size,
      () => undefined,
    );
    if (bytes === undefined) continue;
    const by = { systemIdentifier, timeline: Number(timeline) };
    const storedBefore = position === undefined ? undefined : BigInt(`0x${position}`);
    const since = performance.now();
    found.push({ workId, attemptToken, acknowledgedAtMs: Number(at), since, bytes, by, storedBefore });
  }
  return found;
}

function nameOf({ workId, attemptToken, acknowledgedAtMs, by, storedBefore }: Kept): string {
  const position = storedBefore === undefined ? "" : `-${storedBefore.toString(16)}`;
  return `${workId}.${attemptToken}.${acknowledgedAtMs}.${by.systemIdentifier}-${by.timeline}${position}${SUFFIX}`;
}
