import { mkdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import type { AttemptContext } from "../device/attempts/attempt.ts";
import { messageOf } from "../device/errors.ts";
import type { AttemptResult } from "../device/results/completion.ts";
import {
  AttentionReason,
  type ExecutorInfo,
  ExecutorInfoSchema,
  type WorkspaceInfo,
  WorkspaceInfoSchema,
  WorkspaceMode,
} from "../gen/pinion/v1/activity_pb.js";
import type { Assignment } from "../gen/pinion/v1/device_pb.js";
import type { Logger } from "../logger.ts";
import type { AttemptFiles } from "../runner/attempt-files.ts";
import type { DeviceConfig, ExecutorConfig } from "../runner/config.ts";
import { type Confinement, findInPath, unconfined } from "../runner/confinement.ts";
import type { AgentRun } from "./agent-attempt.ts";
import { versionOf } from "./drivers/installed.ts";
import { egressNote, egressProblem } from "./egress.ts";
import { runAgent } from "./run-agent.ts";
import { readSecrets } from "./secrets.ts";
import { type KeptSession, Sessions } from "./sessions.ts";
import { type Place, Workspaces } from "./workspaces.ts";

/** Bounds of ExecutorInfo.secret_names; further names stay on the device. */
const secretNamesMax = 64;
const secretNameBytesMax = 128;

/** Directory and secrets of one attempt. */
export interface WorkPlace {
  /** Undefined: the daemon's directory. */
  cwd: string | undefined;
  /** Directories below the state directory made visible to an isolated program. */
  shown: string[];
  workspace: string;
  secrets: Record<string, string>;
}

/** Executors and workspaces of a device, for its hello. */
export interface Description {
  executors: ExecutorInfo[];
  workspaces: WorkspaceInfo[];
}

const MODES: Record<"shared" | "worktree" | "copy" | "empty", WorkspaceMode> = {
  shared: WorkspaceMode.SHARED,
  worktree: WorkspaceMode.WORKTREE,
  copy: WorkspaceMode.COPY,
  empty: WorkspaceMode.EMPTY,
};

export interface AgentRunnerOptions {
  config: DeviceConfig;
  stateDir: string;
  env: NodeJS.ProcessEnv;
  logger: Logger;
  /** By executor. */
  confinements: Record<string, Confinement>;
}

/** Adds workspaces, secrets, sessions and agent drivers to the programs of a device. */
export class AgentRunner {
  #options: AgentRunnerOptions;
  readonly #workspaces: Workspaces;
  readonly #sessions: Sessions;
  readonly #versions = new Map<string, string>();

  constructor(options: AgentRunnerOptions) {
    this.#options = options;
    this.#workspaces = new Workspaces(options);
    this.#sessions = new Sessions(options.stateDir, options.logger);
  }

  /** Applies to attempts started from now on. */
  reconfigure(changes: Pick<AgentRunnerOptions, "config" | "confinements">): void {
    this.#options = { ...this.#options, ...changes };
  }

  async describe(): Promise<Description> {
    const { env, config, confinements } = this.#options;
    const executors = await Promise.all(
      Object.values(config.executors).map(async (executor) => {
        const { kind, type, command, env: names, setEnv } = executor;
        // A command may do anything with `--version`.
        if (type === "command") return create(ExecutorInfoSchema, { kind, type });
        const egress = egressNote(executor, env) ?? "";
        const handed = Object.fromEntries(
          names.flatMap((name) => (env[name] === undefined ? [] : [[name, env[name]]])),
        );
        const version = await versionOf(command, { ...handed, ...setEnv }, confinements[kind]);
        this.#versions.set(kind, version);
        const isThere = findInPath(command[0], setEnv.PATH ?? env.PATH ?? "") !== undefined;
        const problem = isThere ? "" : `${command[0]} is not installed`;
        const secretNames = Object.keys(executor.secrets)
          .filter((name) => Buffer.byteLength(name) <= secretNameBytesMax)
          .sort()
          .slice(0, secretNamesMax);
        return create(ExecutorInfoSchema, {
          ...{ kind, type, version, problem, egressProblem: egress },
          secretNames,
        });
      }),
    );
    const workspaces = await Promise.all(
      Object.values(config.workspaces).map(async ({ name, mode, path }) => {
        const isThere =
          path === undefined || (await stat(path).catch(() => undefined))?.isDirectory() === true;
        return create(WorkspaceInfoSchema, {
          name,
          mode: MODES[mode],
          problem: isThere ? "" : "its folder does not exist",
        });
      }),
    );
    return { executors, workspaces };
  }

  /** Reason for refusing an assignment, for people; undefined: the assignment can run here. */
  refusal(executor: ExecutorConfig, assignment: Assignment): string | undefined {
    const { config, confinements } = this.#options;
    const { workspace } = assignment;
    if (workspace !== "" && config.workspaces[workspace] === undefined) {
      const names = Object.keys(config.workspaces);
      const has = names.length === 0 ? "it has none" : `it has ${names.join(", ")}`;
      return `this device has no workspace "${workspace}" (${has}); add [workspaces.${workspace}] to its device.toml`;
    }
    const mode = config.workspaces[workspace]?.mode ?? "shared";
    if (mode !== "shared" && confinements[executor.kind]?.runAs !== undefined) {
      return `the executor "${executor.kind}" runs as another user, who cannot enter the folders of mode "${mode}"; the workspace "${workspace}" must be shared for it`;
    }
    if (executor.egress === "advisory") return undefined;
    const problem = this.#egressProblem(executor, assignment);
    return problem === undefined
      ? undefined
      : `the agent may only connect to some hosts, and this device cannot enforce it: ${problem}; egress = "advisory" in [executors.${executor.kind}] runs it all the same`;
  }

  /**
   * Runs `work` in the assignment's workspace, or in the executor's own directory. Never rejects if
   * `work` does not.
   */
  async within(
    attempt: { executor: ExecutorConfig; assignment: Assignment; context: AttemptContext },
    work: (place: WorkPlace) => Promise<AttemptResult>,
  ): Promise<AttemptResult> {
    const { executor, assignment, context } = attempt;
    const { config, confinements } = this.#options;
    let place: Place | undefined;
    let result: AttemptResult;
    try {
      const secrets = await readSecrets(executor.secrets, this.#options.env);
      const workspace = config.workspaces[assignment.workspace];
      const again = await this.#sessionOf(assignment, executor);
      if (workspace !== undefined) {
        place = await this.#workspaces.enter(workspace, {
          workId: assignment.workId,
          again: again?.cwd,
          confinement: confinements[executor.kind] ?? unconfined,
          signal: context.signal,
          onWait: () =>
            context.output(
              "stderr",
              `[pinion] waiting for the workspace "${workspace.name}": another run works in it\n`,
            ),
        });
      }
      const cwd = place?.cwd ?? executor.cwd ?? (await this.#ownDirectory(executor));
      const isOwn = cwd?.startsWith(`${this.#options.stateDir}/`) === true;
      result = await work({ cwd, shown: isOwn ? [cwd] : [], workspace: workspace?.name ?? "", secrets });
    } catch (error) {
      const isStopped = context.signal.aborted;
      result = isStopped
        ? { outcome: "cancelled", reason: "it waited for its workspace" }
        : { outcome: "failed", reason: messageOf(error) };
    }
    const kept = await place?.leave();
    return kept === undefined
      ? this.#withNote(attempt, result)
      : this.#withNote(attempt, { ...result, keptWorkspace: kept });
  }

  run(attempt: {
    executor: ExecutorConfig;
    assignment: Assignment;
    context: AttemptContext;
    place: WorkPlace;
    files: AttemptFiles;
    child: AgentRun["child"];
    timeoutMs: number | undefined;
  }): Promise<AttemptResult> {
    const { executor, assignment, place } = attempt;
    return runAgent({
      executor,
      assignment,
      context: attempt.context,
      place: { cwd: place.cwd ?? process.cwd(), workspace: place.workspace },
      egressProblem: this.#egressProblem(executor, assignment),
      version: this.#versions.get(executor.kind) ?? "",
      directory: attempt.files.directory,
      child: attempt.child,
      timeoutMs: attempt.timeoutMs,
      sessions: this.#sessions,
    });
  }

  /** Removes expired folders of workspaces. */
  async sweep(): Promise<void> {
    for (const workspace of Object.values(this.#options.config.workspaces)) {
      if (workspace.mode === "shared") continue;
      await this.#workspaces.sweep(workspace, unconfined).catch((error: unknown) => {
        const { logger } = this.#options;
        logger.warn({ workspace: workspace.name, error: messageOf(error) }, "cannot sweep a workspace");
      });
    }
  }

  /** A command gets no list of allowed hosts; the result notes the missing enforcement. */
  #withNote(
    attempt: { executor: ExecutorConfig; assignment: Assignment },
    result: AttemptResult,
  ): AttemptResult {
    const { executor, assignment } = attempt;
    const problem = executor.type === "command" ? this.#egressProblem(executor, assignment) : undefined;
    if (problem === undefined) return result;
    return {
      ...result,
      attention: [...(result.attention ?? []), AttentionReason.NOT_ENFORCED],
      notes: [
        ...(result.notes ?? []),
        `the hosts that the agent may connect to are not enforced: ${problem}`,
      ],
    };
  }

  async #sessionOf(assignment: Assignment, executor: ExecutorConfig): Promise<KeptSession | undefined> {
    const wanted = assignment.session?.sessionId;
    if (wanted === undefined) return undefined;
    const kept = await this.#sessions.find(wanted, executor.kind);
    return kept?.workspace === assignment.workspace ? kept : undefined;
  }

  #egressProblem(executor: ExecutorConfig, assignment: Assignment): string | undefined {
    const hosts = assignment.agent?.settings?.egressConfig?.allowedHosts;
    return hosts === undefined ? undefined : egressProblem(executor, hosts, this.#options.env);
  }

  /**
   * An agent without a directory works in a folder of its own, not in the daemon's directory or the
   * user's home.
   */
  async #ownDirectory(executor: ExecutorConfig): Promise<string | undefined> {
    if (executor.type === "command") return undefined;
    const { runAs } = this.#options.confinements[executor.kind] ?? unconfined;
    if (runAs !== undefined) return runAs.home;
    const directory = join(this.#options.stateDir, "work", executor.kind);
    await mkdir(directory, { recursive: true, mode: 0o700 });
    return directory;
  }
}
