import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { cp, lstat, mkdir, readdir, stat, utimes } from "node:fs/promises";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { create } from "@bufbuild/protobuf";
import { messageOf } from "../device/errors.ts";
import { type KeptWorkspace, KeptWorkspaceSchema } from "../gen/pinion/v1/activity_pb.js";
import type { Logger } from "../logger.ts";
import { removeTree } from "../remove-tree.ts";
import { type Confinement, confine } from "../runner/confinement.ts";
import type { WorkspaceConfig } from "../runner/workspace-settings.ts";
import { bytesOf, countChanges, countFiles, exists } from "./folder-files.ts";

const run = promisify(execFile);
/** Time limit of a git command, in ms; a checkout of a large repository may take minutes. */
const GIT_MS_MAX = 10 * 60_000;
/**
 * Time limit of a git command after the run, in ms: the run's result waits in memory meanwhile, and
 * a filter of the repository may never end. The folder is then kept.
 */
const LEAVE_MS_MAX = 60_000;
const GIT_OUTPUT_BYTES_MAX = 16 * 1024 * 1024;
/** Bound on a copied workspace in bytes; a larger folder is refused. */
const COPY_BYTES_MAX = 4 * 1024 * 1024 * 1024;

/** The directory of one attempt. */
export interface Place {
  cwd: string;
  /**
   * Leaves the directory. A directory without changes is removed; otherwise the kept workspace is
   * returned. Never rejects.
   */
  leave(): Promise<KeptWorkspace | undefined>;
}

/** The directory of an attempt, and the confinement of what runs in it. */
type Folder = { cwd: string; confinement: Confinement };

/**
 * The workspaces of a device. Runs of a shared workspace wait in a queue. Worktrees, copies and
 * empty folders belong to one run, below the state directory, and are swept by age and size.
 */
export class Workspaces {
  readonly #directory: string;
  readonly #logger: Logger;
  readonly #env: NodeJS.ProcessEnv;
  readonly #leaveMsMax: number;
  readonly #queues = new Map<string, Promise<void>>();
  /** Folders in use by attempts; the sweep skips these. */
  readonly #inUse = new Set<string>();

  constructor(options: { stateDir: string; logger: Logger; env: NodeJS.ProcessEnv; leaveMsMax?: number }) {
    this.#directory = join(options.stateDir, "workspaces");
    this.#logger = options.logger;
    this.#env = options.env;
    this.#leaveMsMax = options.leaveMsMax ?? LEAVE_MS_MAX;
  }

  /**
   * Waits for the workspace and makes the attempt's directory. `again`: directory of the session to
   * resume. `confinement`: of the attempt's program, and of git, which runs programs that a
   * repository's configuration names. Throws an error for people: no folder, no repository, no
   * space. Rejects at once when the signal is aborted.
   */
  async enter(
    workspace: WorkspaceConfig,
    attempt: {
      workId: string;
      again: string | undefined;
      confinement: Confinement;
      signal: AbortSignal;
      onWait: () => void;
    },
  ): Promise<Place> {
    if (workspace.mode === "shared") return this.#share(workspace, attempt);
    const { confinement } = attempt;
    await this.sweep(workspace, confinement).catch((error: unknown) => {
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
      if (await exists(cwd)) return this.#placeOf(workspace, { cwd, confinement });
      if (workspace.mode === "worktree") return await this.#worktree(workspace, { cwd, confinement });
      if (workspace.mode === "copy") await this.#copy(workspace, cwd);
      else await mkdir(cwd, { mode: 0o700 });
      return this.#placeOf(workspace, { cwd, confinement });
    } catch (error) {
      this.#inUse.delete(cwd);
      throw error;
    }
  }

  /**
   * Removes folders of ended runs: those older than the workspace's `keepMs`, then the oldest
   * beyond `keepBytes`.
   */
  async sweep(workspace: WorkspaceConfig, confinement: Confinement): Promise<void> {
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
      await this.#remove(workspace, { cwd: each.cwd, confinement }).catch((error: unknown) => {
        // The other folders are swept all the same.
        const [fields, name] = [{ cwd: each.cwd, error: messageOf(error) }, workspace.name];
        this.#logger.warn({ ...fields, workspace: name }, "cannot remove a folder of a workspace");
      });
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

