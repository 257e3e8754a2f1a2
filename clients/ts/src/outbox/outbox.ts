import { readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { hasCode } from "../device/errors.ts";
import { ensureDirectory } from "../private-directory.ts";
import { readRegularFile } from "../regular-file.ts";
import { removeTree } from "../remove-tree.ts";
import { TEMPORARY_SUFFIX, writeDurably } from "./durable-file.ts";
import { decodeRecord, encodeRecord, type OutboxRecord } from "./record.ts";

const SUFFIX = ".completion";
/**
 * Bound on a record in bytes, above the largest completion: output, snapshot, transcript, and
 * framing.
 */
const RECORD_BYTES_MAX = 32 * 1024 * 1024;
/** See `nameOf`. */
const NAME = /^([0-9a-f-]{36})\.([0-9a-f-]{36})\.completion$/i;

/** Data of a record available without reading the file. */
export interface OutboxEntry {
  workId: string;
  attemptToken: string;
  finishedAtMs: number;
}

/** Result of reading a record. */
export type OutboxReading =
  | { kind: "record"; record: OutboxRecord }
  /** The record was damaged. */
  | { kind: "set_aside"; setAside: SetAside }
  /** The file no longer exists. */
  | { kind: "gone" }
  /** The read failed for now; the record still exists. */
  | { kind: "unreadable"; problem: string };

type Loaded =
  | Exclude<OutboxReading, { kind: "set_aside" }>
  | { kind: "damaged"; problem: string }
  /** A record of a newer daemon. */
  | { kind: "newer"; problem: string };

/** A file set aside, and the reason. */
export interface SetAside {
  path: string;
  problem: string;
}

/**
 * Completions on disk, a file for each, until their acknowledgement. Records survive a crash of the
 * daemon and of the machine (fsync). Damaged records are set aside in `bad/` and reported; records
 * refused by the server go to `rejected/`. A record with a read error of the system (EMFILE, EIO,
 * EACCES) stays for a later read. A record of a newer daemon, which a downgrade leaves, stays and
 * is reported at the start. The lock on the state directory ensures a single owner.
 */
export class Outbox {
  readonly #directory: string;

  private constructor(directory: string) {
    this.#directory = directory;
  }

  /**
   * Opens the directory, creating it if missing, and returns the entries, oldest first, including
   * unreadable records.
   */
  static async open(
    directory: string,
  ): Promise<{ outbox: Outbox; entries: OutboxEntry[]; setAside: SetAside[] }> {
    for (const path of [directory, join(directory, "bad"), join(directory, "rejected")]) {
      await ensureDirectory(path);
    }
    const outbox = new Outbox(directory);
    const entries: OutboxEntry[] = [];
    const setAside: SetAside[] = [];
    for (const name of await readdir(directory)) {
      if (name.endsWith(TEMPORARY_SUFFIX)) {
        // A program may have made a directory of the name.
        await removeTree(join(directory, name));
      } else if (name.endsWith(SUFFIX)) {
        const loaded = await outbox.#load(name);
        if (loaded.kind === "record") entries.push(entryOf(loaded.record));
        else if (loaded.kind === "newer") {
          setAside.push({ path: join(directory, name), problem: loaded.problem });
        } else if (loaded.kind === "damaged") setAside.push(await outbox.#move(name, "bad", loaded.problem));
        else if (loaded.kind === "unreadable") {
          const entry = await outbox.#entryByName(name);
          // A file with a foreign name stays for the next start, or for a person.
          if (entry !== undefined) entries.push(entry);
        }
      }
    }
    entries.sort((a, b) => a.finishedAtMs - b.finishedAtMs);
    return { outbox, entries, setAside };
  }

  /** Durable once resolved. A second record of the same attempt replaces the first. */
  async put(record: OutboxRecord): Promise<void> {
    await this.#write(this.#directory, record);
  }

  /**
   * Writes a file that the directory may have lost its place for: a program may have removed or
   * taken it.
   */
  async #write(directory: string, record: OutboxRecord): Promise<void> {
    const path = join(directory, nameOf(record.completion));
    const content = encodeRecord(record);
    try {
      await writeDurably(path, content);
    } catch (error) {
      if (hasCode(error, "EISDIR")) await rename(path, `${path}.${Date.now()}`);
      else if (hasCode(error, "ENOENT") || hasCode(error, "ENOTDIR")) await ensureDirectory(directory);
      else throw error;
      await writeDurably(path, content);
    }
  }

  /** Reads the record. Never rejects; the result tells other outcomes. */
  async read(entry: OutboxEntry): Promise<OutboxReading> {
    const name = nameOf(entry);
    const loaded = await this.#load(name);
    if (loaded.kind === "newer") return { kind: "unreadable", problem: loaded.problem };
    if (loaded.kind !== "damaged") return loaded;
    return { kind: "set_aside", setAside: await this.#move(name, "bad", loaded.problem) };
  }

  /**
   * Removes an acknowledged record. Not synced: a record restored by a power cut is acknowledged
   * once more.
   */
  async remove(entry: OutboxEntry): Promise<void> {
    await rm(join(this.#directory, nameOf(entry)), { force: true });
  }

  /**
   * Keeps a record refused by the server, for a person. `unsaved`: the record, if `put` has not
   * been able to write it.
   */
  async reject(entry: OutboxEntry, problem: string, unsaved?: OutboxRecord): Promise<SetAside> {
    const name = nameOf(entry);
    if (!unsaved) return this.#move(name, "rejected", problem);
    const folder = join(this.#directory, "rejected");
    await this.#write(folder, unsaved);
    return { path: join(folder, name), problem };
  }

  async #load(name: string): Promise<Loaded> {
    const found = await readRegularFile(join(this.#directory, name), { bytesMax: RECORD_BYTES_MAX });
    if (found.kind === "absent") return { kind: "gone" };
    if (found.kind === "unreadable") return found;
    if (found.kind === "unfit") return { kind: "damaged", problem: found.problem };
    const record = decodeRecord(found.bytes);
    if ("problem" in record) {
      return { kind: record.isNewer === true ? "newer" : "damaged", problem: record.problem };
    }
    if (nameOf(record.completion) === name) return { kind: "record", record };
    return { kind: "damaged", problem: "its name is that of another attempt" };
  }

  /** Entry of an unreadable record, from the file's name and time of change. */
  async #entryByName(name: string): Promise<OutboxEntry | undefined> {
    const [, workId, attemptToken] = NAME.exec(name) ?? [];
    if (workId === undefined || attemptToken === undefined) return undefined;
    const finishedAtMs = await stat(join(this.#directory, name)).then(
      ({ mtimeMs }) => mtimeMs,
      () => Date.now(),
    );
    return { workId, attemptToken, finishedAtMs };
  }

  async #move(name: string, folder: "bad" | "rejected", problem: string): Promise<SetAside> {
    const path = join(this.#directory, folder, name);
    const move = () => rename(join(this.#directory, name), path);
    try {
      await move();
    } catch {
      // A program may have removed the folder, or put a file in its place.
      await ensureDirectory(join(this.#directory, folder)).catch(() => {});
      try {
        await move();
      } catch (error) {
        // The record has gone, or stays where it is.
        if (!hasCode(error, "ENOENT")) return { path: join(this.#directory, name), problem };
      }
    }
    return { path, problem };
  }
}

const nameOf = (attempt: { workId: string; attemptToken: string }) =>
  `${attempt.workId}.${attempt.attemptToken}${SUFFIX}`;

const entryOf = (record: OutboxRecord): OutboxEntry => ({
  workId: record.completion.workId,
  attemptToken: record.completion.attemptToken,
  finishedAtMs: record.finishedAtMs,
});
