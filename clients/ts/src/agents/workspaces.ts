import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { cp, lstat, mkdir, readdir, rm, stat, utimes } from "node:fs/promises";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { create } from "@bufbuild/protobuf";
import { messageOf } from "../device/errors.ts";
import { type KeptWorkspace, KeptWorkspaceSchema } from "../gen/pinion/v1/activity_pb.js";
import type { Logger } from "../logger.ts";
import type { WorkspaceConfig } from "../runner/workspace-settings.ts";

const run = promisify(execFile);
/** Time limit of a git command, in ms; a checkout of a large repository may take minutes. */
const GIT_MS_MAX = 10 * 60_000;
const GIT_OUTPUT_BYTES_MAX = 16 * 1024 * 1024;
/** Bound on a copied workspace in bytes; a larger folder is refused. */
const COPY_BYTES_MAX = 4 * 1024 * 1024 * 1024;
const ENTRIES_WALKED_MAX = 2_000_000;

/** The directory of one attempt. */
export interface Place {
  cwd: string;
  /**
   * Leaves the directory. A directory without changes is removed; otherwise the kept workspace is
   * returned. Never rejects.
   */
  leave(): Promise<KeptWorkspace | undefined>;
}

/**
 * The workspaces of a device. Runs of a shared workspace wait in a queue. Worktrees, copies and
 * empty folders belong to one run, below the state directory, and are swept by age and size.
 */
export class Workspaces {
  readonly #directory: string;
  readonly #logger: Logger;
  readonly #git: (cwd: string, args: string[]) => Promise<string>;
  readonly #queues = new Map<string, Promise<void>>();
  /** Folders in use by attempts; the sweep skips these. */
  readonly #inUse = new Set<string>();

  constructor(options: { stateDir: string; logger: Logger; env: NodeJS.ProcessEnv }) {
    this.#directory = join(options.stateDir, "workspaces");
    this.#logger = options.logger;
    this.#git = (cwd, args) => git(cwd, args, options.env);
  }

