import { join } from "node:path";
import { messageOf } from "../device/errors.ts";
import type { Logger } from "../logger.ts";
import { writeDurably } from "../outbox/durable-file.ts";
import { ensureDirectory } from "../private-directory.ts";
import { readRegularFile } from "../regular-file.ts";

/**
 * Bounds on remembered sessions, in count and age (30 days); agents also drop theirs after a month.
 */
const SESSIONS_MAX = 500;
const SESSION_AGE_MS_MAX = 30 * 24 * 3_600_000;
/** Maximum size of our file; a larger file is ignored. */
const FILE_BYTES_MAX = 1024 * 1024;

/** A session kept by an agent on this device. */
export interface KeptSession {
  id: string;
  /** The session's executor. */
  kind: string;
  /** The agent's directory: agents find a session only from there. */
  cwd: string;
  workspace: string;
  workId: string;
  atMs: number;
}

/** Index of the sessions of this device's agents, newest last. The agents keep the contents. */
export class Sessions {
  readonly #directory: string;
  readonly #logger: Logger;
  #sessions: KeptSession[] | undefined;
  #writing: Promise<void> = Promise.resolve();

  constructor(stateDir: string, logger: Logger) {
    this.#directory = stateDir;
    this.#logger = logger;
  }

  async find(id: string, kind: string): Promise<KeptSession | undefined> {
    const sessions = await this.#read();
    return sessions.findLast((session) => session.id === id && session.kind === kind);
  }

  async keep(session: KeptSession): Promise<void> {
    const sessions = await this.#read();
    const oldest = Date.now() - SESSION_AGE_MS_MAX;
    this.#sessions = [
      ...sessions.filter(
        ({ id, kind, atMs }) => !(id === session.id && kind === session.kind) && atMs >= oldest,
      ),
      session,
    ].slice(-SESSIONS_MAX);
    this.#writing = this.#writing.then(() => this.#write());
    await this.#writing;
  }

  async #read(): Promise<KeptSession[]> {
    if (this.#sessions !== undefined) return this.#sessions;
    let kept: KeptSession[] = [];
    try {
      const found = await readRegularFile(this.#path, { bytesMax: FILE_BYTES_MAX });
      const value: unknown = found.kind === "read" ? JSON.parse(found.bytes.toString("utf8")) : [];
      kept = Array.isArray(value) ? value.filter(isSession) : [];
    } catch {
      // The file is damaged: no session can be resumed.
    }
    this.#sessions ??= kept;
    return this.#sessions;
  }

  async #write(): Promise<void> {
    try {
      await ensureDirectory(this.#directory);
      await writeDurably(this.#path, JSON.stringify(this.#sessions ?? []));
    } catch (error) {
      this.#logger.warn({ error: messageOf(error) }, "cannot remember a session");
    }
  }

  get #path(): string {
    return join(this.#directory, "sessions.json");
  }
}

function isSession(value: unknown): value is KeptSession {
  if (typeof value !== "object" || value === null) return false;
  const { id, kind, cwd, workspace, workId, atMs } = value as Record<string, unknown>;
  return (
    [id, kind, cwd, workspace, workId].every((each) => typeof each === "string") && typeof atMs === "number"
  );
}