  /** Git in the workspace's repository or in a worktree, whose folder an isolated git sees, too. */
  #gitOf(workspace: WorkspaceConfig, confinement: Confinement, timeoutMs = this.#leaveMsMax) {
    const shown = [join(this.#directory, workspace.name)];
    return (cwd: string, args: string[]) => git(cwd, args, { env: this.#env, confinement, shown, timeoutMs });
  }

  async #worktree(workspace: WorkspaceConfig, folder: Folder): Promise<Place> {
    const { cwd, confinement } = folder;
    const git = this.#gitOf(workspace, confinement, GIT_MS_MAX);
    const repository = workspace.path ?? "";
    const base = (
      await git(repository, ["rev-parse", "--verify", "HEAD"]).catch(() => {
        throw new Error(`the workspace "${workspace.name}" is no git repository with a commit`);
      })
    ).trim();
    const branch = `pinion/${basename(cwd)}`;
    await git(repository, ["worktree", "add", "--quiet", "-b", branch, cwd, base]);
    return this.#placeOf(workspace, folder, { base, branch });
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
      await removeTree(cwd);
      throw error;
    }
  }

  #placeOf(workspace: WorkspaceConfig, folder: Folder, worktree?: { base: string; branch: string }): Place {
    const { cwd } = folder;
    return {
      cwd,
      leave: async () => {
        try {
          const kept = await this.#leave(workspace, folder, worktree);
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
    folder: Folder,
    made: { base: string; branch: string } | undefined,
  ): Promise<KeptWorkspace | undefined> {
    const { cwd } = folder;
    const kept = (facts: { branch?: string; commits?: number; changedFiles: number }) =>
      create(KeptWorkspaceSchema, { name: workspace.name, path: cwd.slice(0, 1000), ...facts });
    if (workspace.mode === "worktree") {
      const git = this.#gitOf(workspace, folder.confinement);
      const changed = (await git(cwd, ["status", "--porcelain", "--untracked-files=all"]))
        .split("\n")
        .filter(Boolean);
      const branch = made?.branch ?? (await git(cwd, ["rev-parse", "--abbrev-ref", "HEAD"])).trim();
      const base =
        made?.base ??
        (
          await git(cwd, [
            "merge-base",
            "HEAD",
            (await git(workspace.path ?? "", ["rev-parse", "HEAD"])).trim(),
          ])
        ).trim();
      const commits = Number((await git(cwd, ["rev-list", "--count", `${base}..HEAD`])).trim());
      if (changed.length === 0 && commits === 0) {
        await this.#remove(workspace, folder);
        return undefined;
      }
      return kept({ branch: commits > 0 ? branch : "", commits, changedFiles: changed.length });
    }
    const changedFiles =
      workspace.mode === "empty" ? await countFiles(cwd) : await countChanges(workspace.path ?? "", cwd);
    if (changedFiles > 0) return kept({ changedFiles });
    await this.#remove(workspace, folder);
    return undefined;
  }

  async #remove(workspace: WorkspaceConfig, { cwd, confinement }: Folder): Promise<void> {
    if (workspace.mode === "worktree") {
      const git = this.#gitOf(workspace, confinement);
      const repository = workspace.path ?? "";
      const branch = await git(cwd, ["rev-parse", "--abbrev-ref", "HEAD"]).catch(() => "");
      await git(repository, ["worktree", "remove", "--force", cwd]).catch(() => undefined);
      if (branch.startsWith("pinion/"))
        await git(repository, ["branch", "-D", branch.trim()]).catch(() => undefined);
    }
    await removeTree(cwd);
  }
}

/**
 * Runs git without the caller's environment and hooks. Filters of a repository are programs that a
 * run may have named, so git is confined as the run is.
 */
async function git(
  cwd: string,
  args: string[],
  options: { env: NodeJS.ProcessEnv; confinement: Confinement; shown: string[]; timeoutMs: number },
): Promise<string> {
  const { PATH, HOME } = options.env;
  const start = confine(options.confinement, {
    command: ["git", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", ...args],
    env: { PATH: PATH ?? "", HOME: HOME ?? "", GIT_TERMINAL_PROMPT: "0", LC_ALL: "C" },
    ...{ cwd, shown: options.shown },
  });
  try {
    if ("missing" in start) throw new Error("git is not installed");
    const [program, ...rest] = start.command;
    const { stdout } = await run(program, rest, {
      ...{ cwd, env: start.env, timeout: options.timeoutMs, killSignal: "SIGKILL" },
      maxBuffer: GIT_OUTPUT_BYTES_MAX,
      ...(start.uid === undefined ? {} : { uid: start.uid, gid: start.gid }),
    });
    return stdout;
  } catch (error) {
    const said = (error as { stderr?: string }).stderr?.trim().split("\n").at(-1);
    throw new Error(`git ${args[0]}: ${said || messageOf(error)}`);
  }
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
