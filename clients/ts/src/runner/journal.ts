import { randomUUID } from "node:crypto";
import { readdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { TEMPORARY_SUFFIX } from "../outbox/durable-file.ts";
import { ensureDirectory } from "../private-directory.ts";
import { readRegularFile } from "../regular-file.ts";
import { removeTree } from "../remove-tree.ts";

/** An attempt running at the time of the note. */
export interface JournalNote {
  workId: string;
  attemptToken: string;
  /** Process id, also the process group, of the agent; absent before the start. */
  pid?: number;
  /** See `startTimeOf`. */
  startTime?: string;
  /** The state directory of the note's daemon (`identityOfDirectory`); absent in older notes. */
  directory?: string;
}

const SUFFIX = ".json";
/** Bound on a note in bytes; a note has a few short fields. */
const NOTE_BYTES_MAX = 4096;

/**
 * Notes of running agents in `attempts/`, so the next daemon can end leftover processes. Not
 * synced: a power cut ends the agent too.
 */
export class Journal {
  readonly #directory: string;

  constructor(stateDir: string) {
    this.#directory = join(stateDir, "attempts");
  }

  async write(note: JournalNote): Promise<void> {
    await ensureDirectory(this.#directory);
    const path = this.#path(note.attemptToken);
    const temporary = `${path}.${randomUUID()}${TEMPORARY_SUFFIX}`;
    await writeFile(temporary, JSON.stringify(note), { mode: 0o600 });
    await rename(temporary, path);
  }

  async remove(attemptToken: string): Promise<void> {
    await rm(this.#path(attemptToken), { force: true });
  }

  /**
   * Reads all notes. A file with a read error of the system (EIO, EACCES, EMFILE) is listed as
   * unreadable and stays for the next daemon. A damaged file is removed.
   */
  async read(): Promise<{ notes: JournalNote[]; unreadable: { path: string; problem: string }[] }> {
    await ensureDirectory(this.#directory);
    const notes: JournalNote[] = [];
    const unreadable: { path: string; problem: string }[] = [];
    for (const name of await readdir(this.#directory)) {
      const path = join(this.#directory, name);
      if (!name.endsWith(SUFFIX)) {
        await removeTree(path);
        continue;
      }
      const found = await readRegularFile(path, { bytesMax: NOTE_BYTES_MAX });
      if (found.kind === "unreadable") unreadable.push({ path, problem: found.problem });
      const note = found.kind === "read" ? parse(found.bytes.toString("utf8")) : undefined;
      if (note !== undefined) notes.push(note);
      else if (found.kind !== "unreadable") await removeTree(path);
    }
    return { notes, unreadable };
  }

  #path(attemptToken: string): string {
    return join(this.#directory, `${attemptToken}${SUFFIX}`);
  }
}

function parse(text: string): JournalNote | undefined {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value !== "object" || value === null) return undefined;
    if (!("workId" in value && "attemptToken" in value)) return undefined;
    const note: JournalNote = { workId: String(value.workId), attemptToken: String(value.attemptToken) };
    if ("pid" in value && typeof value.pid === "number" && value.pid > 1) note.pid = value.pid;
    if ("startTime" in value && typeof value.startTime === "string") note.startTime = value.startTime;
    if ("directory" in value && typeof value.directory === "string") note.directory = value.directory;
    return note;
  } catch {
    return undefined;
  }
}