  /**
   * Waits for the workspace and makes the attempt's directory. `again`: directory of the session to
   * resume. Throws an error for people: no folder, no repository, no space. Rejects at once when
   * the signal is aborted.
   */
  async enter(
    workspace: WorkspaceConfig,
    attempt: { workId: string; again: string | undefined; signal: AbortSignal; onWait: () => void },
  ): Promise<Place> {
    if (workspace.mode === "shared") return this.#share(workspace, attempt);
    await this.sweep(workspace).catch((error: unknown) => {
      this.#logger.warn({ workspace: workspace.name, error: messageOf(error) }, "cannot sweep a workspace");
    });
    const parent = join(this.#directory, workspace.name);
    await mkdir(parent, { recursive: true, mode: 0o700 });
    const isOurs = attempt.again?.startsWith(`${parent}/`);
    const cwd =
      isOurs && attempt.again !== undefined
        ? attempt.again
        : join(parent, `${attempt.workId}-${randomUUID().slice(0, 8)}`);
    if (this.#inUse.has(cwd)) throw new Error(`another run works in ${cwd}`);
    this.#inUse.add(cwd);
    try {
      if (await exists(cwd)) return this.#placeOf(workspace, cwd, undefined);
      if (workspace.mode === "worktree") return await this.#worktree(workspace, cwd);
      if (workspace.mode === "copy") await this.#copy(workspace, cwd);
      else await mkdir(cwd, { mode: 0o700 });
      return this.#placeOf(workspace, cwd, undefined);
    } catch (error) {
      this.#inUse.delete(cwd);
      throw error;
    }
  }

  /**
   * Removes folders of ended runs: those older than the workspace's `keepMs`, then the oldest
   * beyond `keepBytes`.
   */
  async sweep(workspace: WorkspaceConfig): Promise<void> {
    const parent = join(this.#directory, workspace.name);
    const names = await readdir(parent).catch(() => []);
    const left: { cwd: string; atMs: number; bytes: number }[] = [];
    for (const name of names) {
      const cwd = join(parent, name);
      if (this.#inUse.has(cwd)) continue;
      const { mtimeMs } = await stat(cwd);
      left.push({ cwd, atMs: mtimeMs, bytes: await bytesOf(cwd) });
    }
    left.sort((a, b) => b.atMs - a.atMs);
    let bytes = 0;
    for (const each of left) {
      bytes += each.bytes;
      if (Date.now() - each.atMs <= workspace.keepMs && bytes <= workspace.keepBytes) continue;
      await this.#remove(workspace, each.cwd);
    }
  }

  async #share(
    workspace: WorkspaceConfig,
    attempt: { signal: AbortSignal; onWait: () => void },
  ): Promise<Place> {
    const cwd = workspace.path ?? "";
    const check = async () => {
      const info = await stat(cwd).catch(() => undefined);
      if (info?.isDirectory() === true) return;
      throw new Error(`the workspace "${workspace.name}" is no folder on this device`);
    };
    if (workspace.isParallel) {
      await check();
      return { cwd, leave: async () => undefined };
    }
    const before = this.#queues.get(workspace.name);
    let release: () => void = () => {};
    const mine = new Promise<void>((resolve) => {
      release = resolve;
    });
    const queue = (before ?? Promise.resolve()).then(() => mine);
    this.#queues.set(workspace.name, queue);
    const leave = async () => {
      release();
      if (this.#queues.get(workspace.name) === queue) this.#queues.delete(workspace.name);
      return undefined;
    };
    try {
      if (before !== undefined) {
        attempt.onWait();
        await orAborted(before, attempt.signal);
      }
      await check();
    } catch (error) {
      await leave();
      throw error;
    }
    return { cwd, leave };
  }

  async #worktree(workspace: WorkspaceConfig, cwd: string): Promise<Place> {
    const repository = workspace.path ?? "";
    const base = (
      await this.#git(repository, ["rev-parse", "--verify", "HEAD"]).catch(() => {
        throw new Error(`the workspace "${workspace.name}" is no git repository with a commit`);
      })
    ).trim();
    const branch = `pinion/${basename(cwd)}`;
    await this.#git(repository, ["worktree", "add", "--quiet", "-b", branch, cwd, base]);
    return this.#placeOf(workspace, cwd, { base, branch });
  }

  async #copy(workspace: WorkspaceConfig, cwd: string): Promise<void> {
    const source = workspace.path ?? "";
    if ((await stat(source).catch(() => undefined))?.isDirectory() !== true) {
      throw new Error(`the workspace "${workspace.name}" is no folder on this device`);
    }
    if ((await bytesOf(source)) > COPY_BYTES_MAX) {
      throw new Error(
        `the workspace "${workspace.name}" is larger than 4 GiB: too much to copy for each run`,
      );
    }
    // Sockets, FIFOs and device files are not copied: a read may never end.
    const isCopied = async (path: string) => {
      const info = await lstat(path);
      return info.isFile() || info.isDirectory() || info.isSymbolicLink();
    };
    try {
      await cp(source, cwd, {
        recursive: true,
        preserveTimestamps: true,
        verbatimSymlinks: true,
        filter: isCopied,
      });
    } catch (error) {
      await rm(cwd, { recursive: true, force: true });
      throw error;
    }
  }

