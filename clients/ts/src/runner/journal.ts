import { randomUUID } from "node:crypto";
import { mkdir, readdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { TEMPORARY_SUFFIX } from "../outbox/durable-file.ts";
import { readRegularFile } from "../regular-file.ts";

/** An attempt that was running when the note was written. */
export interface JournalNote {
  runId: string;
  attemptToken: string;
  /** Process, and process group, of the agent; absent until it is started. */
  pid?: number;
  /** See `startTimeOf`. */
  startTime?: string;
}

const SUFFIX = ".json";
/** A note has five short fields. */
const NOTE_BYTES_MAX = 4096;

/**
 * Notes of running agents in `attempts/`, so that the next daemon can end what this one leaves behind. Not synced: a
 * power cut that loses a note has ended the agent as well.
 */
export class Journal {
  readonly #directory: string;

  constructor(stateDir: string) {
    this.#directory = join(stateDir, "attempts");
  }

  async write(note: JournalNote): Promise<void> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const path = this.#path(note.attemptToken);
    const temporary = `${path}.${randomUUID()}${TEMPORARY_SUFFIX}`;
    await writeFile(temporary, JSON.stringify(note), { mode: 0o600 });
    await rename(temporary, path);
  }

  async remove(attemptToken: string): Promise<void> {
    await rm(this.#path(attemptToken), { force: true });
  }

  /**
   * All notes, and the files that the system does not let us read now (EIO, EACCES, EMFILE): those say nothing about
   * their content, and stay for the next daemon. What is damaged is removed: there is nothing to be learned from it.
   */
  async read(): Promise<{ notes: JournalNote[]; unreadable: { path: string; problem: string }[] }> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const notes: JournalNote[] = [];
    const unreadable: { path: string; problem: string }[] = [];
    for (const name of await readdir(this.#directory)) {
      const path = join(this.#directory, name);
      if (!name.endsWith(SUFFIX)) {
        await rm(path, { force: true, recursive: true });
        continue;
      }
      const found = await readRegularFile(path, { bytesMax: NOTE_BYTES_MAX });
      if (found.kind === "unreadable") unreadable.push({ path, problem: found.problem });
      const note = found.kind === "read" ? parse(found.bytes.toString("utf8")) : undefined;
      if (note !== undefined) notes.push(note);
      else if (found.kind !== "unreadable") await rm(path, { force: true, recursive: true });
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
    if (!("runId" in value && "attemptToken" in value)) return undefined;
    const note: JournalNote = { runId: String(value.runId), attemptToken: String(value.attemptToken) };
    if ("pid" in value && typeof value.pid === "number" && value.pid > 1) note.pid = value.pid;
    if ("startTime" in value && typeof value.startTime === "string") note.startTime = value.startTime;
    return note;
  } catch {
    return undefined;
  }
}
