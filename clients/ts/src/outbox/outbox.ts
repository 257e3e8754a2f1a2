import { mkdir, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { hasCode, messageOf } from "../device/errors.ts";
import { TEMPORARY_SUFFIX, writeDurably } from "./durable-file.ts";
import { decodeRecord, encodeRecord, type OutboxRecord } from "./record.ts";

const SUFFIX = ".completion";

/** What is known of a record without reading it. */
export interface OutboxEntry {
  runId: string;
  attemptToken: string;
  finishedAtMs: number;
}

/** A file that was set aside, and why. */
export interface SetAside {
  path: string;
  problem: string;
}

/**
 * Completions on the disk, one file each, until their acknowledgement. Records survive the daemon and the machine
 * (fsync); what cannot be read is set aside in `bad/` and reported, what the server turned down in `rejected/`.
 * One owner per directory: the lock on the state directory sees to it.
 */
export class Outbox {
  readonly #directory: string;

  private constructor(directory: string) {
    this.#directory = directory;
  }

  /** Opens the directory, making it if need be, and reads what is there, oldest first. */
  static async open(
    directory: string,
  ): Promise<{ outbox: Outbox; entries: OutboxEntry[]; setAside: SetAside[] }> {
    await mkdir(join(directory, "bad"), { recursive: true, mode: 0o700 });
    await mkdir(join(directory, "rejected"), { recursive: true, mode: 0o700 });
    const outbox = new Outbox(directory);
    const entries: OutboxEntry[] = [];
    const setAside: SetAside[] = [];
    for (const name of await readdir(directory)) {
      if (name.endsWith(TEMPORARY_SUFFIX)) {
        await rm(join(directory, name), { force: true });
      } else if (name.endsWith(SUFFIX)) {
        const record = await outbox.#load(name);
        if ("problem" in record) setAside.push(await outbox.#move(name, "bad", record.problem));
        else entries.push(entryOf(record));
      }
    }
    entries.sort((a, b) => a.finishedAtMs - b.finishedAtMs);
    return { outbox, entries, setAside };
  }

  /** Durable once it resolves. A second record of the same attempt replaces the first. */
  async put(record: OutboxRecord): Promise<void> {
    const { runId, attemptToken } = record.completion;
    await writeDurably(join(this.#directory, nameOf({ runId, attemptToken })), encodeRecord(record));
  }

  /** The record, or what is wrong with it; then it has been set aside. */
  async read(entry: OutboxEntry): Promise<OutboxRecord | { setAside: SetAside }> {
    const name = nameOf(entry);
    const record = await this.#load(name);
    return "problem" in record ? { setAside: await this.#move(name, "bad", record.problem) } : record;
  }

  /** Forgets an acknowledged record. Not synced: one that comes back after a power cut is acknowledged once more. */
  async remove(entry: OutboxEntry): Promise<void> {
    await rm(join(this.#directory, nameOf(entry)), { force: true });
  }

  /** Keeps a record that the server turned down, for a person to look at. */
  async reject(entry: OutboxEntry, problem: string): Promise<SetAside> {
    return this.#move(nameOf(entry), "rejected", problem);
  }

  async #load(name: string): Promise<OutboxRecord | { problem: string }> {
    let bytes: Buffer;
    try {
      bytes = await readFile(join(this.#directory, name));
    } catch (error) {
      return { problem: messageOf(error) };
    }
    const record = decodeRecord(bytes);
    if ("problem" in record) return record;
    return nameOf(record.completion) === name ? record : { problem: "its name is that of another attempt" };
  }

  async #move(name: string, folder: "bad" | "rejected", problem: string): Promise<SetAside> {
    const path = join(this.#directory, folder, name);
    try {
      await rename(join(this.#directory, name), path);
    } catch (error) {
      if (!hasCode(error, "ENOENT")) return { path: join(this.#directory, name), problem };
    }
    return { path, problem };
  }
}

const nameOf = (attempt: { runId: string; attemptToken: string }) =>
  `${attempt.runId}.${attempt.attemptToken}${SUFFIX}`;

const entryOf = (record: OutboxRecord): OutboxEntry => ({
  runId: record.completion.runId,
  attemptToken: record.completion.attemptToken,
  finishedAtMs: record.finishedAtMs,
});