  #placeOf(
    workspace: WorkspaceConfig,
    cwd: string,
    worktree: { base: string; branch: string } | undefined,
  ): Place {
    return {
      cwd,
      leave: async () => {
        try {
          const kept = await this.#leave(workspace, cwd, worktree);
          const now = new Date();
          if (kept !== undefined) await utimes(cwd, now, now);
          return kept;
        } catch (error) {
          this.#logger.warn(
            { workspace: workspace.name, cwd, error: messageOf(error) },
            "cannot let go of a workspace",
          );
          return create(KeptWorkspaceSchema, { name: workspace.name, path: cwd.slice(0, 1000) });
        } finally {
          this.#inUse.delete(cwd);
        }
      },
    };
  }

  async #leave(
    workspace: WorkspaceConfig,
    cwd: string,
    made: { base: string; branch: string } | undefined,
  ): Promise<KeptWorkspace | undefined> {
    const kept = (facts: { branch?: string; commits?: number; changedFiles: number }) =>
      create(KeptWorkspaceSchema, { name: workspace.name, path: cwd.slice(0, 1000), ...facts });
    if (workspace.mode === "worktree") {
      const changed = (await this.#git(cwd, ["status", "--porcelain", "--untracked-files=all"]))
        .split("\n")
        .filter(Boolean);
      const branch = made?.branch ?? (await this.#git(cwd, ["rev-parse", "--abbrev-ref", "HEAD"])).trim();
      const base =
        made?.base ??
        (
          await this.#git(cwd, [
            "merge-base",
            "HEAD",
            (await this.#git(workspace.path ?? "", ["rev-parse", "HEAD"])).trim(),
          ])
        ).trim();
      const commits = Number((await this.#git(cwd, ["rev-list", "--count", `${base}..HEAD`])).trim());
      if (changed.length === 0 && commits === 0) {
        await this.#remove(workspace, cwd);
        return undefined;
      }
      return kept({ branch: commits > 0 ? branch : "", commits, changedFiles: changed.length });
    }
    const changedFiles =
      workspace.mode === "empty" ? await countFiles(cwd) : await countChanges(workspace.path ?? "", cwd);
    if (changedFiles > 0) return kept({ changedFiles });
    await this.#remove(workspace, cwd);
    return undefined;
  }

  async #remove(workspace: WorkspaceConfig, cwd: string): Promise<void> {
    if (workspace.mode === "worktree") {
      const repository = workspace.path ?? "";
      const branch = await this.#git(cwd, ["rev-parse", "--abbrev-ref", "HEAD"]).catch(() => "");
      await this.#git(repository, ["worktree", "remove", "--force", cwd]).catch(() => undefined);
      if (branch.startsWith("pinion/"))
        await this.#git(repository, ["branch", "-D", branch.trim()]).catch(() => undefined);
    }
    await rm(cwd, { recursive: true, force: true });
  }
}

/** Runs git without the caller's environment, hooks and configured helper programs. */
async function git(cwd: string, args: string[], env: NodeJS.ProcessEnv): Promise<string> {
  const { PATH, HOME } = env;
  try {
    const { stdout } = await run(
      "git",
      ["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", ...args],
      {
        cwd,
        timeout: GIT_MS_MAX,
        maxBuffer: GIT_OUTPUT_BYTES_MAX,
        env: { PATH: PATH ?? "", HOME: HOME ?? "", GIT_TERMINAL_PROMPT: "0", LC_ALL: "C" },
      },
    );
    return stdout;
  } catch (error) {
    const said = (error as { stderr?: string }).stderr?.trim().split("\n").at(-1);
    throw new Error(`git ${args[0]}: ${said || messageOf(error)}`);
  }
}

const exists = (path: string) =>
  stat(path).then(
    () => true,
    () => false,
  );

/** Every regular file below a folder; symbolic links are not followed. */
async function* files(directory: string): AsyncGenerator<{ path: string; bytes: number; mtimeMs: number }> {
  const waiting = [directory];
  let walked = 0;
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    for (const entry of await readdir(next, { withFileTypes: true }).catch(() => [])) {
      walked += 1;
      if (walked > ENTRIES_WALKED_MAX) return;
      const path = join(next, entry.name);
      if (entry.isDirectory()) waiting.push(path);
      else if (entry.isFile()) {
        const info = await lstat(path).catch(() => undefined);
        if (info !== undefined) yield { path, bytes: info.size, mtimeMs: info.mtimeMs };
      }
    }
  }
}

async function bytesOf(directory: string): Promise<number> {
  let bytes = 0;
  for await (const file of files(directory)) bytes += file.bytes;
  return bytes;
}

async function countFiles(directory: string): Promise<number> {
  let count = 0;
  for await (const _ of files(directory)) count += 1;
  return count;
}

/**
 * Counts files of a copy with another size or time than the original, and files removed from the
 * copy.
 */
async function countChanges(original: string, copy: string): Promise<number> {
  let changed = 0;
  for await (const file of files(copy)) {
    const before = await lstat(join(original, file.path.slice(copy.length))).catch(() => undefined);
    // Times of a copy may lose fractions of a millisecond.
    const isSame =
      before?.isFile() && before.size === file.bytes && Math.abs(before.mtimeMs - file.mtimeMs) < 2;
    if (!isSame) changed += 1;
  }
  for await (const file of files(original)) {
    if (!(await exists(join(copy, file.path.slice(original.length))))) changed += 1;
  }
  return changed;
}

async function orAborted(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  let onAbort: () => void = () => {};
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
  });
  try {
    await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
