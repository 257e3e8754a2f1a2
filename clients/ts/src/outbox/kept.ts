import { renameSync } from "node:fs";
import { mkdir, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { hasCode } from "../device/errors.ts";
import { readRegularFile } from "../regular-file.ts";
import { decodeRecord, type OutboxRecord } from "./record.ts";

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

/** An acknowledged result on disk. */
export interface Kept {
  workId: string;
  attemptToken: string;
  /** Time of the acknowledgement, in ms since the epoch by the device's clock. */
  acknowledgedAtMs: number;
  bytes: number;
  by: KeptBy;
}

const SUFFIX = ".kept";
const NAME = /^([0-9a-f-]{36})\.([0-9a-f-]{36})\.(\d{1,15})\.(\d{1,20})-(\d{1,10})\.kept$/i;
const RECORD_BYTES_MAX = 32 * 1024 * 1024;

/**
 * Acknowledged results, kept for a bounded time and size. A failover to a standby with replication
 * lag may lose results, and the new database gets these offered again. Records have the outbox's
 * format, with digests; the file name holds the acknowledging database, so keeping a record is a
 * rename.
 */
export class KeptResults {
  readonly #outbox: string;
  readonly #directory: string;
  #limits: KeepLimits;
  readonly #kept = new Map<string, Kept>();

  private constructor(outbox: string, limits: KeepLimits) {
    this.#outbox = outbox;
    this.#directory = join(outbox, "kept");
    this.#limits = limits;
  }

  static async open(outbox: string, limits: KeepLimits = keepLimits): Promise<KeptResults> {
    const results = new KeptResults(outbox, limits);
    await mkdir(results.#directory, { recursive: true, mode: 0o700 });
    for (const kept of await readKept(results.#directory)) results.#kept.set(kept.attemptToken, kept);
    await results.prune();
    return results;
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
   * record.
   */
  async keep(attempt: { workId: string; attemptToken: string }, by: KeptBy): Promise<void> {
    const { workId, attemptToken } = attempt;
    const from = join(this.#outbox, `${workId}.${attemptToken}.completion`);
    const kept: Kept = { workId, attemptToken, acknowledgedAtMs: Date.now(), bytes: 0, by };
    try {
      kept.bytes = (await stat(from)).size;
      // Synchronous, with the list: a reader finds the record in exactly one of the two places.
      renameSync(from, join(this.#directory, nameOf(kept)));
    } catch (error) {
      if (hasCode(error, "ENOENT")) return;
      throw error;
    }
    this.#kept.set(attemptToken, kept);
    await this.prune();
  }

  /** Another database has answered the repeated offer. */
  async confirm(kept: Kept, by: KeptBy): Promise<void> {
    const now: Kept = { ...kept, by };
    if (!this.#kept.has(kept.attemptToken)) return;
    await rename(join(this.#directory, nameOf(kept)), join(this.#directory, nameOf(now)));
    this.#kept.set(kept.attemptToken, now);
  }

  /** Undefined if the record is gone or damaged; the entry is then dropped. */
  async read(kept: Kept): Promise<OutboxRecord | undefined> {
    const found = await readRegularFile(join(this.#directory, nameOf(kept)), { bytesMax: RECORD_BYTES_MAX });
    if (found.kind === "unreadable") return undefined;
    const record = found.kind === "absent" || found.kind === "unfit" ? undefined : decodeRecord(found.bytes);
    if (record !== undefined && !("problem" in record)) return record;
    await this.#drop(kept);
    return undefined;
  }

  /** Drops results beyond the age limit, then the oldest beyond the size limit. */
  async prune(): Promise<void> {
    const oldest = [...this.#kept.values()].sort((a, b) => a.acknowledgedAtMs - b.acknowledgedAtMs);
    let bytes = oldest.reduce((sum, kept) => sum + kept.bytes, 0);
    for (const kept of oldest) {
      const ageMs = Date.now() - kept.acknowledgedAtMs;
      if (ageMs <= this.#limits.ms && bytes <= this.#limits.bytes) break;
      bytes -= kept.bytes;
      await this.#drop(kept);
    }
  }

  async #drop(kept: Kept): Promise<void> {
    this.#kept.delete(kept.attemptToken);
    await rm(join(this.#directory, nameOf(kept)), { force: true });
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
    const [, workId, attemptToken, at, systemIdentifier, timeline] = NAME.exec(name) ?? [];
    if (workId === undefined || attemptToken === undefined || systemIdentifier === undefined) continue;
    const bytes = await stat(join(directory, name)).then(
      ({ size }) => size,
      () => undefined,
    );
    if (bytes === undefined) continue;
    const by = { systemIdentifier, timeline: Number(timeline) };
    found.push({ workId, attemptToken, acknowledgedAtMs: Number(at), bytes, by });
  }
  return found;
}

const nameOf = ({ workId, attemptToken, acknowledgedAtMs, by }: Kept) =>
  `${workId}.${attemptToken}.${acknowledgedAtMs}.${by.systemIdentifier}-${by.timeline}${SUFFIX}`;
